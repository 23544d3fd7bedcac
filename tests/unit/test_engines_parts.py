"""The tables of providers, launchers and addresses against the schema, and against what the installed Parsl has.

tests/schemas compares the parameters of each with the schema.
"""

from __future__ import annotations

import importlib.util
import inspect
import pkgutil
from pathlib import Path

import parsl.addresses
import parsl.launchers
import parsl.providers
import pytest
import tomllib
from parsl.launchers.base import Launcher
from parsl.providers.base import ExecutionProvider

from endpoint.config.schemas import load_schema
from endpoint.engines.parsl_parts import ADDRESSES, EXTRAS, LAUNCHERS, PROVIDERS, UNFIT, build_part, build_provider
from endpoint.errors import ConfigError

DEFINITIONS = load_schema("engine")["$defs"]
TABLES = {"provider": PROVIDERS, "launcher": LAUNCHERS, "address": ADDRESSES}
# Parsl's functions for addresses that are none of one machine.
LEFT_OUT = {
    "get_all_addresses": "what an engine does anyway where no address is given, without asking outside",
    "tcp_url": "makes a URL of an address",
}


BLOCKS = {
    "AWSProvider": {"image_id": "ami-1", "key_name": "key"},
    "GoogleCloudProvider": {
        "project_id": "p",
        "key_file": "/key.json",
        "region": "us-central1",
        "os_project": "debian-cloud",
        "os_family": "debian-12",
    },
    "AzureProvider": {"vm_reference": {}},
    "KubernetesProvider": {"image": "image"},
}


@pytest.mark.parametrize("kind", TABLES)
def test_a_table_has_what_the_schema_has_and_each_name_leads_to_the_class_of_that_name(kind):
    table = TABLES[kind]

    assert set(table) == set(DEFINITIONS[kind]["then"]["properties"]["type"]["enum"])
    for name, where in table.items():
        assert pkgutil.resolve_name(where).__name__ == name


def test_the_tables_have_all_that_the_installed_parsl_has():
    assert set(PROVIDERS) == set(parsl.providers.__all__)
    assert set(LAUNCHERS) == set(parsl.launchers.__all__)
    functions = {
        name
        for name, function in inspect.getmembers(parsl.addresses, inspect.isfunction)
        if function.__module__ == "parsl.addresses" and not name.startswith("_")
    }
    assert set(ADDRESSES) == functions - LEFT_OUT.keys()


def test_what_the_tables_name_are_launchers_and_providers_but_for_those_that_are_told_to_be_unfit():
    others = {name for name, at in PROVIDERS.items() if not issubclass(pkgutil.resolve_name(at), ExecutionProvider)}

    assert all(issubclass(pkgutil.resolve_name(where), Launcher) for where in LAUNCHERS.values())
    assert others == set(UNFIT)


@pytest.mark.parametrize("name", UNFIT)
def test_an_unfit_provider_is_refused_with_a_sentence_before_it_does_anything(name):
    with pytest.raises(ConfigError, match=f"The provider {name} of the installed Parsl doesn't work"):
        build_provider({"type": name, **BLOCKS[name]})


@pytest.mark.parametrize("name", ["os.system", "__class__", "parsl.providers.local.local:LocalProvider", 7, None])
def test_nothing_but_what_a_table_names_is_built(name):
    with pytest.raises(ConfigError, match="There is no launcher"):
        build_part("launcher", LAUNCHERS, {"type": name})


@pytest.mark.parametrize("name", sorted(EXTRAS.keys() - set(UNFIT)))
def test_a_provider_whose_library_is_missing_says_which_extra_brings_it(name, monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda module: None)

    with pytest.raises(ConfigError, match=f"{name} needs a library") as caught:
        build_provider({"type": name, **BLOCKS[name]})

    extra = EXTRAS[name][1]
    assert f'pip install "compute-endpoint[{extra}]"' in caught.value.failure.hint
    project = tomllib.loads((Path(__file__).parents[2] / "pyproject.toml").read_text())["project"]
    assert extra in project["optional-dependencies"]
