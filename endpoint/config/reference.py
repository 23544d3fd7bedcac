"""Reference pages in Markdown, made from the schemas."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any

from endpoint.config.bundle import (
    FILES,
    MESSAGES,
    PARTS,
    bundled,
    default_text,
    flow,
    is_uuid,
    merged,
    target,
)
from endpoint.config.schemas import SUFFIX, Schema
from endpoint.config.template_schema import NAME as TEMPLATE
from endpoint.config.template_schema import template_schema

_TYPES = {
    "string": "text",
    "integer": "whole number",
    "number": "number",
    "boolean": "true or false",
    "object": "mapping",
    "array": "list",
    "null": "null",
}
_LIMITS = {
    "minimum": "at least {}",
    "maximum": "at most {}",
    "exclusiveMinimum": "more than {}",
    "exclusiveMaximum": "less than {}",
    "minLength": "at least {} characters",
    "maxLength": "at most {} characters",
    "minItems": "at least {} items",
    "maxItems": "at most {} items",
}
ANY_NAME = "NAME"
_MAPPING = {"type": "object"}
_NOT_IN_SLUG = re.compile(r"[^\w\- ]")
_START = re.compile(r"\^([\w-]+)")

Block = tuple[str, Any]  # where in the file a mapping stands, such as `engine.provider`, and its schema


def reference(name: str) -> str:
    """The reference page of the schema called `name`, in Markdown."""
    return _template_page() if name == TEMPLATE else page(name, bundled(name))


def page(name: str, document: Schema) -> str:
    """The reference page of a bundled document, the schema called `name`."""
    return _Page(name, document).text()


class _Page:
    """One page, as it is written; blocks that are reached by several ways stand in it once."""

    def __init__(self, name: str, document: Schema) -> None:
        self.document = document
        self.headings: dict[int, str] = {}  # by the identity of the block
        self.written: set[int] = set()
        # What has a page of its own.
        self.pages = {
            id(schema): f"[{schema['title']}]({file.removesuffix(SUFFIX)}.md)"
            for file, schema in self.document.get("$defs", {}).items()
            if file.endswith(SUFFIX) and file.removesuffix(SUFFIX) not in PARTS
        }
        self.lines = _beginning(name, self.document["title"], self.document["description"])
        if "null" in _listed(self.document.get("type")):
            self.lines += ["The file may be empty.", ""]

    def text(self) -> str:
        """The page."""
        items = self.document.get("items")
        self.section(("", items) if items else ("", self.document), "Each item" if items else "Options")
        return "\n".join(self.lines)

    def section(self, block: Block, heading: str) -> None:
        """A block with its options, then its kinds, and then the blocks below them."""
        path, schema = block
        self.written.add(id(self.origin(schema)))
        kinds = [(_kind(heading if path else "", *one), *one) for one in self.kinds(schema)]
        self.lines += [f"## {heading}", ""]
        links = {value: title for title, value, _, _ in kinds if value}
        below = self.table(path, schema, about=bool(path), kinds=links)
        for title, _, words, then in kinds:
            self.lines += [f"### {title}", ""]
            below += self.table(
                path, then, about=True, known=schema, place=f", where {words}" if words else ", otherwise"
            )
        for found in below:
            if id(self.origin(found[1])) not in self.written:
                self.section(found, self.heading(found, ""))

    def heading(self, block: Block, place: str) -> str:
        """The heading of a block's section; `place` is added to it if another block has the same path."""
        path, schema = block
        key = id(self.origin(schema))
        if key not in self.headings:
            taken = _code(path) in self.headings.values()
            self.headings[key] = _code(path) + (place if taken else "")
        return self.headings[key]

    def table(
        self, path: str, schema: Any, *, about: bool, kinds: Mapping[str, str] = {}, known: Any = None, place: str = ""
    ) -> list[Block]:
        """The options of one block, or of one kind of `known`; returns the blocks that are options of it."""
        description = merged(self.document, schema).get("description", "")
        self.lines += [description, ""] * bool(about and description)
        required = {name for part in self.parts(schema) for name in part.get("required", ())}
        before = {id(self.origin(option)) for option in self.options(known).values()}
        options = {
            _joined(path, name): option
            for name, option in self.options(schema).items()
            if option and id(self.origin(option)) not in before
        }
        rows, deprecated, below = [], [], []
        for where, option in options.items():
            said = merged(self.document, option)
            if said.get("deprecated"):
                deprecated.append(f"- {_code(where)}: {_replaced(said)}")
                continue
            blocks = list(self.blocks((where, option)))
            below += blocks
            default = "**required**" if where.rpartition(".")[2] in required else _code(default_text(said))
            links = [self.heading(found, place) for found in blocks]
            rows.append([_code(where), self.type_cell(option, links, kinds), default, _description(where, said)])
        if rows:
            self.lines += [row(["option", "type", "default", "description"]), "|---|---|---|---|"]
            self.lines += [*map(row, rows), ""]
        elif not deprecated and not kinds:
            self.lines += ["No options of its own.", ""]
        if deprecated:
            self.lines += ["Older options, which are still read, with a warning:", "", *deprecated, ""]
        return below

    def type_cell(self, option: Any, sections: list[str], kinds: Mapping[str, str]) -> str:
        """What values an option takes, with links to the sections and pages that say more."""
        schema = merged(self.document, option)
        words = self.words(schema)
        for value in schema.get("enum", ()):
            if value in kinds:
                words = words.replace(_code(value), _link(kinds[value], _code(value)), 1)
        links = [*map(_link, dict.fromkeys(sections)), *filter(None, [self.pages.get(id(self.origin(option)))])]
        return f"{words}; see {', '.join(links)}" if links else words

    def words(self, schema: Schema) -> str:
        """The values that a schema takes, in words."""
        if "enum" in schema or "const" in schema:
            return f"one of {', '.join(_code(flow(value)) for value in schema.get('enum') or [schema['const']])}"
        for key in ("anyOf", "oneOf"):
            if key in schema:
                return "; or ".join(
                    self.words(merged(self.document, {"type": schema.get("type"), **one})) for one in schema[key]
                )
        types = _TYPES | ({"string": "UUID"} if is_uuid(schema) else {})
        text = _or([types[kind] for kind in _listed(schema.get("type"))] or ["anything"])
        if unit := schema.get("x-unit"):
            text += f" ({unit})"
        return ", ".join([text, *_limits(schema), *self.inside(schema)])

    def inside(self, schema: Schema) -> Iterator[str]:
        """What a list or a free mapping holds, where it is no block with options of its own."""
        for key, what in (("items", "item"), ("additionalProperties", "value")):
            below = schema.get(key)
            if isinstance(below, dict) and not any(self.blocks(("", below))):
                yield f"each {what}: {self.words(merged(self.document, below))}"

    def blocks(self, block: Block) -> Iterator[Block]:
        """The mappings with options that a value is, or has right inside."""
        path, schema = block
        if id(self.origin(schema)) in self.pages:
            return
        named = (option for name, option in self.options(schema).items() if name != ANY_NAME)
        if any(named) or any(True for _ in self.kinds(schema)):
            yield block
            return
        for part in self.parts(schema):
            if isinstance(part.get("items"), dict):
                yield from self.blocks((f"{path}[]", part["items"]))
            if isinstance(part.get("additionalProperties"), dict):
                yield from self.blocks((_joined(path, ANY_NAME), part["additionalProperties"]))
            for one in (*part.get("anyOf", ()), *part.get("oneOf", ())):
                yield from self.blocks((path, one))

    def parts(self, schema: Any) -> Iterator[Schema]:
        """Every schema that holds for the same value in any case, references followed."""
        found = merged(self.document, schema)
        yield found
        for part in found.get("allOf", ()):
            if "if" not in part:
                yield from self.parts(part)
        if found.get("if") == _MAPPING:
            yield from self.parts(found["then"])

    def kinds(self, schema: Any) -> Iterator[tuple[str | None, str, Any]]:
        """What holds under a condition and has options, as (value, condition, schema).

        value: of the one option that the condition is about, such as `type`, if that is how it is.
        """
        for part in self.parts(schema):
            for one in (part, *part.get("allOf", ())):
                if one.get("if", _MAPPING) == _MAPPING:
                    continue
                for branch in ("then", "else"):
                    if any(self.options(one.get(branch, {})).values()):
                        value, words = self.condition(one["if"])
                        yield (value, words, one["then"]) if branch == "then" else (None, "", one["else"])

    def condition(self, condition: Schema) -> tuple[str | None, str]:
        """The value of the `kind` or `type` that a condition asks for, if it does, and the condition in words."""
        rules = condition.get("properties", {})
        words = [f"`{name}` is given" for name in condition.get("required", ()) if name not in rules]
        value = None
        for key, rule in rules.items():
            if "const" in rule:
                words.append(f"`{key}` is {_code(flow(rule['const']))}")
                value = rule["const"] if len(rules) == 1 and isinstance(rule["const"], str) else None
            elif start := _START.fullmatch(rule.get("pattern", "")):
                words.append(f"`{key}` starts with `{start[1]}`")
            else:
                words.append(f"`{key}` is: {self.words(rule)}")
        return value, " and ".join(words)

    def options(self, schema: Any) -> dict[str, Any]:
        """The options of a mapping, by name, references not followed; those of any name as NAME."""
        found: dict[str, Any] = {}
        for part in self.parts(schema):
            for name, option in part.get("properties", {}).items():
                found[name] = found.get(name) or option
            others = part.get("additionalProperties")
            if isinstance(others, dict) and "description" in others:
                found.setdefault(ANY_NAME, others)
        return {name: option for name, option in found.items() if option is not False}

    def origin(self, schema: Any) -> Any:
        """What a schema refers to in the end, itself if to nothing."""
        while isinstance(schema, dict) and "$ref" in schema:
            schema = target(self.document, schema["$ref"])
        return schema


