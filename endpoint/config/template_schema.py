"""The schema of data templates: that of a user endpoint's configuration, where each value may be an expression."""

from __future__ import annotations

from typing import Any

from endpoint.config.bundle import BY_NAME, DATA, MESSAGES, VALUES, bundled, subschemas, target, values
from endpoint.config.schemas import SUFFIX, Schema

NAME = "user-template"
# A value that the template makes: text with something in it that Jinja replaces.
EXPRESSION = {"type": "string", "pattern": "\\{[{%#]"}
# Keywords that say nothing about which data is valid; extensions (`x-...`) are others. What is referred to is not said
# here, and takes expressions by itself.
_ABOUT = frozenset(
    {"$schema", "$id", "$defs", "$ref", "$comment", "title", "description", "default", "examples", "deprecated"}
)


def template_schema() -> Schema:
    """The schema of `user_config_template.yaml` as data: what `user` takes, or text with an expression in it.

    Keys and conditions are those of `user`. The result is the caller's own.
    """
    document = bundled("user")
    made: Schema = _Rewriter(document).part(document)
    made["$id"] = f"{NAME}{SUFFIX}"
    made["title"] = "User endpoint's template"
    made["description"] = (
        "`user_config_template.yaml`: a user endpoint's configuration in which any value, but no key, may be or "
        "contain an expression such as `{{ option }}` over what the user sends."
    )
    return made


class _Rewriter:
    """Goes through a bundled document; a `$ref` stays, and what it refers to takes expressions if it has to."""

    def __init__(self, document: Schema) -> None:
        self.document = document
        self.referred: set[int] = set()  # identities of the definitions that are used for a value of their own
        for schema in subschemas(document):
            for value in values(schema):
                self._refer(value)

    def part(self, part: Any) -> Any:
        """`part`, which is a schema or a list of them, with expressions in every value below it."""
        if isinstance(part, list):
            return [self.part(item) for item in part]
        if not isinstance(part, dict):
            return part
        made = {key: self._below(key, value) for key, value in part.items()}
        return _or_expression(made) if id(part) in self.referred else made

    def _below(self, key: str, value: Any) -> Any:
        if key in DATA or key in ("if", "not", "propertyNames"):
            return value
        if key in ("properties", "patternProperties"):
            return {name: self._value(option) for name, option in value.items()}
        if key in BY_NAME:
            return {name: self.part(below) for name, below in value.items()}
        if key in VALUES:
            return self._value(value)
        return [self._value(item) for item in value] if key == "prefixItems" else self.part(value)

    def _value(self, schema: Any) -> Any:
        return _or_expression(self.part(schema))

    def _refer(self, schema: Any) -> None:
        while isinstance(schema, dict) and "$ref" in schema:
            schema = target(self.document, schema["$ref"])
            self.referred.add(id(schema))


def _or_expression(schema: Any) -> Any:
    """`schema`, or an expression; what people read about the value stays in front, where editors look for it."""
    if not isinstance(schema, dict):
        return schema
    about = {key: value for key, value in schema.items() if _is_about(key)}
    rules = {key: value for key, value in schema.items() if not _is_about(key)}
    if rules.keys() <= {MESSAGES}:
        return schema
    # These alternatives refuse nothing: editors look there, and not behind conditions, for the words that they offer.
    offered = {"anyOf": [words, {}]} if (words := _words(rules)) else {}
    return about | offered | {"if": EXPRESSION, "else": rules}


def _words(rules: Schema) -> Schema:
    """The part of `rules` that says which words a value can be; empty if there is none."""
    if "enum" in rules or "const" in rules:
        return {key: rules[key] for key in ("enum", "const") if key in rules}
    types = rules.get("type", [])
    kinds = [types] if isinstance(types, str) else types
    return {"type": [kind for kind in kinds if kind in ("boolean", "null")]} if "boolean" in kinds else {}


def _is_about(key: str) -> bool:
    return key in _ABOUT or (key.startswith("x-") and key != MESSAGES)
