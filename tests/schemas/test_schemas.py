"""What the schemas themselves must be, and that the code agrees with them in both directions."""

from __future__ import annotations

import inspect
import re
from collections.abc import Iterator, Set
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import parsl.addresses
import parsl.launchers
import parsl.providers
import pytest
from jsonschema import Draft202012Validator
from parsl.executors import HighThroughputExecutor, MPIExecutor

from endpoint.config.bundle import subschemas, values
from endpoint.config.deprecated import deprecations
from endpoint.config.faults import dotted
from endpoint.config.model import ManagerConfig, PamConfig, PathsConfig, UserConfig
from endpoint.config.parse import parse_yaml
from endpoint.config.schemas import SUFFIX, blocks, load_schema, schema_folder, validator, with_defaults

FOLDER = Path(str(schema_folder()))
# Made from `user`, whose options are looked at where they are written.
DERIVED = {"user-template"}
ALL = sorted(path.name.removesuffix(SUFFIX) for path in FOLDER.glob(f"*{SUFFIX}"))
NAMES = [name for name in ALL if name not in DERIVED]
UNITS = set(re.findall(r"^- `(.+?)`", (FOLDER / "README.md").read_text().partition("## Units")[2], re.MULTILINE))

# Parsl takes objects here, which YAML can't write, or the engine sets them itself.
NOT_IN_YAML = {"self", "storage_access", "manager_selector", "remote_monitoring_radio", "interchange_launch_cmd"}
OURS = {
    "type",
    "allowed_serializers",
    "max_retries_on_system_failure",
    "run_in_sandbox",
    "container_type",
    "container_uri",
    "container_cmd_options",
    "cancel_grace",
    "max_failed_blocks",
    "failed_blocks_pause",
    "job_status_kwargs",
    "worker_environment",
}
# Defaults that the official endpoint sets over Parsl's, and the heartbeats, which depend on where the blocks run.
OUR_DEFAULTS = {"label", "encrypted", "working_dir", "heartbeat_period", "heartbeat_threshold"}


@dataclass(frozen=True)
class Option:
    """An option where a schema defines it; `said` is all that holds for it, with what it refers to."""

    schema_name: str
    path: str
    schema: dict[str, Any]
    block: dict[str, Any]  # the options beside it

    @property
    def said(self) -> dict[str, Any]:
        return _resolved(self.schema_name, self.schema)

    def __str__(self) -> str:
        return f"{self.schema_name}{self.path}"

    def refused(self, value: Any) -> list[Any]:
        """What is wrong with a value of the option."""
        return list(validator(self.schema_name).evolve(schema=self.schema).iter_errors(value))


def _resolved(name: str, schema: dict[str, Any]) -> dict[str, Any]:
    """A schema with all that it refers to; what it says itself wins."""
    if "$ref" not in schema:
        return schema
    file, _, pointer = schema["$ref"].partition("#")
    name = file.removesuffix(SUFFIX) or name
    target: Any = load_schema(name)
    for part in pointer.split("/")[1:]:
        target = target[part]
    return {**_resolved(name, target), **{key: value for key, value in schema.items() if key != "$ref"}}


def _options(name: str, part: Any, path: str = "", known: Set[str] = frozenset()) -> Iterator[Option]:
    """Every option that a part of a schema defines. Those in `known` are only told more about, under a condition."""
    if isinstance(part, list):
        for item in part:
            yield from _options(name, item, path, known)
    if not isinstance(part, dict):
        return
    here = part.get("properties", {})
    for key, option in here.items():
        if option and key not in known:
            yield Option(name, f"{path}.{key}", option, here)
            yield from _options(name, option, f"{path}.{key}")
    for key, below in part.items():
        if key in ("then", "else", "allOf"):
            yield from _options(name, below, path, known | here.keys())
        elif key not in ("properties", "if", "default", "examples", "enum", "const"):
            yield from _options(name, below, f"{path}.{key}")


NUMBERS = {"integer", "number"}
OPTIONS = {name: list(_options(name, load_schema(name))) for name in NAMES}
DEPRECATED = [option for found in OPTIONS.values() for option in found if option.said.get("deprecated")]
# Files with nothing but definitions, or with names of the writer's own.
WITHOUT_OPTIONS = {"common", "user-environment"}


@pytest.mark.parametrize("name", ALL)
def test_a_schema_is_a_schema_and_names_itself_as_its_file(name: str) -> None:
    schema = load_schema(name)

    Draft202012Validator.check_schema(schema)
    assert schema["$id"] == f"{name}{SUFFIX}"
    assert schema["description"]


def test_options_are_found_in_every_schema() -> None:
    assert {name for name, found in OPTIONS.items() if found} == set(NAMES) - WITHOUT_OPTIONS


@pytest.mark.parametrize("name", NAMES)
def test_every_option_is_described_in_sentences(name: str) -> None:
    said = {str(option): option.said.get("description", "") for option in OPTIONS[name]}

    assert not {option: text for option, text in said.items() if not re.fullmatch(r"[A-Z`].*\.", text)}


