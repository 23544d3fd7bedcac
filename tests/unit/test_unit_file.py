"""`_unit-file`: units for what builds systems from outside."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from endpoint.cli.common import Settings
from endpoint.cli.unit_file import unit_file
from endpoint.errors import ConfigError
from endpoint.units import EndpointUnit, HubUnit, broker_drop_in, endpoint_unit, hub_unit

ENDPOINT = EndpointUnit(name="lab", kind="multi-user", scope="system", program="/bin/x", limits={"tasks_max": 5})
HUB = HubUnit(program="/bin/x", user="hub", config="/etc/hub.yaml", directory="/var/lib/hub")


def written(folder: Path, kind: str, text: str) -> Result:
    path = folder / "values.json"
    path.write_text(text)
    return CliRunner().invoke(unit_file, [kind, str(path)], obj=Settings())


@pytest.mark.parametrize(
    ("kind", "values", "text"),
    [
        ("endpoint", asdict(ENDPOINT), endpoint_unit(ENDPOINT)),
        ("hub", asdict(HUB), hub_unit(HUB)),
        ("broker", {"memory_max": "1G"}, broker_drop_in({"memory_max": "1G"})),
    ],
)
def test_unit_is_the_one_of_the_template(tmp_path: Path, kind: str, values: dict[str, object], text: str) -> None:
    assert written(tmp_path, kind, json.dumps(values)).output == text


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("{", "is not JSON"),
        ("[]", "has no JSON object"),
        ('{"program": "/bin/x"}', "a unit needs kind, name, scope"),
        (json.dumps(asdict(ENDPOINT) | {"nmae": "x"}), "a unit has no nmae"),
    ],
)
def test_values_that_are_no_units_are_refused_in_words(tmp_path: Path, text: str, said: str) -> None:
    found = written(tmp_path, "endpoint", text)

    assert isinstance(found.exception, ConfigError)
    assert said in str(found.exception)
