"""What an endpoint of several users needs beside all that: root, the monitor, its policy, PAM, the identity mapping."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil

from endpoint.doctor.findings import Finding, failed, failure, not_tried, ok, warning
from endpoint.doctor.situation import Situation
from endpoint.errors import EndpointError, ExitStatus
from endpoint.lease import LeaseState
from endpoint.manager.mapping import read_mapping
from endpoint.manager.mapping_collisions import possible_collisions
from endpoint.privileged.accounts import find_account
from endpoint.privileged.monitor import PAM_FOLDERS
from endpoint.privileged.policy import DIRECTORY, Bounds, Policy, load_policy
from endpoint.privileged.service import check_directory

UNITS = (Path("/etc/systemd/system"), Path("/usr/lib/systemd/system"), Path("/lib/systemd/system"))
SYSTEMD = Path("/run/systemd/system")
UNIT = "globus-compute-endpoint"
MONITOR = "gce-monitor"  # as the process calls itself
SYSTEMCTL_TIMEOUT_S = 5.0
MOST_COLLISIONS = 20


def check(situation: Situation) -> Iterator[Finding]:
    situation.needed_config()
    if not situation.multi_user:
        yield ok("Only its owner uses it: nobody is mapped to a local account")
        return
    if os.geteuid() != 0:
        yield not_tried(
            "This is not root, so the monitor, the accounts of users and PAM sessions can't be tried",
            f"Run as root: globus-compute-endpoint doctor {situation.name}",
        )
    yield from _unit(situation.name)
    yield _monitor(situation.lease)
    yield from _policy(situation)
    yield from _mapping(situation)


def _policy(situation: Situation) -> Iterator[Finding]:
    try:
        policy = load_policy(situation.name, situation.wishes.policy)
        bounds = Bounds.of(policy)
    except EndpointError as error:
        yield failure(error)
        return
    source = _source(situation)
    yield ok(
        f"The policy comes from {source}: user ids from {bounds.minimum_uid}, at most {policy.max_user_endpoints} user "
        f"endpoints, {policy.max_user_endpoints_per_user} for each user",
        source=source,
        minimum_uid=bounds.minimum_uid,
        service_user=policy.service_user,
    )
    yield _manager_user(situation, policy)
    yield from _pam(policy)


def _manager_user(situation: Situation, policy: Policy) -> Finding:
    account = find_account(policy.service_user)
    if account is None or account.uid == 0:
        return failed(
            f"The manager should run as {policy.service_user}, which is root, or no user of this machine",
            f"Make it with: useradd --system --shell /usr/sbin/nologin {policy.service_user}; or set service_user "
            "in the policy",
            code="NO_SERVICE_USER",
            status=ExitStatus.BAD_CONFIG,
        )
    try:
        check_directory(situation.folder, account)
    except EndpointError as error:
        return failure(error)
    return ok(f"The manager runs as {account.name} (uid {account.uid}), who owns the directory", uid=account.uid)


def _monitor(lease: LeaseState | None) -> Finding:
    """Whether the process that runs the endpoint has the monitor above it."""
    if lease is None or lease.state != "running" or lease.pid is None:
        return not_tried("The monitor: the endpoint does not run on this machine now")
    try:
        above = psutil.Process(lease.pid).parent()
        name = above.name() if above else ""
    except psutil.Error as error:
        return not_tried(f"The monitor: process {lease.pid} can't be looked at ({error})")
    if above is None or name != MONITOR:
        return failed(
            f"Process {lease.pid} has no monitor above it, so it can start nothing for anybody",
            "Let root start the endpoint, and nobody else",
            code="NO_MONITOR",
            manager=lease.pid,
        )
    return ok(f"Its monitor is process {above.pid}", monitor=above.pid, manager=lease.pid)


def _source(situation: Situation) -> str:
    if situation.wishes.policy:
        return str(situation.wishes.policy)
    for path in (DIRECTORY / f"{situation.name}.policy.json", DIRECTORY / "policy.json"):
        if path.exists():
            return str(path)
    return "nowhere, so it is the default"


def _pam(policy: Policy) -> Iterator[Finding]:
    if not policy.pam.enable:
        yield ok("Users' sessions don't go through PAM, as the policy has it", enabled=False)
        return
    name = policy.pam.service_name
    found = next((folder / name for folder in PAM_FOLDERS if (folder / name).exists()), None)
    if found is None:
        yield failed(
            f"PAM has no service {name}, and nobody gets a user endpoint without",
            f"Write {PAM_FOLDERS[0] / name} (docs/privileges.md has one), or set pam.service_name in the policy",
            code="NO_PAM_SERVICE",
            status=ExitStatus.BAD_CONFIG,
            service=name,
        )
    else:
        yield ok(f"PAM has the service {name} ({found})", service=name, file=str(found))


def _mapping(situation: Situation) -> Iterator[Finding]:
    path = situation.needed_config().identity_mapping_config_path
    assert path is not None
    owner = situation.folder.stat().st_uid
    try:
        mapping = read_mapping(path, owner)
    except EndpointError as error:
        yield failure(error)
        return
    for text in mapping.warnings:
        yield warning(
            text, f"Look at it with: globus-compute-endpoint idmap explain -e {situation.name}", code="MAPPING"
        )
    collisions = possible_collisions(mapping.documents).collisions
    if collisions:
        yield warning(
            f"Two people can reach one account: {collisions[0]}",
            f"See all of them with: globus-compute-endpoint idmap collisions -e {situation.name}",
            code="COLLISIONS",
            collisions=[str(each) for each in collisions[:MOST_COLLISIONS]],
        )
    yield ok(
        f"The identity mapping has {mapping}; try a person with: globus-compute-endpoint idmap explain -e "
        f"{situation.name} IDENTITY",
        file=str(path),
    )


def _unit(name: str) -> Iterator[Finding]:
    """The service manager's unit, where there is a service manager."""
    if not SYSTEMD.is_dir():
        yield not_tried("The service's unit: systemd does not run here")
        return
    unit = f"{UNIT}@{name}.service"
    if not any((folder / file).exists() for folder in UNITS for file in (f"{UNIT}@.service", unit)):
        yield warning(
            "systemd has no unit for it, so it does not come back after a boot",
            "Install one: docs/multi-user.md",
            code="NO_UNIT",
        )
        return
    answer = _systemctl(unit)
    if answer.get("ActiveState") == "failed":
        yield failed(
            f"The unit {unit} has failed ({answer.get('Result')})",
            f"Look at: journalctl -u {unit}",
            code="UNIT",
            **answer,
        )
    else:
        yield ok(
            f"The unit {unit} is {answer.get('ActiveState', 'there')}, {answer.get('UnitFileState', '')}", **answer
        )


def _systemctl(unit: str) -> dict[str, Any]:
    wanted = ["-p", "ActiveState", "-p", "UnitFileState", "-p", "Result"]
    try:
        done = subprocess.run(
            ["systemctl", "show", unit, *wanted],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            timeout=SYSTEMCTL_TIMEOUT_S,
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired):
        return {}
    lines = done.stdout.decode(errors="replace").splitlines()
    return dict(line.split("=", 1) for line in lines if "=" in line)
