"""The site document's schema: which names it takes, that secrets are references only, and its examples."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from endpoint.cli.common import is_uuid
from endpoint.config.check import problems
from endpoint.config.parse import Document, parse_yaml
from endpoint.config.paths import name_problem
from endpoint.config.schemas import blocks, load_schema, schema_folder, with_defaults

EXAMPLES = Path(str(schema_folder())) / "examples" / "valid"
NAME = re.compile(load_schema("site")["properties"]["endpoints"]["propertyNames"]["pattern"])
HOSTS = {"login1": {}}
INSTALL = {"method": "existing", "environment": "/opt/compute"}
CLIENT = "11111111-1111-4111-8111-111111111111"


def site(**endpoint: Any) -> dict[str, Any]:
    return {"hosts": HOSTS, "install": INSTALL, "endpoints": {"lab": {"hosts": ["login1"], **endpoint}}}


def told(data: Any) -> list[str]:
    return [f"{problem.path}: {problem.message}" for problem in problems(Document(data, "site.yaml"), "site")]


def example(path: Path) -> Document:
    return parse_yaml(path.read_text(), path.name)


@pytest.mark.parametrize(
    "name",
    [
        *("lab", "Lab-2_b.c", "ünïcode", "a" * 128, "x@y", "-", "a:b", "$HOME"),
        *("", ".hidden", "a b", "a/b", "a\\b", "a'b", 'a"b', "a\tb", "a\n", "\na", "a\u00a0b", "a\u200bb", "a\x7fb"),
        *("a" * 129, "a\u2028b", "\ufeffa", "a\ue000", "a\u202eb", "\x00", "a\u3000b"),
    ],
)
def test_an_endpoint_has_the_names_that_the_program_takes(name: str) -> None:
    assert bool(NAME.search(name)) == (name_problem(name) is None)


@given(st.text(st.characters(codec="latin-1"), max_size=140))
def test_no_name_of_latin_letters_is_judged_otherwise_than_by_the_program(name: str) -> None:
    assert bool(NAME.search(name)) == (name_problem(name) is None and not is_uuid(name))


def test_a_name_that_reads_as_an_id_is_refused() -> None:
    assert not NAME.search("11111111-1111-4111-8111-111111111111")
    assert NAME.search("11111111-1111-4111-8111-111111111111-copy")


@pytest.mark.parametrize(
    "inline",
    [
        *("swordfish", 1234, ["swordfish"], {}, {"value": "swordfish"}, {"vault": "sword fish"}, {"vault": None}),
        *({"file": "swordfish"}, {"credential": "-----BEGIN KEY-----\nswordfish"}, {"vault": "a", "file": "/b"}),
    ],
)
def test_a_secret_is_a_reference_or_refused(inline: Any) -> None:
    found = told(site(kind="templated", run_as="alice", secrets={"client": {"id": CLIENT, "secret": inline}}))

    assert len(found) == 1
    assert found[0].startswith("endpoints.lab.secrets.client.secret")
    assert "swordfish" not in found[0]


@pytest.mark.parametrize("where", [{"vault": "lab_client"}, {"file": "/etc/client"}, {"credential": "lab-client"}])
def test_each_kind_of_reference_is_taken(where: dict[str, str]) -> None:
    assert told(site(kind="templated", run_as="alice", secrets={"client": {"id": CLIENT, "secret": where}})) == []


def test_defaults_reach_every_endpoint_and_fit_its_kind() -> None:
    mapping = {"file": "map.json"}
    filled = with_defaults(site(kind="multi-user", identity_mapping=mapping), "site")["endpoints"]["lab"]
    plain = with_defaults(site(kind="templated", run_as="alice"), "site")["endpoints"]["lab"]

    assert filled["policy"]["max_user_endpoints"] > 0
    assert filled["directory"] == "/var/lib/globus-compute-endpoint"
    assert plain["directory"] is None
    assert filled["run_as"] != "root"
    assert filled["config"]["heartbeat_period"] > 0
    assert filled["unit"]["environment"] == {}
    assert filled["identity_mapping"] == {"expect": {}, "shared_accounts": [], **mapping}
    assert set(filled) - set(plain) == {"identity_mapping", "pam", "policy", "limits_per_user"}


def test_an_endpoint_that_is_to_go_needs_no_more_than_its_hosts() -> None:
    assert told(site(state="absent")) == []
    assert told(site(state="absent", kind="templated", run_as="alice")) == []
    assert told(site(state="present")) == ["endpoints.lab: the option 'kind' is missing"]


def _options(schema: Any, path: str = "") -> Iterator[tuple[str, dict[str, Any]]]:
    if isinstance(schema, dict):
        for name, below in schema.get("properties", {}).items():
            yield f"{path}.{name}", below
        for key, below in schema.items():
            if key not in ("if", "default", "examples"):
                yield from _options(below, f"{path}.{key}")
    elif isinstance(schema, list):
        for index, below in enumerate(schema):
            yield from _options(below, f"{path}[{index}]")


@pytest.mark.parametrize("name", ["site", "hub"])
def test_every_option_stands_in_an_example(name: str) -> None:
    used = {
        id(schema)
        for path in (EXAMPLES / name).glob("*.yaml")
        for _, block, options in blocks(example(path).data, name)
        for key in block
        for schema in options.get(key, ())
    }

    unused = [
        path
        for path, option in _options(load_schema(name))
        # What several blocks have in common counts wherever it is used.
        if not used & ({id(part) for part in _joined(name, option)} if set(option) == {"$ref"} else {id(option)})
    ]
    assert unused == ([".then.directory"] if name == "hub" else [])  # which says that there must be none


@pytest.mark.parametrize("name", ["site", "hub"])
def test_numbers_have_units_and_every_option_an_example_that_is_valid(name: str) -> None:
    for path, option in _options(load_schema(name)):
        joined = _joined(name, option)
        types = {kind for part in joined for kind in _types(part)}
        if types & {"integer", "number"}:
            assert any("x-unit" in part for part in joined), path
        if not path.startswith(".then"):
            assert any("examples" in part for part in joined), path


def _joined(name: str, option: dict[str, Any]) -> list[dict[str, Any]]:
    """An option, and what it refers to in its own schema."""
    joined = [option]
    while joined[-1].get("$ref", "").startswith("#"):
        joined.append(load_schema(name)["$defs"][joined[-1]["$ref"].rpartition("/")[2]])
    return joined


def _types(schema: dict[str, Any]) -> list[str]:
    kind = schema.get("type", [])
    return [kind] if isinstance(kind, str) else list(kind)


def _files(data: Any) -> Iterator[str]:
    if isinstance(data, dict):
        for key, value in data.items():
            if key in ("file", "password_file") and isinstance(value, str) and not value.startswith("/"):
                yield value
            yield from _files(value)


def test_the_files_that_examples_name_are_beside_them_and_right() -> None:
    kinds = {"user_config.yaml": "user", "identity_mapping.json": "identity-mapping"}
    named = {
        path.parent / file
        for name in ("site", "hub")
        for path in (EXAMPLES / name).glob("*.yaml")
        for file in _files(example(path).data)
    }

    assert {path.name for path in named} >= set(kinds)
    assert all(path.is_file() for path in named)
    for path in named:
        if kind := kinds.get(path.name):
            assert problems(example(path), kind) == []
