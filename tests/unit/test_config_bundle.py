"""Schemas in one document each: valid for the same data as those that they are made from, and good in an editor."""

from __future__ import annotations

import copy
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from jsonschema import Draft202012Validator
from referencing import Registry

from endpoint.config.bundle import PARTS, bundled, editor_file, flow, for_editors, merged, names, subschemas
from endpoint.config.load import load_yaml
from endpoint.config.schemas import load_schema, schema_folder, validator
from endpoint.config.template_schema import template_schema
from endpoint.errors import ConfigError

EXAMPLES = Path(str(schema_folder())) / "examples"
EXPRESSION = "{{ option }}"


def examples(kind: str, schema: str = "*") -> list[Any]:
    """The data of all examples of a kind that are YAML, with the names of their schemas."""
    found = []
    for path in sorted((EXAMPLES / kind).glob(f"{schema}/*.yaml")):
        try:
            found.append(pytest.param(path.parent.name, load_yaml(path.read_text(), path.name).data, id=path.stem))
        except ConfigError:  # refused before any schema is asked
            continue
    assert found
    return found


def faults(schema: Any, data: Any) -> list[tuple[Any, str]]:
    """What a validator that can fetch nothing finds, as (path, message)."""
    errors = Draft202012Validator(schema, registry=Registry()).iter_errors(data)
    return sorted((list(map(str, error.absolute_path)), error.message) for error in errors)


@pytest.mark.parametrize("name", names())
def test_a_bundled_schema_refers_to_nothing_outside_itself(name: str) -> None:
    document = bundled(name)

    Draft202012Validator.check_schema(document)
    assert all(part["$ref"].startswith("#") for part in subschemas(document) if "$ref" in part)
    assert [part["$id"] for part in subschemas(document) if "$id" in part] == [f"{name}.schema.json"]


@pytest.mark.parametrize(("name", "data"), examples("valid") + examples("invalid"))
def test_a_bundled_schema_finds_in_every_example_what_the_schema_itself_finds(name: str, data: Any) -> None:
    errors = validator(name).iter_errors(data)
    expected = sorted((list(map(str, error.absolute_path)), error.message) for error in errors)

    assert faults(bundled(name), data) == expected
    assert faults(for_editors(bundled(name)), data) == expected


@pytest.mark.parametrize("name", names())
def test_a_bundled_schema_is_the_callers_own(name: str) -> None:
    before = copy.deepcopy(load_schema(name))

    for part in list(subschemas(for_editors(bundled(name)))):
        part.clear()

    assert load_schema(name) == before


@pytest.mark.parametrize("name", [name for name in names() if name not in PARTS])
def test_the_schema_for_editors_describes_every_option_with_its_default(name: str) -> None:
    document = json.loads(editor_file(name).read_text())

    for part in subschemas(document):
        for option in (merged(document, one) for one in part.get("properties", {}).values()):
            if "description" in option and not option.get("deprecated"):
                assert option["markdownDescription"].startswith(option["description"])
                default = option.get("default")
                assert default is None or f"Default: `{flow(default)}`." in option["markdownDescription"]
            assert ("deprecationMessage" in option) is bool(option.get("deprecated"))


def test_an_editor_is_told_the_unit_and_what_replaces_an_older_option() -> None:
    options = {
        "wait": {"description": "How long.", "type": "number", "x-unit": "seconds", "default": 1.5},
        "delay": {"description": "As before.", "deprecated": True, "x-use": "times.wait"},
        "speed": {"description": "As before.", "deprecated": True, "x-why": "it is always the highest"},
        "id": {"type": "string", "pattern": "x", "x-messages": {"pattern": "must be an id"}},
    }
    document = for_editors({"properties": options})

    shown = document["properties"]
    assert shown["wait"]["markdownDescription"] == "How long.\n\nUnit: seconds. Default: `1.5`."
    assert shown["delay"]["deprecationMessage"] == "Deprecated; write times.wait instead"
    assert shown["speed"]["deprecationMessage"] == "Deprecated: it is always the highest"
    assert shown["id"]["patternErrorMessage"] == "must be an id"


@pytest.mark.parametrize(
    "value",
    [
        *("yes", "null", "", "12", "1.5", "a: b", "# x", "- a", "00:10:00", "é", "two\nlines", "{{ x }}", "*", "a b"),
        *(1, 1.5, True, [1, "a", ["off"]], {"a": {"b": None}}, "amqp://h:1/v", "127.0.0.1", "/x"),
    ],
)
def test_a_value_on_one_line_of_yaml_is_read_back_as_it_was(value: Any) -> None:
    text = flow({"key": value})

    assert "\n" not in text
    assert load_yaml(text, "x").data == {"key": value}


TEMPLATE = template_schema()


def replaced(data: Any) -> Iterator[Any]:
    """`data` with an expression in the place of one value, for each value in it."""
    pairs = data.items() if isinstance(data, dict) else enumerate(data) if isinstance(data, list) else ()
    for key, value in pairs:
        for instead in [EXPRESSION, *replaced(value)]:
            changed = copy.deepcopy(data)
            changed[key] = instead
            yield changed


@pytest.mark.parametrize(("_", "data"), examples("valid", "user"))
def test_in_a_data_template_an_expression_can_stand_for_any_value(_: str, data: Any) -> None:
    changed = list(replaced(data))

    assert len(changed) >= 3
    assert [one for one in changed if faults(TEMPLATE, one)] == []


@pytest.mark.parametrize(("_", "data"), examples("valid", "user") + examples("invalid", "user"))
def test_a_data_template_without_expressions_is_judged_as_what_it_renders_to(_: str, data: Any) -> None:
    assert faults(TEMPLATE, data) == faults(bundled("user"), data)


@pytest.mark.parametrize("word", ["many", "", "{ nodes }", "{", "nodes }}", "$nodes"])
def test_in_a_data_template_other_text_is_no_number(word: str) -> None:
    data = {"engine": {"type": "ThreadPoolEngine", "max_workers": word}}

    assert faults(TEMPLATE, data)


@pytest.mark.parametrize("text", ["{{ n }}", "{% if n %}3{% endif %}", "{{- n -}}", "1{# more #}"])
def test_in_a_data_template_anything_of_jinja_is_an_expression(text: str) -> None:
    data = {"engine": {"type": "ThreadPoolEngine", "max_workers": text}}

    assert faults(TEMPLATE, data) == []


def test_in_a_data_template_a_key_is_never_an_expression() -> None:
    data = {"engine": {"type": "ThreadPoolEngine", EXPRESSION: 4}}

    assert "additional properties" in faults(TEMPLATE, data)[0][1].lower()


def test_in_a_data_template_the_rules_of_a_kind_hold_beside_expressions() -> None:
    data = {"engine": {"type": "ThreadPoolEngine", "max_workers": EXPRESSION, "encrypted": EXPRESSION}}

    assert [path for path, _ in faults(TEMPLATE, data)] == [["engine"]]
    data["engine"]["type"] = EXPRESSION
    assert faults(TEMPLATE, data) == []


def test_what_people_read_about_a_value_stands_before_the_choice_of_an_expression() -> None:
    choices = [part for part in subschemas(TEMPLATE) if "else" in part and "pattern" in part["if"]]

    assert len(choices) > 100
    for choice in choices:
        assert not {"title", "description", "default", "examples", "deprecated", "x-unit"} & choice["else"].keys()
