"""`_unit-file`: a unit of systemd from values in JSON, for what builds systems from outside: the NixOS modules."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from endpoint.cli.common import Settings, common_options, pass_settings
from endpoint.errors import ConfigError, Stage

if TYPE_CHECKING:
    from endpoint.units import EndpointUnit, HubUnit


@click.command("_unit-file", hidden=True)
@click.argument("kind", type=click.Choice(["endpoint", "hub", "broker"]))
@click.argument("values", type=click.Path(path_type=Path, exists=True, dir_okay=False))
@common_options
@pass_settings
def unit_file(settings: Settings, kind: str, values: Path) -> None:
    """Print the unit for VALUES, a JSON file with what `endpoint/units.py` names; for the broker, its limits."""
    from endpoint.units import EndpointUnit, HubUnit, broker_drop_in, endpoint_unit, hub_unit

    given = _values(values)
    if kind == "broker":
        text = broker_drop_in(given)
    elif kind == "hub":
        text = hub_unit(_made(HubUnit, given))
    else:
        text = endpoint_unit(_made(EndpointUnit, given))
    click.echo(text, nl=False)


def _values(path: Path) -> dict[str, Any]:
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise _refused(f"{path} is not JSON: {error}") from error
    if not isinstance(found, dict):
        raise _refused(f"{path} has no JSON object")
    return found


def _made(unit: type[EndpointUnit] | type[HubUnit], given: dict[str, Any]) -> Any:
    nothing, fields = dataclasses.MISSING, dataclasses.fields(unit)
    required = {one.name for one in fields if one.default is nothing and one.default_factory is nothing}
    if unknown := given.keys() - {one.name for one in fields}:
        raise _refused(f"a unit has no {', '.join(sorted(unknown))}")
    if missing := required - given.keys():
        raise _refused(f"a unit needs {', '.join(sorted(missing))}")
    return unit(**given)


def _refused(what: str) -> ConfigError:
    return ConfigError(what, hint="Give what endpoint/units.py names", stage=Stage.CONFIGURE, code="BAD_UNIT_VALUE")
