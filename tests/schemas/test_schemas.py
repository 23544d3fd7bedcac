"""What the schemas themselves must be, and that the code agrees with them in both directions."""

from __future__ import annotations

import inspect
from collections.abc import Iterator
from dataclasses import fields
from pathlib import Path
from typing import Any

import parsl.addresses
import parsl.launchers
import parsl.providers
import pytest
from jsonschema import Draft202012Validator
from parsl.executors import HighThroughputExecutor, MPIExecutor

from endpoint.config.model import ManagerConfig, PamConfig, PathsConfig, UserConfig
from endpoint.config.schemas import SUFFIX, load_schema, schema_folder, validator, with_defaults

NAMES = sorted(path.name.removesuffix(SUFFIX) for path in Path(str(schema_folder())).glob(f"*{SUFFIX}"))
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
    "strategy",
    "job_status_kwargs",
}
# Defaults that the official endpoint sets over Parsl's, and the heartbeats, which depend on where the blocks run.
OUR_DEFAULTS = {"label", "encrypted", "working_dir", "heartbeat_period", "heartbeat_threshold"}


def _properties(schema: Any, path: str = "") -> Iterator[tuple[str, Any]]:
    if isinstance(schema, dict):
        for name, below in schema.get("properties", {}).items():
            yield f"{path}.{name}", below
        for key, below in schema.items():
            yield from _properties(below, f"{path}.{key}")
    elif isinstance(schema, list):
        for index, below in enumerate(schema):
            yield from _properties(below, f"{path}[{index}]")


@pytest.mark.parametrize("name", NAMES)
def test_a_schema_is_a_schema_and_names_itself_as_its_file(name: str) -> None:
    schema = load_schema(name)

    Draft202012Validator.check_schema(schema)
    assert schema["$id"] == f"{name}{SUFFIX}"
    assert schema["description"]


@pytest.mark.parametrize("name", NAMES)
def test_every_option_of_a_schema_is_described(name: str) -> None:
    for path, option in _properties(load_schema(name)):
        if ".if" not in path and path.rpartition(".")[2] not in ("type", "DATA_TYPE", "comment"):
            assert "description" in option or "$ref" in option, path


@pytest.mark.parametrize("name", NAMES)
def test_every_default_is_valid_where_it_stands(name: str) -> None:
    whole = validator(name)
    for path, option in _properties(load_schema(name)):
        if isinstance(option, dict) and "default" in option:
            errors = list(whole.evolve(schema=option).iter_errors(option["default"]))
            assert not errors, (path, errors)


@pytest.mark.parametrize("name", NAMES)
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


@pytest.mark.parametrize(
    ("model", "options"),
    [
        (ManagerConfig, load_schema("endpoint")["properties"]),
        (PamConfig, load_schema("endpoint")["properties"]["pam"]["properties"]),
        (UserConfig, load_schema("user")["properties"]),
        (PathsConfig, load_schema("user")["properties"]["paths"]["properties"]),
    ],
    ids=lambda value: getattr(value, "__name__", ""),
)
def test_a_model_has_the_options_of_its_schema_and_no_defaults(model: type, options: dict[str, Any]) -> None:
    assert {field.name for field in fields(model)} == set(options)
    assert not [name for name in options if hasattr(model, name)]


@pytest.mark.parametrize("name", ["endpoint", "user"])
def test_every_top_level_option_that_is_not_required_has_a_default(name: str) -> None:
    schema = load_schema(name)
    given = {"engine": {"type": "ThreadPoolEngine"}} if name == "user" else {}

    assert set(with_defaults(given, name)) == set(schema["properties"])


ENGINE = load_schema("engine")["$defs"]
LAUNCHERS = sorted(name for name in dir(parsl.launchers) if name.endswith("Launcher"))


def test_the_schema_knows_the_providers_and_launchers_of_the_installed_parsl() -> None:
    def known(table: str) -> list[str]:
        return list(ENGINE[table]["then"]["properties"]["type"]["enum"])

    assert sorted(known("provider")) == sorted(parsl.providers.__all__)
    assert sorted(known("launcher")) == LAUNCHERS


def _agrees(name: str, callable_: Any, *, skipped: set[str], own_defaults: set[str]) -> None:
    block = ENGINE[name]
    parameters = {key: value for key, value in inspect.signature(callable_).parameters.items() if key not in skipped}
    assert set(block["properties"]) - OURS == set(parameters)
    for key, parameter in parameters.items():
        option = block["properties"][key]
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


@pytest.mark.parametrize(
    ("name", "executor"), [("GlobusComputeEngine", HighThroughputExecutor), ("GlobusMPIEngine", MPIExecutor)]
)
def test_an_engine_has_the_arguments_and_defaults_of_its_executor(name: str, executor: Any) -> None:
    _agrees(name, executor.__init__, skipped=NOT_IN_YAML, own_defaults=OUR_DEFAULTS)
