"""What comes out of a user endpoint's pipe into the audit log, whatever is written into the pipe."""

from __future__ import annotations

import asyncio
import fcntl
import functools
import json
import os
import resource
import select
import subprocess
import sys
import time
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path

import pytest

from endpoint.errors import EndpointError
from endpoint.manager.audit import ManagerAudit
from endpoint.privileged.audit import AuditFailure, AuditLog
from endpoint.privileged.audit_chain import lines_of, verify
from endpoint.privileged.audit_lines import task_text
from endpoint.privileged.audit_tasks import BURST_LINES, TaskPipe, open_task_pipe
from endpoint.user import audit as user_audit
from endpoint.user.audit import TaskAudit
from endpoint.user.journal import Journal
from endpoint.user.tasks import Event

WHO = {"endpoint": "e-1", "user_endpoint": "u-1", "uid": 1001, "user": "alice", "pid": 7}


def on_loop(test: Callable[..., Awaitable[None]]) -> Callable[..., None]:
    @functools.wraps(test)
    def run(*args: object, **kwargs: object) -> None:
        asyncio.run(test(*args, **kwargs))

    return run


class Clock:
    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


class Pair:
    """A pipe between a user endpoint and its keeper."""

    def __init__(self, path: Path, *, required: bool = False, clock: Callable[[], float] | None = None) -> None:
        self.path = path
        self.clock = Clock()
        self.reader, self.writer = open_task_pipe(required=required)
        self.tasks = TaskPipe(self.reader, AuditLog(path), WHO, required=required, clock=clock or self.clock)

    def write(self, *packets: bytes) -> None:
        for packet in packets:
            os.write(self.writer, packet)

    def records(self) -> list[dict[str, object]]:
        return [json.loads(line) for line in self.path.read_text().splitlines()][1:]

    def close(self) -> None:
        self.tasks.close()
        os.close(self.writer)


@pytest.fixture
def pair(tmp_path) -> Iterator[Pair]:
    pair = Pair(tmp_path / "audit.log")
    yield pair
    pair.close()


def said(event: str, number: int = 0) -> bytes:
    return task_text(event, function="f", task=f"t-{number}").encode()


def test_events_come_into_the_log_in_order_and_with_their_owner(pair):
    pair.write(said("RECEIVED"), said("EXEC_START"), said("EXEC_END"))

    assert pair.tasks.read() is True

    assert [(one["event"], one["uid"], one["user"]) for one in pair.records()] == [
        ("RECEIVED", 1001, "alice"),
        ("EXEC_START", 1001, "alice"),
        ("EXEC_END", 1001, "alice"),
    ]


def test_a_user_can_not_write_in_anothers_name(pair):
    pair.write(
        b"fid=f tid=t bid= RECEIVED\nuid=0 user=root fid=f tid=t bid= EXEC_END",
        json.dumps({"event": "start", "uid": 0, "user": "root"}).encode(),
        b"fid=f tid=t bid= FAILED - uid=0 user=root\x1b[2J",
    )
    pair.tasks.read()

    assert {(one["uid"], one["user"]) for one in pair.records()} == {(1001, "alice")}
    assert [one["event"] for one in pair.records()] == ["RECEIVED", "FAILED", "invalid-task-events"]
    assert "\x1b" not in pair.path.read_text()


def test_nonsense_is_told_once_a_second_with_its_number(pair):
    for _ in range(100):
        pair.write(*[b"nonsense"] * 20)
        pair.tasks.read()
    pair.clock.now += 1
    pair.write(said("RECEIVED"))
    pair.tasks.read()

    assert [(one["event"], one.get("lines")) for one in pair.records()] == [
        ("invalid-task-events", 20),
        ("RECEIVED", None),
        ("invalid-task-events", 1980),
    ]


def test_the_end_of_the_pipe_is_told_and_nothing_before_it_is_lost(pair):
    pair.write(said("RECEIVED"), b"nonsense")
    pair.write(b"nonsense")
    os.dup2(os.open(os.devnull, os.O_WRONLY), pair.writer)

    while pair.tasks.read():
        pass

    assert [one["event"] for one in pair.records()] == ["RECEIVED", "invalid-task-events"]


FLOOD = """
import fcntl, os, sys, time
os.setuid(65534)
fd, stop = int(sys.argv[1]), time.monotonic() + float(sys.argv[2])
fcntl.fcntl(fd, fcntl.F_SETFL, 0)  # no packets, and it may block
data = b"fid=f tid=t bid= RECEIVED\\n" * 150
while time.monotonic() < stop:
    os.write(fd, data)
"""