def _kind(block: str, value: str | None, words: str, _: Any) -> str:
    """The heading of what holds under a condition."""
    if words.startswith("`type` is ") and value:
        return _code(value)
    if not words:
        return f"{block}, otherwise" if block else "Otherwise"
    return f"{block}, where {words}" if block else f"Where {words}"


def _link(heading: str, words: str = "") -> str:
    return f"[{words or heading}](#{_slug(heading)})"


def _beginning(name: str, title: str, description: str) -> list[str]:
    file = FILES.get(name, "")
    check = f"`globus-compute-endpoint check-config {file}` checks it. " if re.fullmatch(r"[\w.]+", file) else ""
    return [
        f"<!-- Made from schemas/{name}{SUFFIX} by `make reference`; change that file instead. -->",
        "",
        f"# {title}",
        "",
        description,
        "",
        f"{check}[An editor](../editor.md) can check it and offer options while you write. "
        f"`globus-compute-endpoint schema {name}` prints the JSON Schema.",
        "",
    ]


def _template_page() -> str:
    schema = template_schema()
    lines = _beginning(TEMPLATE, schema["title"], schema["description"])
    return "\n".join([*lines, "The options are those of [a user endpoint](user.md).", ""])


def _description(path: str, option: Schema) -> str:
    told = [option.get("description", "")]
    told += [f"It {message}." for keyword, message in option.get(MESSAGES, {}).items() if keyword == "pattern"]
    name = path.rpartition(".")[2]
    examples = [_code(f"{name}: {flow(value)}") for value in option.get("examples", ())]
    if examples:
        told.append(f"Example{'s' * (len(examples) > 1)}: {', '.join(examples)}.")
    return " ".join(filter(None, told))


