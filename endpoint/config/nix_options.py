"""Options of the NixOS modules that mirror a schema: `nix/options.nix`.

Each has a type, a description and an example from the schema. What a file need not say is null here: the module leaves
it out, and the program's default holds. What a type of Nix can't say of a file, such as a pattern, is for
`check-config`, which the modules run over it; of what is in no file, the types say all that they can.
"""

from __future__ import annotations

import json
import re
from collections.abc import Collection
from dataclasses import dataclass
from typing import Any

from endpoint.config.bundle import bundled, default_text, merged, target

PATH = "nix/options.nix"
HEADER = """\
# Made from schemas/ by `make reference`; change the schemas instead.
# Options that mirror a schema: `settings` of an endpoint and of the hub, and parts of the site document.
{ lib }:
let
  inherit (lib) mkOption types;
in
"""
FILES = ("endpoint", "hub", "policy")
PARTS = ("limits", "unit", "pam")  # of the site document
# Follow from the rest of an endpoint's options.
DERIVED = {
    "identity_mapping_config_path",
    "user_config_template_path",
    "user_config_schema_path",
    "service_user",
    "pam",
}
_TYPES = {"number": "types.number", "boolean": "types.bool"}
# Patterns that mean the same to Nix (POSIX): without backslashes and looks ahead.
_PORTABLE = re.compile(r"\^(?!.*\(\?)(?P<inner>[^\\^]*)")
_LETTERS = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ_"

Schema = dict[str, Any]


def nix_options() -> str:
    """The text of the file."""
    groups = {}
    for name in FILES:
        schema = bundled(name)
        groups[name] = _Options(schema, in_file=True).of(schema, leave_out=DERIVED)
    site = bundled("site")
    for name in PARTS:
        groups[name] = _Options(site, in_file=False).of(target(site, f"#/$defs/{name}"))
    entries = "\n\n".join(f"  {name} = {_shown(options)};" for name, options in groups.items())
    return f"{HEADER}{{\n{entries}\n}}\n"


def nix(value: Any) -> str:
    """JSON data as an expression of Nix on one line."""
    if isinstance(value, str):
        return json.dumps(value, ensure_ascii=False).replace("${", "\\${")
    if isinstance(value, list):
        return f"[ {' '.join(map(_item, value))} ]" if value else "[ ]"
    if isinstance(value, dict):
        return f"{{ {' '.join(f'{_name(key)} = {nix(item)};' for key, item in value.items())} }}" if value else "{ }"
    return json.dumps(value)


@dataclass(frozen=True)
class _Options:
    """Options of what `document` has. in_file: `check-config` reads it, and what is not said has the default there."""

    document: Schema
    in_file: bool

    def of(self, schema: Schema, leave_out: Collection[str] = ()) -> dict[str, dict[str, str]]:
        """The options below `schema`, by name; of each, what `mkOption` is given."""
        below = {name: merged(self.document, one) for name, one in schema["properties"].items()}
        return {
            _name(name): self._option(said)
            for name, said in below.items()
            if name not in leave_out and not said.get("deprecated")
        }

    def _option(self, said: Schema) -> dict[str, str]:
        default = None if self.in_file else said.get("default")
        kind = self._type(said)
        option = {"type": _nullable(kind) if default is None else kind, "default": nix(default)}
        example = {"example": nix(said["examples"][0])} if said.get("examples") else {}
        return option | example | {"description": nix(_description(said))}

    def _type(self, said: Schema) -> str:
        if "enum" in said:
            words = f"types.enum {nix([word for word in said['enum'] if word is not None])}"
            return _nullable(words) if None in said["enum"] else words
        kinds = said.get("type", [])
        named = [kinds] if isinstance(kinds, str) else list(kinds)
        of = [self._one(said, kind) for kind in named if kind != "null"]
        found = of[0] if len(of) == 1 else f"types.oneOf [ {' '.join(map(_inner, of))} ]" if of else "types.anything"
        return _nullable(found) if "null" in named else found

    def _one(self, said: Schema, kind: str) -> str:
        if kind == "integer":
            return _integer(said)
        if kind == "string":
            return self._text(said)
        if kind == "array":
            return f"types.listOf {_inner(self._type(merged(self.document, said.get('items', {}))))}"
        return self._object(said) if kind == "object" else _TYPES[kind]

    def _text(self, said: Schema) -> str:
        found = None if self.in_file else _PORTABLE.fullmatch(said.get("pattern", ""))
        if not found:
            return "types.str"
        inner = found["inner"]
        whole = inner.removesuffix("$") if inner.endswith("$") else f"{inner}.*"
        return f"types.strMatching {nix(whole)}"

    def _object(self, said: Schema) -> str:
        if "properties" in said:
            options = _shown(self.of(said))
            return f"types.submodule {{ freeformType = types.attrsOf types.anything; options = {options}; }}"
        values = said.get("additionalProperties")
        inner = self._type(merged(self.document, values)) if values else "types.anything"
        return f"types.attrsOf {_inner(inner)}"


def _description(said: Schema) -> str:
    facts = [said["description"]]
    if unit := said.get("x-unit"):
        facts.append(f"Unit: {unit}.")
    if (default := default_text(said)) not in ("", "{}", "[]"):
        facts.append(f"Default: `{default}`.")
    return " ".join(facts)


def _integer(said: Schema) -> str:
    low, high = said.get("minimum"), said.get("maximum")
    if low is not None and high is not None:
        return f"types.ints.between {_item(low)} {_item(high)}"
    return "types.int" if low is None else {0: "types.ints.unsigned", 1: "types.ints.positive"}.get(low, "types.int")


def _nullable(kind: str) -> str:
    return kind if kind.startswith("types.nullOr") else f"types.nullOr {_inner(kind)}"


def _inner(kind: str) -> str:
    return f"({kind})" if " " in kind else kind


def _item(value: Any) -> str:
    negative = isinstance(value, int | float) and value < 0
    return f"({nix(value)})" if negative else nix(value)


def _name(name: str) -> str:
    plain = name[:1] in _LETTERS and all(letter in _LETTERS or letter in "0123456789-" for letter in name)
    return name if plain else nix(name)


def _shown(options: dict[str, dict[str, str]]) -> str:
    lines = ["{"]
    for name, option in options.items():
        values = [f"    {key} = {value};".replace("\n", "\n  ") for key, value in option.items()]
        lines += [f"  {name} = mkOption {{", *values, "  };"]
    return "\n  ".join("\n".join([*lines, "}"]).split("\n"))
