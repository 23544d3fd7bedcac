"""`list` and `status`: which endpoints there are, and how they do."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any

import click

from endpoint.cli.common import (
    Settings,
    common_options,
    echo_json,
    endpoint_dirs,
    existing_endpoint_dir,
    json_option,
    pass_settings,
    plain,
    table,
)
from endpoint.config.endpoint_json import stored_endpoint_id
from endpoint.config.paths import STATUS
from endpoint.errors import ConfigError, EndpointError

USER_ENDPOINT_PREFIX = "uep"
TOLD = ("id", "user", "uid", "pid", "state", "since")  # what a manager says of a user endpoint
LARGEST_STATUS = 16 * 1024 * 1024  # bytes
LONGEST_REASON = 300
# What people know from the official program, by the state of the lease.
WORDS = {"running": "Running", "elsewhere": "Running", "stale": "Disconnected", "none": "Stopped"}


def describe(endpoint_dir: Path) -> dict[str, Any]:
    """One endpoint as plain values: `name`, `id`, `status`, `host`, `pid`, `directory`, and `problem` if it has one."""
    from endpoint.config.paths import PID
    from endpoint.lease import read_lease

    entry: dict[str, Any] = {"name": endpoint_dir.name, "id": None, "directory": str(endpoint_dir)}
    try:
        entry["id"] = stored_endpoint_id(endpoint_dir)
        lease = read_lease(endpoint_dir / PID)
    except ConfigError as error:
        return entry | {"status": "Unreadable", "host": None, "pid": None, "problem": error.failure.reason}
    never_ran = entry["id"] is None and lease.state == "none"
    entry["status"] = "Initialized" if never_ran else WORDS[lease.state]
    alive = lease.state in ("running", "elsewhere")
    return entry | {"host": lease.host if alive else None, "pid": lease.pid if alive else None}


@click.command("list")
@json_option
@common_options
@pass_settings
def list_endpoints(settings: Settings) -> None:
    """List the endpoints that are configured here."""
    found = [describe(path) for path in endpoint_dirs(settings.compute_dir)]
    if settings.json:
        echo_json(found)
        return
    if not found:
        click.echo(f"There are no endpoints in {settings.compute_dir}.")
        click.echo("Make one with: globus-compute-endpoint configure", err=True)
        return
    rows = [[entry["id"] or "-", entry["status"], entry["name"], entry["host"] or ""] for entry in found]
    click.echo(table(["Endpoint ID", "Status", "Endpoint Name", "Host"], rows))
    for entry in found:
        if problem := entry.get("problem"):
            click.echo(plain(f"{entry['name']}: {problem}"), err=True)


@click.command("status")
@click.argument("name_or_uuid", default="default")
@json_option
@common_options
@pass_settings
def status(settings: Settings, name_or_uuid: str) -> None:
    """Show how an endpoint does: its process, what the service says, and its user endpoints."""
    endpoint_dir = existing_endpoint_dir(settings, name_or_uuid)
    document = describe(endpoint_dir)
    document["service"] = _service_view(settings, endpoint_dir, document["id"])
    document["user_endpoints"] = _user_endpoints(settings, endpoint_dir, document)
    if settings.json:
        echo_json(document)
    else:
        click.echo(_as_text(document))


def _user_endpoints(settings: Settings, endpoint_dir: Path, manager: dict[str, Any]) -> list[dict[str, Any]]:
    """The user endpoints that have a directory here, as `describe`, and those that the manager says it has.

    The latter have `user`, `uid`, `state` (docs/privileges.md) and `since` too.
    """
    if manager["id"] is None:
        return []
    paths = sorted(settings.compute_dir.glob(f"{USER_ENDPOINT_PREFIX}.{manager['id']}.*"))
    found = {path.name: describe(path) for path in paths if path.is_dir()}
    for entry in found.values():
        if entry["status"] == "Initialized":  # it has no endpoint.json, and needs none
            entry["status"] = WORDS["none"]
        entry["condition"] = _condition(Path(entry["directory"])) if entry["pid"] else None
    for told in _told_by(endpoint_dir) if manager["pid"] else []:
        name = str(told["name"])
        there = {"status": WORDS["running"], "host": manager["host"], "directory": None, "condition": None, "pid": None}
        found[name] = {**there, **told, **found.get(name, {})}
    return [found[name] for name in sorted(found)]


def _told_by(endpoint_dir: Path) -> list[dict[str, Any]]:
    """What a manager that runs says of its user endpoints."""
    told = (_condition(endpoint_dir) or {}).get("user_endpoints")
    entries = [one for one in told if isinstance(one, dict) and one.get("name")] if isinstance(told, list) else []
    return [
        {"name": str(one["name"])} | {key: one[key] for key in TOLD if isinstance(one.get(key), (str, int, float))}
        for one in entries
    ]


def _condition(directory: Path) -> dict[str, Any] | None:
    """What an endpoint that runs says of itself; None where it says nothing. It may be somebody else's to write."""
    from endpoint.lease import read_small

    try:
        found = json.loads(read_small(directory / STATUS, LARGEST_STATUS))
    except (OSError, ValueError, RecursionError):
        return None
    return found if isinstance(found, dict) else None


