"""`site inventory` and `site new-secrets`, as somebody types them."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from endpoint.cli.main import run
from endpoint.config.parse import parse_yaml
from endpoint.errors import ExitStatus
from tests.support.sites import BEGIN, CLIENT, FIVE_MISTAKES, FIVE_SAID, MULTI_USER

SECRETS = f"    secrets: {{client: {{id: {CLIENT}, secret: {{vault: vault_cluster}}}}}}\n"


@pytest.fixture
def document(tmp_path: Path) -> Path:
    path = tmp_path / "site.yml"
    path.write_text(BEGIN + MULTI_USER + SECRETS)
    return path


def test_inventory_is_one_json_document(document: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["site", "inventory", str(document)]) == ExitStatus.OK

    found = json.loads(capsys.readouterr().out)
    assert found["endpoints"] == {"hosts": ["login1"]}
    (endpoint,) = found["_meta"]["hostvars"]["login1"]["endpoint_endpoints"]
    assert endpoint["client"] == {"id": CLIENT, "secret": {"vault": "vault_cluster"}}


@pytest.mark.parametrize("command", [["site", "inventory"], ["site", "new-secrets"], ["check-config"]])
def test_a_document_with_five_mistakes_is_refused_with_all_of_them(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], command: list[str]
) -> None:
    path = tmp_path / "site.yml"
    path.write_text(FIVE_MISTAKES)

    assert run([*command, str(path)]) == ExitStatus.BAD_CONFIG

    said = capsys.readouterr()
    assert said.out == ""
    lines = said.err.splitlines()
    assert len(lines) == len(FIVE_SAID), said.err
    for line, expected in zip(lines, FIVE_SAID, strict=True):
        assert line.startswith(f"{path}{expected}")


def test_a_document_that_is_not_there_is_wrong_usage(tmp_path: Path) -> None:
    assert run(["site", "inventory", str(tmp_path / "site.yml")]) == ExitStatus.USAGE


def test_new_secrets_are_fresh_and_long_for_each_variable(document: Path, capsys: pytest.CaptureFixture[str]) -> None:
    drawn = []
    for _ in range(2):
        assert run(["site", "new-secrets", str(document)]) == ExitStatus.OK
        drawn.append(parse_yaml(capsys.readouterr().out, "vault.yml").data)

    assert [set(values) for values in drawn] == [{"vault_cluster"}] * 2
    assert drawn[0] != drawn[1]
    assert all(len(value) >= 32 for values in drawn for value in values.values())