def test_a_flood_is_read_no_faster_than_a_bound_and_fills_no_disk(tmp_path):
    pair = Pair(tmp_path / "audit.log", clock=time.monotonic)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    flood = subprocess.Popen([sys.executable, "-c", FLOOD, str(pair.writer), "1.5"], pass_fds=[pair.writer])
    try:
        deadline = time.monotonic() + 4
        while flood.poll() is None and time.monotonic() < deadline:
            if pair.tasks.pause_s > 0:
                time.sleep(pair.tasks.pause_s)
            elif select.select([pair.tasks], [], [], 0.1)[0]:
                begin = time.monotonic()
                pair.tasks.read()
                assert time.monotonic() - begin < 1, "whoever reads has other things to do"
    finally:
        flood.kill()
        flood.wait()
    grown = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before
    lines = pair.path.read_bytes().count(b"\n")
    pair.close()

    assert lines <= BURST_LINES + 6000
    assert grown < 20 * 1024, "KiB"


def test_a_required_log_that_can_not_be_written_is_no_reason_to_lose_an_event(tmp_path):
    pair = Pair(tmp_path / "audit.log", required=True)
    (tmp_path / "audit.log").mkdir()
    pair.write(said("RECEIVED", 1))

    assert pair.tasks.read() is True
    os.set_blocking(pair.writer, False)
    with pytest.raises(BlockingIOError):
        pair.write(said("RECEIVED", 2))
    assert pair.tasks.pause_s == pytest.approx(1)
    assert pair.tasks.read() is True, "in a pause nothing is read"
    (tmp_path / "audit.log").rmdir()
    pair.clock.now += 1
    pair.tasks.read()
    pair.write(said("RECEIVED", 2))
    pair.tasks.read()

    assert [one["task"] for one in pair.records()] == ["t-1", "t-2"]
    pair.close()


def test_a_log_that_is_not_required_loses_events_and_counts_them(tmp_path):
    pair = Pair(tmp_path / "audit.log")
    (tmp_path / "audit.log").mkdir()
    pair.write(said("RECEIVED", 1), said("EXEC_END", 1))
    pair.tasks.read()
    (tmp_path / "audit.log").rmdir()
    pair.write(said("RECEIVED", 2))
    pair.tasks.read()

    assert [(one["event"], one.get("lines")) for one in pair.records()] == [("dropped", 2), ("RECEIVED", None)]
    pair.close()


# -- the user endpoint's end -------------------------------------------------------------------------------------------


def happen(audit: TaskAudit, number: int) -> None:
    """A task comes."""
    audit.of(f"t-{number}", "f")
    audit.happened(f"t-{number}", None, Event.ARRIVED)


@on_loop
async def test_packets_that_find_no_room_come_later_in_order(pair):
    audit = TaskAudit(pair.writer, strict=False)
    for number in range(2000):
        happen(audit, number)
    for _ in range(100):
        pair.tasks.read()
        await asyncio.sleep(0.001)

    assert [one["task"] for one in pair.records()] == [f"t-{number}" for number in range(2000)]
    audit.close()
    pair.writer = os.open(os.devnull, os.O_WRONLY)


@on_loop
async def test_packets_beyond_the_bound_are_counted(pair, monkeypatch):
    monkeypatch.setattr(user_audit, "MOST_KEPT", 50)
    audit = TaskAudit(pair.writer, strict=False)
    for number in range(1000):
        happen(audit, number)
    for _ in range(20):
        pair.tasks.read()
        await asyncio.sleep(0.001)
    happen(audit, 1000)
    pair.tasks.read()

    told = [(one["event"], one.get("message")) for one in pair.records()]
    kept = len(told) - 2
    assert told[-2:] == [("DROPPED", f"{1000 - kept} events"), ("RECEIVED", None)]
    audit.close()
    pair.writer = os.open(os.devnull, os.O_WRONLY)


@on_loop
async def test_where_no_event_may_be_lost_there_is_no_room_for_tasks_until_the_pipe_is_read(tmp_path):
    pair = Pair(tmp_path / "audit.log", required=True)
    audit = TaskAudit(pair.writer, strict=True)
    number = 0
    assert audit.has_room
    happen(audit, number)
    number += 1
    assert not audit.has_room, "nothing is written down"
    for _ in range(20):
        happen(audit, number)
        number += 1
    while not audit.has_room:
        pair.tasks.read()
        await asyncio.sleep(0.001)
    pair.tasks.read()

    assert len(pair.records()) == number
    audit.close()
    pair.tasks.close()


