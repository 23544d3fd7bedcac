"""What happens to real tasks in a real user endpoint, as its keeper reads it."""

from __future__ import annotations

import os
import re
import select
import threading
import time
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest

from endpoint.privileged.audit import AuditLog
from endpoint.privileged.audit_tasks import TaskPipe, open_task_pipe, task_record
from endpoint.wire.codec import encode
from endpoint.wire.messages import Task
from tests.support.user_endpoint import THREADS, Queues, UserEndpointProcess, headers, packed

PROCESSES = "engine:\n  type: ProcessPoolEngine\n  max_workers: 2\nheartbeat_period: 5\n"
PARSL = """
engine:
  type: GlobusComputeEngine
  max_workers_per_node: 1
  encrypted: false
  provider:
    type: LocalProvider
    min_blocks: 0
    init_blocks: 1
    max_blocks: 1
heartbeat_period: 5
"""
ASSURED = "high_assurance: true\n"
WHOLE = ["RECEIVED", "EXEC_START", "RUNNING", "EXEC_END"]
FUNCTION = "0b8a4e6e-5b0f-4f7e-9d2e-6c4e3f1a2b3c"


class Witness:
    """Reads the pipe, from `listen` on, and keeps what comes out of it."""

    def __init__(self, *, required: bool = False) -> None:
        self.reader, self.writer = open_task_pipe(required=required)
        self.records: list[dict[str, Any]] = []
        self._ending = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)

    def listen(self) -> Witness:
        self._thread.start()
        return self

    def of(self, task_id: str, last: str = "EXEC_END", timeout: float = 10) -> list[dict[str, Any]]:
        """The records of one task, once `last` is among them."""
        deadline = time.monotonic() + timeout
        while True:
            found = [record for record in list(self.records) if record["task"] == task_id]
            if any(record["event"] == last for record in found):
                return found
            assert time.monotonic() < deadline, found
            time.sleep(0.01)

    def deaf(self) -> None:
        """Nobody reads any more."""
        self._stop()
        os.dup2(os.open(os.devnull, os.O_RDONLY), self.reader)

    def close(self) -> None:
        self._stop()
        os.close(self.reader)
        os.close(self.writer)

    def _stop(self) -> None:
        self._ending.set()
        if self._thread.is_alive():
            self._thread.join()

    def _run(self) -> None:
        while not self._ending.is_set():
            if select.select([self.reader], [], [], 0.05)[0] and (packet := os.read(self.reader, 65536)):
                self.records.append(task_record(packet, {}) or {"event": "nonsense", "task": packet})


@pytest.fixture
def queues(broker) -> Iterator[Queues]:
    with Queues(broker.amqp_url) as made:
        yield made


@pytest.fixture
def witness() -> Iterator[Witness]:
    witness = Witness().listen()
    yield witness
    witness.close()


def started(queues: Queues, directory: Path, witness: Witness, config: str, **document: Any) -> UserEndpointProcess:
    return UserEndpointProcess(queues, directory, config=config, audit_fd=witness.writer, **document)


def nap(seconds):
    import time

    time.sleep(seconds)
    return seconds


def die():
    import os
    import signal

    os.kill(os.getpid(), signal.SIGKILL)


def submit(queues: Queues, function: object, *args: object, function_id: str = FUNCTION) -> str:
    task_id = str(uuid.uuid4())
    queues.publish(encode(Task(task_id, packed(function, args, {}))), headers(task_id, function_uuid=function_id))
    return task_id


@pytest.mark.parametrize("config", [THREADS, PROCESSES, PARSL], ids=["threads", "processes", "parsl"])
def test_a_task_is_told_of_from_its_coming_to_its_end(queues, tmp_path, witness, config):
    with started(queues, tmp_path, witness, config) as endpoint:
        tasks = [submit(queues, nap, 0.01) for _ in range(4)]
        assert [queues.value_of(task) for task in tasks] == [0.01] * 4, endpoint.log
        told = {task: witness.of(task) for task in tasks}

    for records in told.values():
        assert [record["event"] for record in records] == WHOLE
        assert {record["function"] for record in records} == {FUNCTION}
        running = records[2]
        assert ("block" in running, "job" in running) == ((True, True) if config == PARSL else (False, False))
        if config != THREADS:
            assert re.fullmatch(r"on \S+ at 20\d\d-\S+\+00:00", running["message"])


def test_a_running_task_is_told_of_while_it_runs(queues, tmp_path, witness):
    with started(queues, tmp_path, witness, PARSL):
        task = submit(queues, nap, 4)
        records = witness.of(task, "RUNNING", timeout=30)
        assert [record["event"] for record in records] == WHOLE[:3]
        assert queues.value_of(task) == 4
        assert witness.of(task)[-1]["block"] == "0"


def test_a_refused_function_has_failed_and_never_begins(queues, tmp_path, witness):
    with started(queues, tmp_path, witness, THREADS, allowed_functions=[str(uuid.uuid4())]):
        task = submit(queues, nap, 0)
        assert queues.result_of(task).error_details is not None
        records = witness.of(task)

    assert [record["event"] for record in records] == ["RECEIVED", "FAILED", "EXEC_END"]
    assert f"Function {FUNCTION} not permitted" in records[1]["message"]


