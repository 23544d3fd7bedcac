"""One schema in one document, for editors and validators that don't follow references from file to file."""

from __future__ import annotations

import copy
import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from endpoint.config.schemas import SUFFIX, Schema, load_schema, schema_folder

# Keywords whose values are data: what looks like a reference in them is none.
DATA = frozenset({"const", "default", "enum", "examples"})
# Keywords whose values are schemas by names of the author's.
BY_NAME = frozenset({"properties", "patternProperties", "dependentSchemas", "$defs"})
MESSAGES = "x-messages"  # by keyword, what to say where that keyword refuses a value
# Keywords whose value is the schema of a value below.
VALUES = frozenset({"additionalProperties", "items", "contains", "unevaluatedProperties", "unevaluatedItems"})
_EDITOR_MESSAGES = {"pattern": "patternErrorMessage", "type": "errorMessage"}
# Text that YAML takes as it is, and words that look like it and are something else.
_PLAIN = re.compile(r"[A-Za-z_/]([\w./@+*=-]|://)*( [A-Za-z_/][\w./@+*=-]*)*|\d+(\.\d+){3}")
_WORDS = frozenset({"yes", "no", "on", "off", "true", "false", "null", "y", "n"})


# name: the file, as people know it
FILES = {
    "endpoint": "config.yaml",
    "user": "the configuration of a user endpoint, which the template makes",
    "user-template": "user_config_template.yaml",
    "user-options-default": "user_config_schema.json, as `configure` writes it",
    "user-environment": "user_environment.yaml",
    "identity-mapping": "identity_mapping_config.json",
    "site": "site.yml",
    "hub": "hub.yaml",
    "policy": "policy.json",
    "engine": "the block `engine` of a user endpoint's configuration",
    "common": "what several of the others share",
}
PARTS = frozenset({"common", "engine"})  # for no file of their own
EDITOR_FOLDER = "editor"


def names() -> list[str]:
    """The names of all schemas, in alphabetical order."""
    return sorted(file.name.removesuffix(SUFFIX) for file in schema_folder().iterdir() if file.name.endswith(SUFFIX))


def bundled(name: str) -> Schema:
    """The schema called `name` with everything that it refers to in one document, as valid for the same data.

    Another schema stands whole in `$defs`, under the name of its file; `$id` stays the name of this one's. The result
    is the caller's own. Raises FileNotFoundError where there is no such schema.
    """
    result: Schema = {}
    waiting = [name]
    others: dict[str, Schema] = {}
    while waiting:
        current = waiting.pop()
        found: list[str] = []
        schema = _moved(load_schema(current), current, name, found)
        if current == name:
            result = schema
        else:
            others[current] = {key: value for key, value in schema.items() if key not in ("$schema", "$id")}
        waiting += [other for other in dict.fromkeys(found) if other != name and other not in others]
    if others:
        result["$defs"] = result.get("$defs", {}) | {f"{other}{SUFFIX}": others[other] for other in sorted(others)}
    return result


def for_editors(document: Schema) -> Schema:
    """A bundled document, which is changed, with what editors show and JSON Schema has no word for.

    These are keywords that the YAML and JSON language servers know: `markdownDescription` (with unit and default),
    `deprecationMessage` (which also keeps an option from being offered), and those for messages of our own.
    """
    for schema in list(subschemas(document)):
        for keyword, word in _EDITOR_MESSAGES.items():
            if keyword in schema.get(MESSAGES, {}):
                schema[word] = schema[MESSAGES][keyword]
        if is_uuid(schema):
            schema.setdefault("patternErrorMessage", "must be a UUID")
        for value in values(schema):
            if isinstance(value, dict):
                value |= _shown(merged(document, value))
    return document


def json_text(document: Schema) -> str:
    """The text of a schema's file."""
    return json.dumps(document, indent=2, ensure_ascii=False) + "\n"


def editor_file(name: str) -> Path:
    """Where the schema called `name` lies as `for_editors` makes it; a part of others lies there as it was written."""
    folder = schema_folder()
    if name not in PARTS:
        folder = folder.joinpath(EDITOR_FOLDER)
    return Path(str(folder.joinpath(f"{name}{SUFFIX}"))).resolve()


