"""`enable-on-boot` and `disable-on-boot`: the unit that Ansible's role would write, for people without it."""

from __future__ import annotations

import os
import pwd
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from endpoint.cli.common import (
    PROGRAM_NAMES,
    Settings,
    common_options,
    echo_json,
    existing_endpoint_dir,
    find_endpoint_dir,
    json_option,
    pass_settings,
)
from endpoint.errors import AlreadyRunning, ConfigError, LoginError, Stage
from endpoint.privileged.client_files import FILE_VARIABLE, SECRET_FILE

if TYPE_CHECKING:
    from endpoint.cli.boot_place import Place

# What the unit takes along from here: where the services are, and whom they are believed.
PROXIES = ("HTTPS_PROXY", "https_proxy", "NO_PROXY", "no_proxy")
VARIABLES = ("SSL_CERT_FILE", "SSL_CERT_DIR", "REQUESTS_CA_BUNDLE", *PROXIES, FILE_VARIABLE)
SDK_PREFIX = "GLOBUS_SDK_"
NAMED = "name_or_uuid"


@click.command("enable-on-boot")
@click.argument(NAMED, default="default")
@click.option("--now", is_flag=True, help="Start it now as well.")
@click.option("--print", "only_print", is_flag=True, help="Show the unit, and change nothing.")
@json_option
@common_options
@pass_settings
def enable_on_boot(settings: Settings, name_or_uuid: str, now: bool, only_print: bool) -> None:
    """Have systemd start the endpoint whenever the machine boots.

    Root writes a unit of the machine: for an endpoint of several users, or for one whose directory is another
    account's, which it then runs as. Everybody else gets a unit of their own service manager, which runs without a
    login too (linger).
    """
    from endpoint.cli.boot_place import LINGER_MARK, MARK, START_S, Place, require_systemd, write_unit
    from endpoint.units import unit_name

    endpoint_dir = existing_endpoint_dir(settings, name_or_uuid)
    place, unit = Place.here(), unit_name(endpoint_dir.name)
    text = _unit_text(endpoint_dir, place)
    if only_print:
        click.echo(f"{MARK}\n{text}", nl=False)
        return
    require_systemd()
    path = place.directory / unit
    _refuse_others(path)
    _require_login(endpoint_dir)
    if now:
        _refuse_running(endpoint_dir, place, unit)
    turned_on = place.user is not None and (place.linger() or _turned_on(path))
    write_unit(path, f"{LINGER_MARK if turned_on else MARK}\n{text}")
    place.systemctl("daemon-reload")
    place.systemctl("enable", "--quiet", unit)
    if now:
        place.systemctl("start", unit, patience_s=START_S)
    _tell_enabled(settings, place, path, started=now)


@click.command("disable-on-boot")
@click.argument(NAMED, default="default")
@click.option("--now", is_flag=True, help="Stop it now as well.")
@json_option
@common_options
@pass_settings
def disable_on_boot(settings: Settings, name_or_uuid: str, now: bool) -> None:
    """Take back `enable-on-boot`: the endpoint is not started when the machine boots, and its unit is removed."""
    from endpoint.cli.boot_place import ANSWER_S, Place, remove_unit, require_systemd
    from endpoint.units import unit_name

    require_systemd()
    name = _name(settings, name_or_uuid)
    place, unit = Place.here(), unit_name(name)
    path = place.directory / unit
    _refuse_missing(path, name, place)
    _refuse_others(path)
    if place.user is not None:
        place.reach()
    turned_on = _turned_on(path)
    place.systemctl("disable", "--quiet", unit)
    if now:
        place.systemctl("stop", unit, patience_s=ANSWER_S * 2)
    running = place.is_active(unit)
    remove_unit(path)
    place.systemctl("daemon-reload")
    ended = turned_on and not running and not _others_need(place) and place.unlinger()
    _tell_disabled(settings, place, path, running=running, unlingered=ended)


def _name(settings: Settings, name_or_uuid: str) -> str:
    """The endpoint's name; its directory may be gone."""
    found = find_endpoint_dir(settings, name_or_uuid)
    if found is None:
        raise ConfigError(f"There is no endpoint {name_or_uuid}", hint="Name it by its name", stage=Stage.CONFIGURE)
    return found.name


