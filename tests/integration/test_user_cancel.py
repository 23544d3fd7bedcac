"""Tasks that nobody wants any more, in a user endpoint as a process, through a real RabbitMQ."""

from __future__ import annotations

import json
import os
import signal
import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest

from endpoint.errors import ExitStatus
from endpoint.wire.codec import encode
from endpoint.wire.messages import Result, Task
from tests.support.user_endpoint import THREADS, Queues, UserEndpointProcess, headers, packed
from tests.support.waiting import runs, wait_for

PROCESSES = "engine:\n  type: ProcessPoolEngine\n  max_workers: 2\nheartbeat_period: 5\n"
PARSL = """
engine:
  type: GlobusComputeEngine
  max_workers_per_node: 1
  address: 127.0.0.1
  provider:
    type: LocalProvider
    init_blocks: 1
    max_blocks: 1
heartbeat_period: 5
"""
ENGINES = pytest.mark.parametrize("config", [THREADS, PROCESSES, PARSL], ids=["threads", "processes", "parsl"])
BEFORE = "The task was cancelled before it began."


@pytest.fixture(params=[True, False], ids=["queue-of-its-own", "task-queue"])
def queues(broker, request) -> Iterator[Queues]:
    """With cancellations on a queue of their own, as our hub has it, and among the tasks, as the protocol has it."""
    with Queues(broker.amqp_url, cancels=request.param) as made:
        yield made


@pytest.fixture
def beside(broker) -> Iterator[Queues]:
    """Where cancellations need not wait behind tasks."""
    with Queues(broker.amqp_url, cancels=True) as made:
        yield made


def double(x):
    return 2 * x


def hold(note):
    import pathlib
    import time

    path = pathlib.Path(note)
    path.touch()
    while path.exists():
        time.sleep(0.01)
    return "let go"


def note_and_hold(ran, note):
    import os
    import pathlib
    import time

    with open(ran, "a") as notes:
        notes.write(f"{os.getpid()}\n")
    pathlib.Path(note).touch()
    while True:
        time.sleep(1)


def stubborn(note):
    import json
    import os
    import signal
    import subprocess
    import time

    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    child = subprocess.Popen(["sleep", "600"])
    with open(note + ".part", "w") as file:
        json.dump([os.getpid(), child.pid], file)
    os.rename(note + ".part", note)
    while True:
        time.sleep(1)


def cancelled(result: Result) -> str:
    """The words of an answer that must be that the task was cancelled."""
    assert result.error_details is not None, result.data
    assert result.error_details.code == "TASK_CANCELLED", result.data
    assert "[task: TASK_CANCELLED]" in result.data
    return result.data


def publish(queues: Queues, task_id: str, function: object, *args: object) -> None:
    queues.publish(encode(Task(task_id, packed(function, args, {}))), headers(task_id))


@pytest.mark.parametrize("config", [THREADS, PROCESSES], ids=["threads", "processes"])
def test_of_two_hundred_queued_tasks_exactly_those_are_cancelled_that_should_be(beside, tmp_path, config):
    gates = [tmp_path / name for name in "ab"]
    with UserEndpointProcess(beside, tmp_path, config=config) as endpoint:
        busy = [beside.submit(hold, str(gate)) for gate in gates]
        assert wait_for(lambda: all(gate.exists() for gate in gates)), endpoint.log
        tasks = {beside.submit(double, number): number for number in range(200)}
        unwanted = list(tasks)[::2]
        for task_id in unwanted:
            beside.cancel(task_id)
        assert wait_for(lambda: beside.waiting(beside.cancels) == 0)
        for gate in gates:
            gate.unlink()

        for task_id, number in tasks.items():
            if task_id in unwanted:
                assert cancelled(beside.result_of(task_id)).startswith(BEFORE)
            else:
                assert beside.value_of(task_id) == 2 * number
        assert [beside.value_of(task_id) for task_id in busy] == ["let go", "let go"]
        assert beside.unexpected_results() == []
    assert beside.waiting(beside.task) == 0, "each was acknowledged"


@pytest.mark.parametrize("config", [PROCESSES, PARSL], ids=["processes", "parsl"])
def test_a_running_task_is_ended_with_its_processes_and_the_next_one_runs(queues, tmp_path, config):
    note = tmp_path / "note"
    with UserEndpointProcess(queues, tmp_path, config=config.replace("engine:\n", "engine:\n  cancel_grace: 0.5\n")):
        task_id = queues.submit(stubborn, str(note))
        assert wait_for(note.exists)
        pids = json.loads(note.read_text())

        queues.cancel(task_id)

        told = cancelled(queues.result_of(task_id))
        assert "The task was cancelled when it had run for" in told
        assert "did not end within 0.5 s (SIGTERM), and were killed" in told
        assert queues.endpoint_id in told
        assert not any(runs(pid) for pid in pids)
        assert queues.value_of(queues.submit(double, 4)) == 8
        assert queues.unexpected_results() == []


def test_a_task_in_a_thread_goes_on_and_its_owner_is_told_so_at_once(queues, tmp_path):
    note = tmp_path / "note"
    with UserEndpointProcess(queues, tmp_path, config=THREADS) as endpoint:
        task_id = queues.submit(hold, str(note))
        assert wait_for(note.exists)

        queues.cancel(task_id)

        assert "it goes on to its end, and its result is dropped" in cancelled(queues.result_of(task_id))
        assert note.exists()
        note.unlink()
        assert queues.value_of(queues.submit(double, 4)) == 8
        assert queues.unexpected_results() == []
        assert endpoint.process.poll() is None