def default_text(schema: Schema) -> str:
    """The default of an option as YAML on one line; empty where it has none, or where that is null."""
    default = schema.get("default")
    return "" if default is None else flow(default)


def flow(value: Any) -> str:
    """JSON data as YAML on one line, for version 1.1 and 1.2 alike."""
    if isinstance(value, dict):
        return "{" + ", ".join(f"{flow(key)}: {flow(item)}" for key, item in value.items()) + "}"
    if isinstance(value, list):
        return f"[{', '.join(map(flow, value))}]"
    if isinstance(value, str) and _PLAIN.fullmatch(value) and value.lower() not in _WORDS:
        return value
    return json.dumps(value, ensure_ascii=False)


def is_uuid(schema: Schema) -> bool:
    """Whether `schema` asks for a UUID."""
    return str(schema.get("pattern", "")).endswith("[0-9a-fA-F]{12}$")


def _shown(option: Schema) -> Schema:
    """What editors show of an option, which is given with all that it refers to."""
    if option.get("deprecated"):
        if use := option.get("x-use"):
            return {"deprecationMessage": f"Deprecated; write {use} instead"}
        return {"deprecationMessage": f"Deprecated: {option.get('x-why', 'it has no effect')}"}
    if "description" not in option:
        return {}
    facts = [("Unit", option.get("x-unit", "")), ("Default", f"`{text}`" if (text := default_text(option)) else "")]
    told = ". ".join(f"{what}: {fact}" for what, fact in facts if fact)
    return {"markdownDescription": option["description"] + (f"\n\n{told}." if told else "")}


def target(document: Schema, reference: str) -> Any:
    """What `reference`, such as `#/$defs/uuid`, means in a bundled document."""
    found: Any = document
    for part in reference.removeprefix("#").split("/")[1:]:
        found = found[part.replace("~1", "/").replace("~0", "~")]
    return found


def subschemas(part: Any, by_name: bool = False) -> Iterator[Schema]:
    """`part`, if it is a schema, and every schema written inside it, outer ones first; references are not followed."""
    if isinstance(part, list):
        for item in part:
            yield from subschemas(item)
    elif isinstance(part, dict):
        if not by_name:
            yield part
        for key, below in part.items():
            if by_name or not (key in DATA or key.startswith("x-")):
                yield from subschemas(below, not by_name and key in BY_NAME)


def values(schema: Schema) -> Iterator[Any]:
    """The schemas, just below `schema`, of values that are not its own: of options and of items."""
    for key in ("properties", "patternProperties"):
        yield from schema.get(key, {}).values()
    yield from schema.get("prefixItems", ())
    yield from (schema[key] for key in sorted(VALUES & schema.keys()))


def merged(document: Schema, schema: Any) -> Schema:
    """`schema` with what it refers to in a bundled document; what it says itself wins."""
    found: Schema = dict(schema) if isinstance(schema, dict) else {}
    while "$ref" in found:
        found = target(document, found.pop("$ref")) | found
    return found


def _moved(part: Any, here: str, root: str, found: list[str], *, by_name: bool = False) -> Any:
    """A copy of `part` of the schema called `here`, references made to fit the document of `root`.

    by_name: the keys of `part` are the author's names. found: gets the names of the other schemas.
    """
    if isinstance(part, list):
        return [_moved(item, here, root, found) for item in part]
    if not isinstance(part, dict):
        return part
    result = {}
    for key, value in part.items():
        if by_name:
            result[key] = _moved(value, here, root, found)
        elif key in DATA:
            result[key] = copy.deepcopy(value)
        elif key == "$ref":
            result[key] = _reference(value, here, root, found)
        else:
            result[key] = _moved(value, here, root, found, by_name=key in BY_NAME)
    return result


def _reference(reference: str, here: str, root: str, found: list[str]) -> str:
    file, _, pointer = reference.partition("#")
    name = file.removesuffix(SUFFIX) or here
    if name != root:
        found.append(name)
    return f"#{pointer}" if name == root else f"#/$defs/{name}{SUFFIX}{pointer}"