def _unit_text(endpoint_dir: Path, place: Place) -> str:
    from endpoint.units import CLIENT_DIRECTORY, EndpointUnit, endpoint_unit

    name = endpoint_dir.name
    many = _serves_many(endpoint_dir)
    client = f"{CLIENT_DIRECTORY}/{name}"
    return endpoint_unit(
        EndpointUnit(
            name=name,
            kind="multi-user" if many else "single-user",
            scope=place.scope,
            program=_program(),
            user=None if many else _owner(endpoint_dir, place),
            compute_dir=str(endpoint_dir.parent.absolute()),
            environment=_environment(),
            client_id_file=f"{client}.client_id" if place.user is None else None,
            client_secret_file=f"{client}.client_secret" if place.user is None else None,
            slice=_slice(name) if many else None,
        )
    )


def _serves_many(endpoint_dir: Path) -> bool:
    """Whether it is an endpoint of several users. Raises ConfigError where it could not be started so."""
    from endpoint.cli.privileged_start import belongs_to_monitor
    from endpoint.config.model import load_manager_config
    from endpoint.config.paths import CONFIG

    config = load_manager_config(endpoint_dir / CONFIG)
    if not config.identity_mapping_config_path:
        return False
    if os.geteuid() != 0:
        raise ConfigError(
            f"{endpoint_dir.name} is an endpoint of several users, which only root can start",
            hint="Let root run this command",
            code="NO_PRIVILEGES",
        )
    if not belongs_to_monitor(endpoint_dir):
        raise ConfigError(
            f"{endpoint_dir} belongs to root, and an endpoint of several users could not start there",
            hint=f"Give it to the service user: chown -R globus-compute {endpoint_dir}",
            code="NO_PRIVILEGES",
        )
    return True


def _owner(endpoint_dir: Path, place: Place) -> str:
    """Who runs an endpoint of one user. Raises ConfigError."""
    uid = endpoint_dir.stat().st_uid
    try:
        owner = pwd.getpwuid(uid).pw_name
    except KeyError:
        owner = None
    if owner is None or (place.user is not None and uid != os.geteuid()):
        raise ConfigError(
            f"{endpoint_dir} belongs to {owner or f'the user id {uid}, which has no account'}",
            hint="Let its owner or root run this command" if owner else f"Give it to somebody: chown -R {endpoint_dir}",
            stage=Stage.CONFIGURE,
            code="NOT_YOURS",
        )
    return owner


def _slice(name: str) -> str | None:
    """The endpoint's own slice, where its policy wants one for its users."""
    from endpoint.privileged.policy import load_policy
    from endpoint.privileged.scope import slice_of

    return slice_of(name) if load_policy(name).own_slices else None


def _program() -> str:
    """The program that runs now, by the path that it was called by: a link may lead to another version tomorrow."""
    called = Path(sys.argv[0]).absolute()
    for program in (called, Path(sys.executable).parent / PROGRAM_NAMES[0]):
        if program.name in PROGRAM_NAMES and program.is_file():
            return str(program)
    raise ConfigError(
        f"The program {PROGRAM_NAMES[0]} is not installed beside {sys.executable}",
        hint="Install the package into that environment",
        stage=Stage.CONFIGURE,
        code="NO_PROGRAM",
    )


def _environment() -> dict[str, str]:
    """What the unit takes along. A unit is readable for all: an address with a password stays here, and is told."""
    found = {name: value for name, value in os.environ.items() if name in VARIABLES or name.startswith(SDK_PREFIX)}
    for name in [name for name, value in found.items() if "@" in value or not value.isprintable()]:
        click.echo(f"{name} has a password or control characters, and is not written into the unit", err=True)
        del found[name]
    return dict(sorted(found.items()))