def _in_words(condition: dict[str, Any] | None) -> str:
    """The states that are not as they should be, and how many tasks there are."""
    try:
        return _states(condition) if condition is not None else ""
    except (AttributeError, TypeError, ValueError, OverflowError):
        return "its status file says something else than it should"


def _states(condition: dict[str, Any]) -> str:
    said = []
    for part, good in (("broker", "connected"), ("engine", "running")):
        state = condition.get(part) or {}
        if state.get("state") != good:
            seconds = max(0, round(time.time() - float(state.get("since") or time.time())))
            reason = f": {_in_a_line(str(state['reason']))}" if state.get("reason") else ""
            said.append(f"{part} {state.get('state', 'unknown')} for {seconds} s{reason}")
    if condition.get("disk_full"):
        said.append("no space on the disk: tasks wait")
    tasks = ", ".join(f"{number} {state}" for state, number in (condition.get("tasks") or {}).items())
    return "; ".join([*said, f"tasks: {tasks}" if tasks else "no tasks"])


def _in_a_line(reason: str) -> str:
    """A reason may end with the words of a batch job; the end of those says most."""
    line = " ".join(reason.split())
    return line if len(line) <= LONGEST_REASON else f"{line[: LONGEST_REASON // 2]} ... {line[-LONGEST_REASON // 2 :]}"


def _service_view(settings: Settings, endpoint_dir: Path, endpoint_id: str | None) -> dict[str, Any]:
    """What the service knows: its own answer, or `{"unknown": why}`. Never asks anybody to log in."""
    if endpoint_id is None:
        return {"unknown": "It has not been registered yet"}
    import globus_sdk

    from endpoint.cli.remote import compute_service, login_of
    from endpoint.manager.login import auth_errors

    try:
        with auth_errors():
            app = login_of(settings, endpoint_dir)
            if isinstance(app, globus_sdk.UserApp) and app.login_required():
                return {"unknown": "Nobody is logged in here"}
            return compute_service(settings, endpoint_dir, app).status(endpoint_id)
    except EndpointError as error:
        return {"unknown": error.failure.reason}


def _as_text(document: dict[str, Any]) -> str:
    process = document["status"]
    if document["pid"]:
        process += f", process {document['pid']}" + (f" on {document['host']}" if document["host"] else "")
    service = document["service"]
    lines = [
        f"Endpoint:   {document['name']} ({document['id'] or 'no id yet'})",
        f"Directory:  {document['directory']}",
        f"Process:    {process}",
        f"Service:    {service.get('status') or 'unknown: ' + str(service.get('unknown', 'no answer'))}",
    ]
    if document.get("problem"):
        lines.append(f"Problem:    {document['problem']}")
    lines = [plain(line) for line in lines]
    users = document["user_endpoints"]
    if users:
        rows = [
            [
                entry["name"].rpartition(".")[2],
                str(entry.get("user") or ""),
                str(entry.get("state") or entry["status"]),
                str(entry["pid"] or ""),
                _in_words(entry["condition"]),
            ]
            for entry in users
        ]
        lines += ["", table(["User endpoint", "User", "Status", "Process", "Condition"], rows)]
    else:
        lines.append("User endpoints: none")
    return "\n".join(lines)