@pytest.mark.parametrize("name", NAMES)
def test_every_option_has_an_example_and_each_is_valid_where_it_stands(name: str) -> None:
    for option in OPTIONS[name]:
        examples = option.said.get("examples")
        assert examples, option
        for example in examples:
            assert example is not None, option
            assert not option.refused(example), option


@pytest.mark.parametrize("name", sorted(set(NAMES) - {"site"}))  # which shows what most sites write
def test_an_example_of_an_option_says_more_than_its_default(name: str) -> None:
    for option in OPTIONS[name]:
        assert any(example != option.said.get("default") for example in option.said["examples"]), option


@pytest.mark.parametrize("name", NAMES)
def test_every_default_is_valid_where_it_stands(name: str) -> None:
    for option in OPTIONS[name]:
        assert "default" not in option.said or not option.refused(option.said["default"]), option


@pytest.mark.parametrize("name", NAMES)
def test_the_items_of_a_list_and_the_values_of_a_free_mapping_are_described(name: str) -> None:
    below = [schema.get(key) for schema in subschemas(load_schema(name)) for key in ("items", "additionalProperties")]

    assert not [schema for schema in below if schema and "description" not in _resolved(name, schema)]


def _units(name: str) -> Iterator[tuple[set[str], str | None]]:
    """The types and the unit of each option, item and value of a free mapping."""
    for value in (value for schema in subschemas(load_schema(name)) for value in values(schema) if value):
        said = _resolved(name, value)
        types = said.get("type", [])
        yield {types} if isinstance(types, str) else set(types), said.get("x-unit")


@pytest.mark.parametrize("name", NAMES)
def test_every_number_has_a_unit_that_the_readme_lists_and_nothing_else_has_one(name: str) -> None:
    for types, unit in _units(name):
        # What may be text as well can name its unit itself.
        assert unit or not types & NUMBERS or "string" in types
        assert not unit or types & NUMBERS
        assert unit in {None, *UNITS}


def test_every_unit_that_the_readme_lists_is_the_unit_of_something() -> None:
    assert {unit for name in NAMES for _, unit in _units(name) if unit} == UNITS


@pytest.mark.parametrize("option", DEPRECATED, ids=str)
def test_a_deprecated_option_has_no_default_and_names_an_option_of_its_block_or_says_why(option: Option) -> None:
    said = option.said
    assert "default" not in said
    assert bool(said.get("x-use")) != bool(said.get("x-why"))
    if said.get("x-use"):
        block = option.block
        for part in said["x-use"].split("."):
            found = _resolved(option.schema_name, block[part])
            assert not found.get("deprecated")
            block = found.get("properties", {})
    else:
        assert not said["x-why"].endswith(".")


def test_only_a_deprecated_option_says_what_to_use_instead() -> None:
    todays = [option for found in OPTIONS.values() for option in found if not option.said.get("deprecated")]

    assert not [option for option in todays if {"x-use", "x-why"} & option.said.keys()]


@pytest.mark.parametrize("name", ALL)
def test_conditions_of_a_schema_hold_no_references(name: str) -> None:
    def conditions(schema: Any) -> Iterator[Any]:
        if isinstance(schema, dict):
            yield from ([schema["if"]] if "if" in schema else [])
            for below in schema.values():
                yield from conditions(below)
        elif isinstance(schema, list):
            for below in schema:
                yield from conditions(below)

    assert not [condition for condition in conditions(load_schema(name)) if "$ref" in str(condition)]


def _of_today(name: str, options: dict[str, Any]) -> dict[str, Any]:
    """The options that are not deprecated."""
    return {key: option for key, option in options.items() if not _resolved(name, option).get("deprecated")}


ENDPOINT = _of_today("endpoint", load_schema("endpoint")["properties"])
USER = _of_today("user", load_schema("user")["properties"])


@pytest.mark.parametrize(
    ("model", "options"),
    [
        (ManagerConfig, ENDPOINT),
        (PamConfig, ENDPOINT["pam"]["properties"]),
        (UserConfig, USER),
        (PathsConfig, USER["paths"]["properties"]),
    ],
    ids=lambda value: getattr(value, "__name__", ""),
)
def test_a_model_has_the_options_of_its_schema_and_no_defaults(model: type, options: dict[str, Any]) -> None:
    assert {field.name for field in fields(model)} == set(options)
    assert not [name for name in options if hasattr(model, name)]


@pytest.mark.parametrize(
    ("name", "given", "options"),
    [("endpoint", {}, ENDPOINT), ("user", {"engine": {"type": "ThreadPoolEngine"}}, USER)],
    ids=["endpoint", "user"],
)
def test_every_top_level_option_that_is_not_required_has_a_default(
    name: str, given: dict[str, Any], options: dict[str, Any]
) -> None:
    assert set(with_defaults(given, name)) == set(options)