def _require_login(endpoint_dir: Path) -> None:
    """A unit has no terminal to log in at, and nothing of this shell's. Raises LoginError."""
    from endpoint.manager.login import TOKEN_FILE
    from endpoint.units import CLIENT_DIRECTORY

    places = [endpoint_dir / SECRET_FILE, endpoint_dir.parent / TOKEN_FILE]
    if os.geteuid() == 0:
        places.append(Path(CLIENT_DIRECTORY) / f"{endpoint_dir.name}.{SECRET_FILE}")
    if FILE_VARIABLE not in os.environ and not any(os.path.lexists(place) for place in places):
        raise LoginError(
            f"The endpoint {endpoint_dir.name} could not start by itself: there is no login that it would find",
            hint="Log in first with: globus-compute-endpoint login. For a client identity, write client_id and "
            f"client_secret into {endpoint_dir}, mode 0600",
        )


def _refuse_others(path: Path) -> None:
    from endpoint.cli.boot_place import written_by_us

    if written_by_us(path) is False:
        raise ConfigError(
            f"{path} was not written by enable-on-boot",
            hint="Change it with what wrote it (Ansible, a package), or remove it by hand first",
            stage=Stage.CONFIGURE,
            code="FOREIGN_UNIT",
        )


def _refuse_missing(path: Path, name: str, place: Place) -> None:
    from endpoint.cli.boot_place import written_by_us

    if written_by_us(path) is None:
        whose = "" if place.user is None else ". Units of the machine are root's: let root run this command for them"
        raise ConfigError(
            f"{name} is not started when the machine boots: there is no unit {path}{whose}",
            hint=f"Units that are there: {place.command} list-unit-files 'globus-compute-endpoint@*'",
            stage=Stage.CONFIGURE,
            code="NO_UNIT",
        )


def _refuse_running(endpoint_dir: Path, place: Place, unit: str) -> None:
    """A second instance would be refused, minutes of systemd's patience later."""
    from endpoint.config.paths import PID
    from endpoint.lease import read_lease

    found = read_lease(endpoint_dir / PID)
    if found.state == "running" and not place.is_active(unit):
        raise AlreadyRunning(
            f"The endpoint {endpoint_dir.name} runs already, as process {found.pid}",
            hint=f"Stop it first: globus-compute-endpoint stop {endpoint_dir.name}. Or leave out --now",
            stage=Stage.CONFIGURE,
        )


def _turned_on(path: Path) -> bool:
    """Whether it was enable-on-boot that turned linger on."""
    from endpoint.cli.boot_place import LINGER_MARK

    try:
        return path.read_text(encoding="utf-8", errors="replace").startswith(LINGER_MARK)
    except OSError:
        return False


def _others_need(place: Place) -> bool:
    """Whether another service of the user is started at boot."""
    return any(place.directory.glob("*.wants/*"))


def _tell_enabled(settings: Settings, place: Place, path: Path, *, started: bool) -> None:
    facts: dict[str, Any] = {"unit": path.name, "path": str(path), "scope": place.scope, "enabled": True}
    if settings.json:
        echo_json({**facts, "started": started, "linger": place.lingers if place.user else None})
        return
    click.echo(f"The endpoint starts when the machine boots: {path}")
    if place.user is not None:
        click.echo(f"Linger is on: services of {place.user} run without a login.")
    click.echo("It runs." if started else f"Start it now with: {place.command} start {path.name}")


def _tell_disabled(settings: Settings, place: Place, path: Path, *, running: bool, unlingered: bool) -> None:
    facts: dict[str, Any] = {"unit": path.name, "path": str(path), "scope": place.scope, "enabled": False}
    if settings.json:
        echo_json({**facts, "running": running, "linger": place.lingers if place.user else None})
        return
    click.echo(f"The endpoint is not started when the machine boots any more; {path} is removed.")
    if running:
        click.echo(f"It still runs. Stop it with: {place.command} stop {path.name}")
    if unlingered:
        click.echo("Linger, which enable-on-boot had turned on, is off again.")
    elif place.lingers:
        click.echo(f"Linger stays on, since others may need it. Turn it off with: loginctl disable-linger {place.user}")
    if Path(f"{path}.d").is_dir():
        click.echo(f"Your own changes are left in {path}.d")