@pytest.mark.parametrize("config", [THREADS, PROCESSES], ids=["threads", "processes"])
def test_a_cancelled_task_has_a_line_that_says_so(queues, tmp_path, witness, config):
    with started(queues, tmp_path, witness, config):
        running, early = submit(queues, nap, 3), str(uuid.uuid4())
        witness.of(running, "RUNNING")
        queues.cancel(running)
        queues.cancel(early)
        queues.publish(encode(Task(early, packed(nap, (0,), {}))), headers(early, function_uuid=FUNCTION))
        for task in (running, early):
            assert queues.result_of(task).error_details.code == "TASK_CANCELLED"
        told = {task: witness.of(task) for task in (running, early)}

    assert [record["event"] for record in told[running]] == [*WHOLE[:3], "FAILED", "EXEC_END"]
    assert "The task was cancelled when it had run for" in told[running][3]["message"]
    assert [record["event"] for record in told[early]] == ["RECEIVED", "FAILED", "EXEC_END"]
    assert told[early][1]["message"] == "The task was cancelled"
    assert told[early][1]["function"] == FUNCTION


def test_each_start_of_a_task_that_runs_again_is_told(queues, tmp_path, witness):
    config = PROCESSES.replace("max_workers: 2", "max_workers: 1\n  max_retries_on_system_failure: 1")
    with started(queues, tmp_path, witness, config):
        task = submit(queues, die)
        queues.result_of(task)
        events = [record["event"] for record in witness.of(task)]

    assert events.count("RUNNING") == 2
    assert (events[0], events[-1]) == ("RECEIVED", "EXEC_END")


def test_many_quick_tasks_are_all_told_of(queues, tmp_path, witness):
    with started(queues, tmp_path, witness, PROCESSES):
        tasks = [submit(queues, nap, 0) for _ in range(400)]
        for task in tasks:
            queues.value_of(task)
        witness.of(tasks[-1])
    time.sleep(0.1)

    by_task: dict[str, list[str]] = {task: [] for task in tasks}
    for record in witness.records:
        by_task[record["task"]].append(record["event"])
    assert {tuple(events) for events in by_task.values()} == {tuple(WHOLE)}


def test_a_task_that_is_handed_back_is_told_of_by_the_next_process(queues, tmp_path, witness):
    config = THREADS.replace("max_workers: 2", "max_workers: 1") + "shutdown_grace: 0.1\n"
    with started(queues, tmp_path, witness, config):
        first, second = submit(queues, nap, 5), submit(queues, nap, 0)
        witness.of(first, "RUNNING")
        witness.of(second, "EXEC_START")
    assert [record["event"] for record in witness.of(first)] == [*WHOLE[:3], "FAILED", "EXEC_END"]
    queues.result_of(first)
    with started(queues, tmp_path, witness, config):
        assert queues.value_of(second) == 0
        assert [record["event"] for record in witness.of(second)] == ["RECEIVED", "EXEC_START", *WHOLE]


def test_workers_do_not_have_the_pipe(queues, tmp_path, witness):
    with started(queues, tmp_path, witness, PROCESSES) as endpoint:
        queues.value_of(submit(queues, nap, 0))
        pipe = os.readlink(f"/proc/self/fd/{witness.writer}")
        workers = psutil.Process(endpoint.process.pid).children(recursive=True)
        assert workers
        for worker in workers:
            held = [os.readlink(entry) for entry in Path(f"/proc/{worker.pid}/fd").iterdir()]
            assert pipe not in held


def test_high_assurance_begins_no_task_while_nobody_reads(queues, tmp_path):
    witness = Witness(required=True)
    with started(queues, tmp_path, witness, ASSURED + THREADS):
        tasks = [submit(queues, nap, 0) for _ in range(30)]
        time.sleep(2)
        assert queues.unexpected_results() == []
        witness.listen()
        assert [queues.value_of(task) for task in tasks] == [0] * 30
        for task in tasks:
            assert [record["event"] for record in witness.of(task)] == WHOLE
    witness.close()


def test_a_task_that_waits_for_the_audit_log_is_cancelled_at_once(queues, tmp_path):
    witness = Witness(required=True)
    with started(queues, tmp_path, witness, ASSURED + THREADS):
        first, unwanted = submit(queues, nap, 0), submit(queues, nap, 0)
        queues.cancel(unwanted)

        assert "The task was cancelled before it began" in queues.result_of(unwanted).data
        assert queues.unexpected_results() == []
        witness.listen()
        assert queues.value_of(first) == 0
        records = witness.of(unwanted)
        assert [record["event"] for record in records] == ["RECEIVED", "FAILED", "EXEC_END"]
        assert records[1]["message"] == "The task was cancelled"
    witness.close()


def test_high_assurance_ends_when_nobody_can_read_any_more(queues, tmp_path, witness):
    with started(queues, tmp_path, witness, ASSURED + THREADS) as endpoint:
        assert queues.next_heartbeat()["active"] is True
        witness.deaf()
        submit(queues, nap, 0)
        assert endpoint.process.wait(20) != 0
        assert "audit log" in endpoint.log


def test_a_user_endpoint_goes_on_without_a_reader_where_that_is_allowed(queues, tmp_path, witness):
    with started(queues, tmp_path, witness, THREADS):
        assert queues.next_heartbeat()["active"] is True
        witness.deaf()
        assert queues.value_of(submit(queues, nap, 0)) == 0


def test_the_keepers_log_has_it_all_under_the_users_name(queues, tmp_path):
    log = tmp_path / "audit.log"
    reader, writer = open_task_pipe(required=True)
    pipe = TaskPipe(reader, AuditLog(log), {"uid": 1001, "user": "alice"}, required=True)

    def keep() -> None:
        while pipe.read():
            select.select([reader], [], [], 0.1)
        pipe.close()

    keeper = threading.Thread(target=keep)
    keeper.start()
    with UserEndpointProcess(queues, tmp_path, config=ASSURED + THREADS, audit_fd=writer):
        os.close(writer)
        task = submit(queues, nap, 0)
        queues.value_of(task)
    keeper.join(10)

    lines = [line for line in log.read_text().splitlines() if task in line]
    assert len(lines) == 4
    assert all('"uid":1001,"user":"alice"' in line for line in lines)
