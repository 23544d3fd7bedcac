"""The argument specifications of the roles, which are made from the schema of the site document."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from endpoint.config.argument_specs import argument_specs
from endpoint.config.parse import parse_yaml
from endpoint.config.site import inventory
from endpoint.config.site_document import Site

CHECKOUT = Path(__file__).resolve().parents[2]
EXAMPLES = sorted((CHECKOUT / "schemas" / "examples" / "valid" / "site").glob("*.yaml"))
TYPES = {"str": str, "int": int, "bool": bool, "dict": dict, "list": list, "raw": object}


def options(role: str) -> dict[str, Any]:
    found: dict[str, Any] = parse_yaml(argument_specs()[role], role).data["argument_specs"]["main"]["options"]
    return found


def every(found: dict[str, Any]) -> Iterator[tuple[str, dict[str, Any]]]:
    for name, option in found.items():
        yield name, option
        yield from every(option.get("options", {}))


@pytest.mark.parametrize("role", argument_specs())
def test_every_argument_of_a_role_has_a_type_and_is_described_in_sentences(role: str) -> None:
    for name, option in every(options(role)):
        assert option["type"] in TYPES, name
        assert option["description"].endswith("."), name
        assert option["type"] != "list" or "elements" in option, name


@pytest.mark.parametrize("role", argument_specs())
def test_the_arguments_of_a_role_begin_with_its_name(role: str) -> None:
    assert {name.partition("_")[0] for name in options(role)} == {role}


@pytest.mark.parametrize("role", argument_specs())
def test_every_public_variable_of_a_role_is_an_argument_and_has_a_default(role: str) -> None:
    defaults = CHECKOUT / "ansible" / "roles" / role / "defaults" / "main.yml"

    assert set(parse_yaml(defaults.read_text(), role).data) == set(options(role))


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: path.stem)
def test_what_an_example_becomes_is_what_the_roles_take(path: Path) -> None:
    known = {name: option for role in argument_specs() for name, option in options(role).items()}
    hosts = inventory(Site.of(parse_yaml(path.read_text(), path.name), path.parent))["_meta"]["hostvars"]

    for variables in hosts.values():
        for name, value in variables.items():
            if not name.startswith("ansible_"):
                assert list(_unfit(value, known[name], name)) == []


def _unfit(value: Any, option: dict[str, Any], path: str) -> Iterator[str]:
    if value is None:
        if option.get("required"):
            yield path
        return
    if not isinstance(value, TYPES[option["type"]]) or value not in option.get("choices", [value]):
        yield path
    for part in value if isinstance(value, list) else [value]:
        if isinstance(part, dict) and "options" in option:
            yield from (f"{path}.{name}" for name in part.keys() - option["options"].keys())
            for name, below in option["options"].items():
                yield from _unfit(part.get(name), below, f"{path}.{name}")