@ENGINES
def test_a_cancellation_that_overtakes_its_task_drops_it_when_it_comes(queues, tmp_path, config):
    ran, task_id = tmp_path / "ran", str(uuid.uuid4())
    with UserEndpointProcess(queues, tmp_path, config=config):
        queues.cancel(task_id)
        assert queues.value_of(queues.submit(double, 1), 60) == 2
        publish(queues, task_id, note_and_hold, str(ran), str(tmp_path / "note"))

        assert cancelled(queues.result_of(task_id)).startswith(BEFORE)
        assert not ran.exists()
        assert wait_for(lambda: queues.waiting(queues.task) == 0)


def test_a_cancellation_of_an_answered_task_is_nothing(queues, tmp_path):
    with UserEndpointProcess(queues, tmp_path) as endpoint:
        task_id = queues.submit(double, 3)
        assert queues.value_of(task_id) == 6

        queues.cancel(task_id)

        assert queues.value_of(queues.submit(double, 4)) == 8
        assert queues.unexpected_results() == []
        assert endpoint.process.poll() is None


def test_a_message_that_only_looks_like_a_cancellation_harms_nobody(queues, tmp_path):
    with UserEndpointProcess(queues, tmp_path) as endpoint:
        for data in ({}, {"task_id": "no uuid"}, {"task_id": None}, []):
            body = b"\x01" + json.dumps({"message_type": "task_cancel", "data": data}).encode()
            queues.channel.basic_publish(queues.exchange, queues.cancels or queues.task, body)

        assert queues.value_of(queues.submit(double, 4)) == 8
        assert queues.unexpected_results() == []
        assert wait_for(lambda: "is dropped" in endpoint.log)


@pytest.mark.parametrize("config", [PROCESSES, PARSL], ids=["processes", "parsl"])
def test_a_cancelled_task_does_not_run_again_after_a_crash(beside, tmp_path, config):
    ran, note = tmp_path / "ran", tmp_path / "note"
    patient = "engine:\n  cancel_grace: 600\n  max_retries_on_system_failure: 5\n"
    with UserEndpointProcess(beside, tmp_path, config=config.replace("engine:\n", patient)) as endpoint:
        task_id = beside.submit(note_and_hold_on, str(ran), str(note))
        assert wait_for(note.exists)
        beside.cancel(task_id)
        assert wait_for((tmp_path / "asked").exists), "it was told to end, and goes on"
        endpoint.process.kill()
        endpoint.process.wait()

        endpoint.start()

        told = cancelled(beside.result_of(task_id))
        assert "It had started on" in told
        assert "and ended with the endpoint" in told
        assert len(ran.read_text().split()) == 1
        assert wait_for(lambda: beside.waiting(beside.task) == 0)


def note_and_hold_on(ran, note):
    import os
    import pathlib
    import signal
    import time

    place = pathlib.Path(note)
    signal.signal(signal.SIGTERM, lambda *_: place.with_name("asked").touch())
    with open(ran, "a") as notes:
        notes.write(f"{os.getpid()}\n")
    place.touch()
    while True:
        time.sleep(0.05)


def test_what_was_cancelled_before_it_came_is_known_to_the_next_process(beside, tmp_path):
    ran, task_id = tmp_path / "ran", str(uuid.uuid4())
    with UserEndpointProcess(beside, tmp_path) as endpoint:
        beside.cancel(task_id)
        assert wait_for(lambda: beside.waiting(beside.cancels) == 0)
        assert beside.value_of(beside.submit(double, 1)) == 2
        endpoint.process.send_signal(signal.SIGKILL)
        endpoint.process.wait()
        publish(beside, task_id, note_and_hold, str(ran), str(tmp_path / "note"))

        endpoint.start()

        assert cancelled(beside.result_of(task_id)).startswith(BEFORE)
        assert not ran.exists()


def test_what_was_cancelled_while_no_endpoint_was_there_does_not_begin(beside, tmp_path):
    ran = tmp_path / "ran"
    task_id = beside.submit(note_and_hold, str(ran), str(tmp_path / "note"))
    beside.cancel(task_id)

    with UserEndpointProcess(beside, tmp_path):
        assert cancelled(beside.result_of(task_id)).startswith(BEFORE)
        assert not ran.exists()


def test_an_endpoint_that_is_told_to_stop_while_a_task_is_being_ended_answers_for_it(beside, tmp_path):
    ran, note = tmp_path / "ran", tmp_path / "note"
    config = PROCESSES.replace("engine:\n", "engine:\n  cancel_grace: 600\n") + "shutdown_grace: 0.5\n"
    with UserEndpointProcess(beside, tmp_path, config=config) as endpoint:
        task_id = beside.submit(note_and_hold_on, str(ran), str(note))
        assert wait_for(note.exists)
        beside.cancel(task_id)
        assert wait_for((tmp_path / "asked").exists)

        endpoint.process.terminate()

        assert "and ended with the endpoint" in cancelled(beside.result_of(task_id))
        assert endpoint.process.wait(30) == ExitStatus.OK
        assert not runs(int(ran.read_text()))


def test_a_task_that_waits_for_a_block_is_cancelled_at_once(beside, tmp_path):
    """A block begins with waiting for a line that nobody writes."""
    gate: Path = tmp_path / "gate"
    os.mkfifo(gate)
    config = PARSL.replace("    init_blocks: 1\n", f"    init_blocks: 1\n    worker_init: read line <{gate}\n")
    with UserEndpointProcess(beside, tmp_path, config=config):
        task_id = beside.submit(double, 1)
        beside.cancel(task_id)

        assert cancelled(beside.result_of(task_id)).startswith(BEFORE)
