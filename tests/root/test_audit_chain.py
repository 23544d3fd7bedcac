"""The audit log of a multi-user endpoint: who asked for what through the official SDK, and as whom it ran."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psutil
import pytest

from tests.support.accounts import Accounts, TestUser
from tests.support.hubs import RunningHub
from tests.support.installed import Installed
from tests.support.multi_user import MultiUserEndpoint, SdkUser

PEOPLE = ("alice", "bob", "carol")
PAM = "account required pam_permit.so\nsession required pam_permit.so\n"
DISK = "128k"
OF_A_TASK = ["RECEIVED", "EXEC_START", "RUNNING", "EXEC_END"]


class Lab:
    """An endpoint whose audit log is on a disk of its own, and its users."""

    def __init__(
        self, endpoint: MultiUserEndpoint, log: Path, accounts: dict[str, TestUser], sdk: dict[str, SdkUser]
    ) -> None:
        self.endpoint = endpoint
        self.log = log
        self.accounts = accounts
        self.sdk = sdk

    def records(self) -> list[dict[str, Any]]:
        return [json.loads(line) for line in self.log.read_text().splitlines()]

    def of(self, who: str) -> list[dict[str, Any]]:
        """The records about one of them, in the order of the log."""
        return [record for record in self.records() if record.get("user") == self.accounts[who].name]

    def verified(self) -> subprocess.CompletedProcess[str]:
        return subprocess.run([self.endpoint.program, "audit", "verify", self.log], capture_output=True, text=True)

    @contextmanager
    def full_disk(self) -> Iterator[None]:
        """No room for another line."""
        ballast = self.log.parent / "ballast"
        with ballast.open("wb", buffering=0) as stream:
            for size in (4096, 1):  # the last page of the log may have room
                try:
                    while True:
                        stream.write(b"x" * size)
                except OSError:
                    continue
        room = -self.log.stat().st_size % 4096
        with self.log.open("ab") as stream:  # as a disk without a byte left
            stream.write(b"\n" * room)
        try:
            yield
        finally:
            ballast.unlink()
            with self.log.open("r+b") as stream:
                stream.truncate(self.log.stat().st_size - room)


@pytest.fixture(scope="module")
def accounts(machine: Accounts) -> dict[str, TestUser]:
    return {who: machine.user() for who in PEOPLE}


@pytest.fixture(scope="module")
def sdk(hub: RunningHub, peer_sdk_python: Path) -> dict[str, SdkUser]:
    return {who: SdkUser(peer_sdk_python, hub.env, hub.client(f"audited-{who}")) for who in (*PEOPLE, "stranger")}


@contextmanager
def lab(
    hub: RunningHub,
    machine: Accounts,
    program: Installed,
    accounts: dict[str, TestUser],
    sdk: dict[str, SdkUser],
    **policy: Any,
) -> Iterator[Lab]:
    with tempfile.TemporaryDirectory(prefix="gct-audit-") as name:
        folder = Path(name)
        folder.chmod(0o755)
        disk = folder / "audit"
        disk.mkdir(mode=0o700)
        subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={DISK},mode=0700", "gct-audit", disk], check=True)
        try:
            endpoint = MultiUserEndpoint(
                folder / "site",
                programs=program.root / "bin",
                service_user=machine.user(system=True, shell="/usr/sbin/nologin").name,
                hub_env=hub.env,
                owner=hub.client(f"owner-{folder.name}"),
                users={sdk[who].client_id: accounts[who].name for who in PEOPLE},
                policy={
                    "pam": {"enable": True, "service_name": machine.pam_service(PAM)},
                    "audit_log": str(disk / "audit.log"),
                    **policy,
                },
            )
            with endpoint:
                yield Lab(endpoint, disk / "audit.log", accounts, sdk)
        finally:
            subprocess.run(["umount", disk], check=True)


@pytest.fixture(scope="module")
def required(hub, machine, program, accounts, sdk) -> Iterator[Lab]:
    with lab(hub, machine, program, accounts, sdk, audit_required=True) as made:
        yield made


def test_each_event_of_three_users_is_there_in_order_with_who_it_was(required, sdk):
    begun = {who: sdk[who].begin("facts", required.endpoint.endpoint_id) for who in PEOPLE}
    seen = {who: sdk[who].end(process, required.endpoint.logs) for who, process in begun.items()}
    sdk["stranger"].play("refused", required.endpoint)
    os.kill(seen["carol"]["pid"], signal.SIGTERM)
    required.endpoint.wait_for(lambda: any(record["event"] == "session-closed" for record in required.of("carol")))

    for number, who in enumerate(PEOPLE, 1):
        found = required.of(who)
        ended = ["session-closed", "ended"] if who == "carol" else []
        assert [record["event"] for record in found] == ["start", "session-opened", "started", *OF_A_TASK, *ended]
        name, pid = found[0]["user_endpoint"], seen[who]["pid"]
        for record in found:
            assert (record["uid"], record["user_endpoint"]) == (required.accounts[who].uid, name)
            assert record["endpoint"] == "lab"
        assert (found[0]["identity"], found[0]["mapped_by"]) == (sdk[who].client_id, f"document 1, rule {number}")
        assert found[0]["identity_name"].startswith(sdk[who].client_id)
        assert {record["pid"] for record in found[2:]} == {pid}
        tasks = [record for record in found if record["event"] in OF_A_TASK]
        assert len({(record["task"], record["function"]) for record in tasks}) == 1
        assert len(tasks[0]["task"]) == 36
    others = [record for record in required.records() if record.get("user") is None]
    assert [record["event"] for record in others] == ["log-opened", "session-begin", "manager-refused"]
    assert others[1]["pid"] == required.endpoint.manager_pid
    assert others[2]["code"] == "IDENTITY_NOT_MAPPED"


def test_the_log_is_good_and_shows_any_change(required, tmp_path):
    assert required.verified().returncode == 0

    copy = tmp_path / "audit.log"
    text = required.log.read_text()
    copy.write_text(text.replace('"event":"started"', '"event":"stopped"', 1))
    changed = subprocess.run([required.endpoint.program, "audit", "verify", copy], capture_output=True, text=True)
    assert changed.returncode == 1
    assert "changed" in changed.stdout + changed.stderr


def test_a_user_who_writes_lines_for_another_writes_them_for_himself(required, sdk):
    victim = required.accounts["alice"]
    before = len(required.of("alice"))
    forged = [
        f"fid=f tid=forged bid=0 RECEIVED - uid={victim.uid} user={victim.name}",
        json.dumps({"event": "RECEIVED", "task": "forged", "uid": victim.uid, "user": victim.name}) + "\n",
        f"uid={victim.uid} pid=1 uep=x fid=f tid=forged bid=0 RECEIVED",
    ]
    pid = sdk["bob"].play("forge", required.endpoint, *forged)["pid"]
    required.endpoint.wait_for(lambda: any(record["event"] == "invalid-task-events" for record in required.of("bob")))

    bob = required.accounts["bob"]
    assert len(required.of("alice")) == before
    told = [record for record in required.records() if record.get("task") == "forged" or "example" in record]
    assert told
    assert {(record["uid"], record["user"], record["pid"]) for record in told} == {(bob.uid, bob.name, pid)}
    assert required.verified().returncode == 0


def test_nobody_but_root_can_read_or_write_it(required):
    assert required.log.stat().st_uid == 0
    assert required.log.stat().st_mode & 0o777 == 0o600
    for pid in (required.endpoint.manager_pid, *(one["pid"] for one in required.endpoint.user_endpoints())):
        opened = [os.readlink(entry) for entry in Path(f"/proc/{pid}/fd").iterdir() if os.path.lexists(entry)]
        assert str(required.log) not in opened


def test_a_full_disk_stops_new_work_until_there_is_room_and_the_user_reads_why(required, sdk):
    with required.full_disk():
        answer = sdk["carol"].play("refused", required.endpoint)
        process = sdk["alice"].begin("facts", required.endpoint.endpoint_id)
        time.sleep(4)
        waits = process.poll() is None
    sdk["alice"].end(process, required.endpoint.logs)

    assert answer["status"] == 422
    assert "This endpoint can't start anything at the moment" in answer["text"]
    assert "[policy: NO_AUDIT]" in answer["text"]
    assert str(required.log) not in answer["text"]
    assert "No space left on device" in required.endpoint.said
    assert waits, "a task began without a line"
    required.endpoint.wait_for(lambda: [one["event"] for one in required.of("alice")][-4:] == OF_A_TASK)
    assert required.verified().returncode == 0


@pytest.fixture(scope="module")
def relaxed(hub, machine, program, accounts, sdk) -> Iterator[Lab]:
    with lab(hub, machine, program, accounts, sdk, audit_format="official") as made:
        yield made


def test_without_audit_required_a_full_disk_is_warned_of_and_work_goes_on(relaxed, sdk):
    with relaxed.full_disk():
        seen = sdk["alice"].play("facts", relaxed.endpoint)

    assert psutil.Process(seen["pid"]).uids().real == relaxed.accounts["alice"].uid
    assert "No space left on device" in relaxed.endpoint.said
    sdk["alice"].play("facts", relaxed.endpoint)
    assert " dropped - " in relaxed.log.read_text()


def test_the_official_form_has_the_official_words_for_sessions_and_tasks(relaxed, sdk):
    pid = sdk["bob"].play("facts", relaxed.endpoint)["pid"]
    uid = relaxed.accounts["bob"].uid
    relaxed.endpoint.wait_for(lambda: f"uid={uid} pid={pid}" in relaxed.log.read_text())
    relaxed.endpoint.wait_for(lambda: "EXEC_END" in relaxed.log.read_text().splitlines()[-1])

    lines = relaxed.log.read_text().splitlines()
    assert lines[0].endswith("eid=lab Begin CEP session =====")
    mine = [line.partition(f" uid={uid} pid={pid} ")[2] for line in lines if f" uid={uid} pid={pid} " in line]
    assert [line.split(" - ")[0].split()[-1] for line in mine] == ["started", *OF_A_TASK]
    assert all(line.startswith("uep=uep.") for line in mine)
    assert " fid=" in mine[1] and " tid=" in mine[1] and " bid=" in mine[1]