def _replaced(option: Schema) -> str:
    instead = f"Write {_code(option['x-use'])} instead." if "x-use" in option else ""
    why = option.get("x-why", "").rstrip(".")
    return " ".join(filter(None, [option.get("description", ""), instead, why and f"{why[0].upper()}{why[1:]}."]))


def _limits(schema: Schema) -> Iterator[str]:
    if schema.get("minItems") == schema.get("maxItems") is not None:
        yield f"{schema['minItems']} items"
        schema = {key: value for key, value in schema.items() if key not in ("minItems", "maxItems")}
    for keyword, words in _LIMITS.items():
        if keyword in schema:
            empty = keyword in ("minLength", "minItems") and schema[keyword] == 1
            yield "not empty" if empty else words.format(schema[keyword])
    if "pattern" in schema and "pattern" not in schema.get(MESSAGES, {}) and not is_uuid(schema):
        yield f"of the form {_code(schema['pattern'])}"


def _joined(path: str, name: str) -> str:
    return f"{path}.{name}" if path else name


def _listed(kinds: Any) -> list[str]:
    return [kinds] if isinstance(kinds, str) else list(kinds or [])


def _or(words: list[str]) -> str:
    return words[0] if len(words) == 1 else f"{', '.join(words[:-1])} or {words[-1]}"


def _code(text: str) -> str:
    if not text:
        return ""
    return f"`` {text} ``" if "`" in text else f"`{text}`"


def _slug(heading: str) -> str:
    """The anchor that a heading gets."""
    return _NOT_IN_SLUG.sub("", heading.lower()).replace(" ", "-")


def row(cells: list[str]) -> str:
    """A row of a Markdown table."""
    escaped = (" ".join(cell.split()).replace("|", "\\|") for cell in cells)
    return f"| {' | '.join(escaped)} |"