ENGINE = load_schema("engine")["$defs"]
EXECUTORS = [("GlobusComputeEngine", HighThroughputExecutor), ("GlobusMPIEngine", MPIExecutor)]
LAUNCHERS = sorted(name for name in dir(parsl.launchers) if name.endswith("Launcher"))


def test_the_schema_knows_the_providers_and_launchers_of_the_installed_parsl() -> None:
    def known(table: str) -> list[str]:
        return list(ENGINE[table]["then"]["properties"]["type"]["enum"])

    assert sorted(known("provider")) == sorted(parsl.providers.__all__)
    assert sorted(known("launcher")) == LAUNCHERS


def _agrees(name: str, callable_: Any, *, skipped: set[str], own_defaults: set[str]) -> None:
    block = ENGINE[name]
    options = _of_today("engine", block["properties"])
    parameters = {key: value for key, value in inspect.signature(callable_).parameters.items() if key not in skipped}
    assert set(options) - OURS == set(parameters)
    for key, parameter in parameters.items():
        option = options[key]
        if parameter.default is inspect.Parameter.empty:
            assert key in block["required"]
        elif key == "launcher":
            assert option["default"] == {"type": type(parameter.default).__name__}
        elif (
            key not in own_defaults
            and isinstance(parameter.default, (str, int, float, tuple))
            and parameter.default != ()
        ):
            expected = list(parameter.default) if isinstance(parameter.default, tuple) else parameter.default
            assert option["default"] == expected, key


@pytest.mark.parametrize("name", sorted(parsl.providers.__all__))
def test_a_provider_has_the_arguments_and_defaults_of_the_installed_parsl(name: str) -> None:
    _agrees(name, getattr(parsl.providers, name).__init__, skipped={"self"}, own_defaults=set())


@pytest.mark.parametrize("name", LAUNCHERS)
def test_a_launcher_has_the_arguments_and_defaults_of_the_installed_parsl(name: str) -> None:
    _agrees(name, getattr(parsl.launchers, name).__init__, skipped={"self"}, own_defaults=set())


@pytest.mark.parametrize("name", ENGINE["address"]["then"]["properties"]["type"]["enum"])
def test_an_address_has_the_arguments_and_defaults_of_the_installed_parsl(name: str) -> None:
    _agrees(name, getattr(parsl.addresses, name), skipped=set(), own_defaults=set())


@pytest.mark.parametrize(("name", "executor"), EXECUTORS)
def test_an_engine_has_the_arguments_and_defaults_of_its_executor(name: str, executor: Any) -> None:
    _agrees(name, executor.__init__, skipped=NOT_IN_YAML, own_defaults=OUR_DEFAULTS)


@pytest.mark.parametrize(("name", "executor"), EXECUTORS)
def test_a_deprecated_option_of_an_engine_is_none_that_its_executor_still_has(name: str, executor: Any) -> None:
    options = ENGINE[name]["properties"]

    older = options.keys() - _of_today("engine", options).keys()
    assert older
    assert not older & inspect.signature(executor.__init__).parameters.keys()


def _examples(name: str, pattern: str = "*") -> Iterator[Any]:
    for path in sorted((FOLDER / "examples" / "valid" / name).glob(f"{pattern}.yaml")):
        yield parse_yaml(path.read_text(), path.name).data or {}


def _uses(name: str) -> Iterator[tuple[str, str, Any]]:
    """What the valid examples use: (block, option, value), where block is like `engine.provider`."""
    for data in _examples(name):
        for path, block, _ in blocks(data, name):
            yield from ((dotted(path), key, value) for key, value in block.items())


@pytest.mark.parametrize(("name", "options"), [("endpoint", ENDPOINT), ("user", USER)], ids=["endpoint", "user"])
def test_every_top_level_option_is_used_in_a_valid_example(name: str, options: dict[str, Any]) -> None:
    assert {option for block, option, _ in _uses(name) if not block} >= set(options)


@pytest.mark.parametrize("kind", ["provider", "launcher", "address", "engine"])
def test_every_type_of_a_block_is_used_in_a_valid_example(kind: str) -> None:
    schema = load_schema("engine") if kind == "engine" else ENGINE[kind]["then"]
    used = {value for block, key, value in _uses("user") if block.rpartition(".")[2] == kind and key == "type"}

    assert used == set(schema["properties"]["type"]["enum"])


@pytest.mark.parametrize(("name", "parts"), [("endpoint", {"endpoint"}), ("user", {"user", "engine"})])
def test_every_deprecated_option_is_used_in_a_valid_example_called_so(name: str, parts: set[str]) -> None:
    expected = {option.path.rpartition(".")[2] for option in DEPRECATED if option.schema_name in parts}

    warnings = [fault for data in _examples(name, "deprecated*") for fault in deprecations(data, name)]

    assert {fault.path[-1] for fault in warnings} == expected