@on_loop
async def test_there_is_room_again_when_all_is_in_the_log_and_not_when_it_was_read(tmp_path):
    folder = tmp_path / "away"
    pair = Pair(folder / "audit.log", required=True, clock=time.monotonic)
    audit = TaskAudit(pair.writer, strict=True)
    rooms: list[bool] = []
    audit.begin(
        Journal(tmp_path / "journal"),
        job_of=lambda block: None,
        on_lost=lambda error: None,
        on_room=lambda: rooms.append(True),
    )
    happen(audit, 1)
    for _ in range(3):
        pair.tasks.read()
        await asyncio.sleep(0.01)
    assert pair.tasks.pause_s > 0
    assert not audit.has_room
    assert not rooms

    folder.mkdir()
    await asyncio.sleep(pair.tasks.pause_s)
    pair.tasks.read()
    await asyncio.sleep(0.01)

    assert audit.has_room
    assert rooms == [True]
    assert [one["event"] for one in pair.records()] == ["RECEIVED"]
    audit.close()
    pair.tasks.close()


@pytest.mark.parametrize("strict", [True, False])
@on_loop
async def test_a_pipe_that_nobody_reads_any_more_ends_a_strict_endpoint_and_only_that(pair, strict, tmp_path):
    lost: list[EndpointError] = []
    audit = TaskAudit(pair.writer, strict=strict)
    audit.begin(Journal(tmp_path / "journal"), job_of=lambda block: None, on_lost=lost.append, on_room=list)
    os.dup2(os.open(os.devnull, os.O_RDONLY), pair.reader)
    for number in range(3):
        happen(audit, number)
        await asyncio.sleep(0)

    assert [error.failure.code for error in lost] == (["AUDIT_LOST"] if strict else [])
    audit.close()
    pair.writer = os.open(os.devnull, os.O_WRONLY)


def test_the_pipe_is_not_inherited_and_does_not_block():
    reader, writer = open_task_pipe(required=False)

    async def begin() -> None:
        os.set_inheritable(writer, True)
        audit = TaskAudit(writer, strict=False)
        assert os.get_inheritable(writer) is False
        assert fcntl.fcntl(writer, fcntl.F_GETFL) & os.O_NONBLOCK
        audit.close()

    asyncio.run(begin())
    os.close(reader)


# -- a manager's own log -----------------------------------------------------------------------------------------------


@on_loop
async def test_a_manager_writes_its_own_lines_and_those_of_its_user_endpoints(tmp_path):
    path = tmp_path / "audit.log"
    manager = ManagerAudit(path, {"endpoint": "e-1", "uid": 0, "user": "root", "pid": os.getpid()}, required=True)
    manager.begin()
    pipe = manager.pipe("u-1")
    code = "import os, sys; os.write(int(sys.argv[1]), b'fid=f tid=t bid= RECEIVED')"
    process = await asyncio.create_subprocess_exec(sys.executable, "-c", code, str(pipe.writer), pass_fds=[pipe.writer])
    pipe.given(process.pid)
    manager.event("start", user_endpoint="u-1", pid=process.pid)
    await process.wait()
    await asyncio.sleep(0.1)
    manager.end()

    records = [json.loads(line) for line in path.read_text().splitlines()]
    assert [one["event"] for one in records] == ["log-opened", "session-begin", "start", "RECEIVED", "session-end"]
    assert (records[3]["pid"], records[3]["user_endpoint"]) == (process.pid, "u-1")
    with path.open("rb") as stream:
        assert verify(lines_of("", stream, path.stat().st_size)).flaw is None


@on_loop
async def test_a_manager_whose_required_log_can_not_be_written_gives_no_pipe(tmp_path):
    manager = ManagerAudit(tmp_path / "nowhere" / "audit.log", {"endpoint": "e-1"}, required=True)

    with pytest.raises(AuditFailure):
        manager.begin()
    with pytest.raises(AuditFailure):
        manager.pipe("u-1")


@on_loop
async def test_a_manager_goes_on_where_its_log_is_not_required(tmp_path, caplog):
    manager = ManagerAudit(tmp_path / "nowhere" / "audit.log", {"endpoint": "e-1"}, required=False)
    manager.begin()
    pipe = manager.pipe("u-1")
    os.write(pipe.writer, said("RECEIVED"))
    pipe.given(None)
    await asyncio.sleep(0.05)
    manager.end()

    assert [record.levelname for record in caplog.records] == ["ERROR"]
