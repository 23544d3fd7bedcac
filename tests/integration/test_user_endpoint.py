"""A user endpoint as a process, against a real RabbitMQ: tasks in, results out, and everything that can go wrong."""

from __future__ import annotations

import contextlib
import json
import os
import re
import signal
import subprocess
import sys
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from urllib.parse import urlsplit

import psutil
import pytest
from cryptography.fernet import Fernet
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from endpoint.errors import ExitStatus
from endpoint.lease import read_lease
from endpoint.wire.codec import encode
from endpoint.wire.messages import Task
from tests.support.proxy import Proxy
from tests.support.user_endpoint import THREADS, Queues, UserEndpointProcess, headers, packed

GONE_S = 20
UNENCRYPTED = "high_assurance: true\nengine:\n  type: GlobusComputeEngine\n  encrypted: false\n"
TASK_ID = "7b3d0c5e-6f0e-4a57-8b0a-2f1e6d9c4b11"


@pytest.fixture
def queues(broker) -> Iterator[Queues]:
    with Queues(broker.amqp_url) as made:
        yield made


@pytest.fixture
def running(queues, tmp_path) -> Iterator[UserEndpointProcess]:
    """A user endpoint with a thread pool that has sent its first heartbeat."""
    with UserEndpointProcess(queues, tmp_path) as endpoint:
        assert queues.next_heartbeat()["active"] is True, endpoint.log
        yield endpoint


def double(x):
    return 2 * x


def fail():
    raise ValueError("this is the user's own mistake")


def nap(seconds, value):
    import time

    time.sleep(seconds)
    return value


def note_and_nap(path, number):
    import time

    with open(path, "a") as notes:
        notes.write(f"{number}\n")
    time.sleep(0.02)
    return number


def note_and_sleep(path, number, seconds):
    import time

    with open(path, "a") as notes:
        notes.write(f"{number}\n")
    time.sleep(seconds)
    return number


def test_a_function_is_run_and_its_result_is_sent(running, queues):
    assert queues.value_of(queues.submit(double, 21)) == 42


def test_a_function_that_raises_is_an_error_result_with_its_traceback(running, queues):
    result = queues.result_of(queues.submit(fail))

    assert result.error_details.code == "RemoteExecutionError"
    assert "ValueError: this is the user's own mistake" in result.data


def test_a_task_is_acknowledged_only_after_its_result(queues, tmp_path):
    again = THREADS.replace("engine:\n", "engine:\n  max_retries_on_system_failure: 1\n")  # it may have begun
    with UserEndpointProcess(queues, tmp_path, config=again) as running:
        assert queues.next_heartbeat()["active"]
        task_id = queues.submit(nap, 1, "done")
        running.process.send_signal(signal.SIGKILL)
        running.process.wait(GONE_S)

    assert wait_for_messages(queues, queues.task, 1), "the task of the killed endpoint went back to its queue"

    with UserEndpointProcess(queues, tmp_path, config=again):
        assert queues.value_of(task_id) == "done"


def test_the_first_heartbeat_tells_true_facts(queues, tmp_path):
    with UserEndpointProcess(queues, tmp_path) as endpoint:
        state = queues.next_heartbeat()

    assert state["posix_pid"] == endpoint.process.pid
    assert state["posix_uid"] == os.getuid()
    assert state["heartbeat_period"] == 5
    assert state["engine_type"] == "ThreadPoolEngine"
    assert state["total_workers"] == 2
    assert abs(state["start_unix"] - time.time()) < 60


def test_many_tasks_are_all_answered_once(running, queues):
    tasks = {queues.submit(double, number): 2 * number for number in range(300)}

    assert {task_id: queues.value_of(task_id) for task_id in tasks} == tasks
    assert queues.unexpected_results() == []


@pytest.mark.parametrize(
    ("body", "told"),
    [
        (b"", "task"),
        (b"\x01", "task"),
        (b"\x02{}", "task"),
        (b"\x01{not json", "task"),
        (b"\x01" + json.dumps({"message_type": "dance", "data": {}}).encode(), "task"),
        (b"\x01" + json.dumps({"message_type": "task", "data": {"task_id": "x"}}).encode(), "task"),
        (encode(Task(TASK_ID, "999999\nshort")), "buffer"),
        (encode(Task(TASK_ID, "3\nzz\n0\n0\n")), "strategy"),
        (encode(Task(str(uuid.uuid4()), "0\n0\n0\n")), "another task"),
    ],
)
def test_a_body_that_is_no_task_gets_an_error_result_and_the_endpoint_lives_on(running, queues, body, told):
    queues.publish(body, headers(TASK_ID))

    result = queues.result_of(TASK_ID)

    assert result.error_details is not None
    assert told in result.data.lower()
    assert queues.value_of(queues.submit(double, 4)) == 8


@pytest.mark.parametrize(
    "wrong",
    [
        {"function_uuid": None},
        {"function_uuid": "not-a-uuid"},
        {"resource_specification": "{"},
        {"resource_specification": "[1]"},
        {"result_serializers": "x"},
    ],
)
def test_wrong_headers_get_an_error_result_that_names_the_header(running, queues, wrong):
    task_id = str(uuid.uuid4())
    queues.publish(encode(Task(task_id, packed(double, (1,), {}))), headers(task_id, **wrong))

    result = queues.result_of(task_id)

    assert next(iter(wrong)) in result.error_details.user_message


@pytest.mark.parametrize("nobody", [None, {}, {"task_uuid": 5}, {"task_uuid": "zz", "function_uuid": "zz"}])
def test_a_message_without_a_task_id_is_dropped_logged_and_does_no_harm(running, queues, nobody):
    queues.publish(b"\x01{}", nobody)

    assert queues.value_of(queues.submit(double, 5)) == 10
    assert queues.waiting(queues.task) == 0
    assert "dropped" in running.log


JUNK_HEADERS = st.dictionaries(
    st.sampled_from(["task_uuid", "function_uuid", "resource_specification", "result_serializers", "other"]),
    st.none() | st.booleans() | st.integers(-5, 5) | st.text(max_size=40) | st.lists(st.text(max_size=5), max_size=3),
)
JUNK_BODIES = st.binary(max_size=200) | st.binary(max_size=200).map(lambda raw: b"\x01" + raw)


@settings(max_examples=6, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(st.tuples(JUNK_BODIES, JUNK_HEADERS, st.booleans()), min_size=10, max_size=40))
def test_whatever_comes_each_task_gets_one_answer_and_the_endpoint_lives_on(running, queues, messages):
    expected = set()
    for body, junk, has_task_id in messages:
        task_id = str(uuid.uuid4())
        queues.publish(body, {**junk, "task_uuid": task_id} if has_task_id else {**junk, "task_uuid": None})
        expected |= {task_id} if has_task_id else set()

    for task_id in expected:
        assert queues.result_of(task_id).error_details is not None
    assert queues.value_of(queues.submit(double, 8)) == 16
    assert running.process.poll() is None


def test_a_function_that_is_not_on_the_list_is_refused_in_the_protocols_words(queues, tmp_path):
    allowed = str(uuid.uuid4())
    with UserEndpointProcess(queues, tmp_path, allowed_functions=[allowed]):
        refused_id, allowed_id = str(uuid.uuid4()), str(uuid.uuid4())
        refused = headers(refused_id)
        queues.publish(encode(Task(refused_id, packed(double, (1,), {}))), refused)
        queues.publish(encode(Task(allowed_id, packed(double, (1,), {}))), headers(allowed_id, function_uuid=allowed))

        result = queues.result_of(refused_id)

        assert result.error_details.code == "FUNCTION_NOT_ALLOWED"
        expected = f"Function {refused['function_uuid']} not permitted on endpoint {queues.endpoint_id}"
        assert result.data == expected
        assert queues.value_of(allowed_id) == 2


def test_a_polite_stop_lets_running_tasks_end_and_leaves_waiting_ones_in_the_queue(running, queues):
    short = [queues.submit(nap, 1, number) for number in range(2)]
    assert wait_until_begun(running, 2)

    running.process.terminate()

    assert running.process.wait(GONE_S) == ExitStatus.OK
    assert {queues.value_of(task_id) for task_id in short} == {0, 1}
    while (state := queues.next_heartbeat())["active"]:
        pass
    assert state["active"] is False
    assert queues.waiting(queues.task) == 0


QUICK = THREADS + "shutdown_grace: 0.5\n"
RETRYING = (
    "engine:\n  type: ThreadPoolEngine\n  max_workers: 2\n  max_retries_on_system_failure: 1\n"
    "heartbeat_period: 5\nshutdown_grace: 0.5\n"
)


def test_a_task_that_a_stop_interrupts_is_told_of_before_the_end(queues, tmp_path):
    with UserEndpointProcess(queues, tmp_path, config=QUICK) as endpoint:
        long_id = queues.submit(nap, 8, "late")
        assert wait_until_begun(endpoint, 1)
        endpoint.process.terminate()

        result = queues.result_of(long_id)

        assert result.error_details.code == "TASK_INTERRUPTED"
        assert re.search(r"started on \S+ at [-0-9]+ [:0-9+]+, the endpoint stopped before it finished", result.data)
        assert endpoint.process.wait(GONE_S) == ExitStatus.OK
        assert queues.waiting(queues.task) == 0


def test_a_task_that_may_run_again_is_left_to_the_next_start(queues, tmp_path):
    with UserEndpointProcess(queues, tmp_path, config=RETRYING) as endpoint:
        long_id = queues.submit(nap, 3, "late")
        assert wait_until_begun(endpoint, 1)
        endpoint.process.terminate()
        assert endpoint.process.wait(GONE_S) == ExitStatus.OK
        assert queues.waiting(queues.task) == 1

        endpoint.start()
        assert queues.value_of(long_id) == "late"
        second_id = queues.submit(nap, 8, "never")
        for times in (1, 2):
            assert wait_until_begun(endpoint, times, second_id)
            endpoint.process.kill()
            endpoint.process.wait(GONE_S)
            endpoint.start()
        assert queues.result_of(second_id).error_details.code == "TASK_INTERRUPTED"


def test_after_a_kill_what_had_begun_is_told_of_and_what_had_not_runs_once(queues, tmp_path):
    ran = tmp_path / "ran"
    with UserEndpointProcess(queues, tmp_path) as endpoint:
        tasks = [queues.submit(note_and_sleep, str(ran), number, 1) for number in range(6)]
        assert wait_until(lambda: ran.exists() and len(ran.read_text().split()) == 2)
        endpoint.process.kill()
        endpoint.process.wait(GONE_S)
        killed = time.monotonic()
        endpoint.start()

        results = [queues.result_of(task_id) for task_id in tasks]

        told = [result for result in results if result.error_details]
        assert {result.error_details.code for result in told} == {"TASK_INTERRUPTED"}
        assert len(told) == 2
        assert sorted(ran.read_text().split()) == list("012345")
        assert time.monotonic() - killed < 10
        assert queues.unexpected_results() == []


def test_what_has_not_begun_at_a_stop_is_back_with_the_broker_at_once(queues, tmp_path):
    ran = tmp_path / "ran"
    with UserEndpointProcess(queues, tmp_path) as endpoint:
        tasks = [queues.submit(note_and_sleep, str(ran), number, 1) for number in range(8)]
        assert wait_until_begun(endpoint, 2)
        endpoint.process.terminate()
        assert endpoint.process.wait(3) == ExitStatus.OK
        assert queues.waiting(queues.task) == 6

        endpoint.start()
        assert sorted(queues.value_of(task_id) for task_id in tasks) == list(range(8))
    assert sorted(ran.read_text().split()) == list("01234567")


def test_a_task_older_than_the_ack_deadline_is_acknowledged_and_answered_also_by_the_next_process(queues, tmp_path):
    config = RETRYING + "ack_deadline: 1\n"
    with UserEndpointProcess(queues, tmp_path, config=config) as endpoint:
        queues.next_heartbeat()
        task_id = queues.submit(nap, 4, "kept")
        spool = tmp_path / "uep" / "spool"
        assert wait_until(lambda: "kept on the disk, and acknowledged" in endpoint.log)
        time.sleep(0.2)  # what was acknowledged is sent in the loop's next turn
        endpoint.process.kill()
        endpoint.process.wait(GONE_S)
        assert queues.waiting(queues.task) == 0, "the broker has forgotten it"

        endpoint.start()

        assert queues.value_of(task_id) == "kept"
        assert wait_until(lambda: not list(spool.iterdir()))
        assert queues.unexpected_results() == []


def under_a_manager(queues, directory, config=THREADS) -> tuple[subprocess.Popen[str], psutil.Process]:
    """A user endpoint that another process than this one has started: that process, and the endpoint's."""
    script = (
        "import os, subprocess, sys\n"
        "document = sys.stdin.read().replace('\"PARENT\"', str(os.getpid()))\n"
        "child = subprocess.Popen(sys.argv[1:], stdin=subprocess.PIPE, text=True, start_new_session=True)\n"
        "child.stdin.write(document); child.stdin.close(); print(child.pid, flush=True); sys.stdin = None\n"
        "child.wait()\n"
    )
    endpoint = UserEndpointProcess(queues, directory, config=config, ep_info={"posix_ppid": "PARENT"})
    manager = subprocess.Popen(
        [sys.executable, "-c", script, *endpoint._command, "_start-user-endpoint", "uep"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, "GLOBUS_COMPUTE_USER_DIR": str(directory)},
    )
    manager.stdin.write(json.dumps(endpoint._document))
    manager.stdin.close()
    with manager.stdout:
        return manager, psutil.Process(int(manager.stdout.readline()))


def test_an_endpoint_whose_manager_is_gone_stops(queues, tmp_path):
    manager, child = under_a_manager(queues, tmp_path)
    assert queues.next_heartbeat()["active"]

    manager.kill()
    manager.wait()

    child.wait(GONE_S)
    assert queues.next_heartbeat()["active"] is False


def test_a_second_process_of_a_user_endpoint_is_refused_and_the_first_goes_on_unharmed(running, queues):
    with UserEndpointProcess(queues, running.directory) as second:
        assert second.process.wait(GONE_S) == ExitStatus.ALREADY_RUNNING

    assert f"process {running.process.pid} on this host" in running.log
    assert read_lease(running.directory / "uep" / "daemon.pid").pid == running.process.pid
    assert queues.value_of(queues.submit(double, 6)) == 12
    while queues.waiting(queues.heartbeat):
        assert "error" not in queues.next_heartbeat(), "it is not the first one's failure"


@pytest.mark.slow  # a lease is looked at every 15 seconds
def test_a_user_endpoint_whose_pid_file_is_removed_stops(running, queues):
    (running.directory / "uep" / "daemon.pid").unlink()

    assert running.process.wait(30) == ExitStatus.OK
    assert "PID file was removed" in running.log


def test_a_user_endpoint_waits_for_the_one_of_a_manager_that_was_killed(queues, tmp_path):
    manager, child = under_a_manager(queues, tmp_path, THREADS + "shutdown_grace: 12\n")
    assert queues.next_heartbeat()["active"]
    note = tmp_path / "note"
    # Longer than a process needs to start on a busy machine.
    long_id = queues.submit(note_and_sleep, str(note), "slow", 9)
    assert wait_until(note.exists), "what has not begun is given back, and then there is nobody to wait for"
    manager.kill()
    manager.wait()

    with UserEndpointProcess(queues, tmp_path) as second:
        child.wait(GONE_S)
        assert queues.value_of(long_id) == "slow"
        assert queues.value_of(queues.submit(double, 8)) == 16
        assert note.read_text() == "slow\n", "it ran once"
        assert f"Waiting for process {child.pid}" in second.log


def test_an_idle_endpoint_stops_by_itself(queues, tmp_path):
    with UserEndpointProcess(queues, tmp_path, config=THREADS + "idle_heartbeats_soft: 1\n") as endpoint:
        assert queues.value_of(queues.submit(double, 1)) == 2

        assert endpoint.process.wait(30) == ExitStatus.OK
        assert "idle_heartbeats_soft" in endpoint.log


def test_a_cut_connection_loses_no_task_and_runs_none_twice(broker, tmp_path):
    ran = tmp_path / "ran"
    with Proxy(urlsplit(broker.amqp_url).port) as proxy:
        url = broker.amqp_url.replace(f":{urlsplit(broker.amqp_url).port}", f":{proxy.port}")
        with Queues(broker.amqp_url, endpoint_url=url) as queues, UserEndpointProcess(queues, tmp_path) as endpoint:
            queues.next_heartbeat()
            tasks = {queues.submit(note_and_nap, str(ran), number): number for number in range(60)}
            for delay in (0.2, 0.35, 0.5, 0.6, 0.75):
                threading.Timer(delay, proxy.cut).start()

            for task_id, number in tasks.items():
                assert queues.value_of(task_id) == number, endpoint.log
            assert proxy.accepted > 1
    assert sorted(map(int, ran.read_text().split())) == list(range(60))


def test_renewed_credentials_are_used_when_the_connection_comes_back(broker, tmp_path):
    key = Fernet.generate_key()
    descriptor = os.memfd_create("credentials")
    with Proxy(urlsplit(broker.amqp_url).port) as proxy:
        url = broker.amqp_url.replace(f":{urlsplit(broker.amqp_url).port}", f":{proxy.port}")
        with (
            Queues(broker.amqp_url, endpoint_url=url) as queues,
            UserEndpointProcess(queues, tmp_path, mem_fd=descriptor, enckey=key.decode()),
        ):
            queues.next_heartbeat()
            queues._endpoint_url = broker.amqp_url
            renewed = json.dumps({"amqp_creds": queues.registration()}).encode()
            os.pwrite(descriptor, Fernet(key).encrypt(renewed), 0)

            proxy.refuse()

            assert queues.value_of(queues.submit(double, 3)) == 6
    os.close(descriptor)


@pytest.mark.parametrize(
    ("config", "status", "told"),
    [
        ("engine:\n  type: ThreadPoolEngin\n", ExitStatus.BAD_CONFIG, "ThreadPoolEngine"),
        ("engine: [", ExitStatus.BAD_CONFIG, ":1:10:"),
        ("heartbeat_period: 30\n", ExitStatus.BAD_CONFIG, "engine"),
        (THREADS + "endpoint_setup: 'echo no module; exit 3'\n", ExitStatus.BAD_CONFIG, "status 3: no module"),
        (UNENCRYPTED, ExitStatus.BAD_CONFIG, "engine.encrypted: must be true: the endpoint is a high-assurance one"),
    ],
)
def test_a_failed_start_is_told_to_the_service_the_log_and_the_parent(queues, tmp_path, config, status, told):
    with UserEndpointProcess(queues, tmp_path, config=config) as endpoint:
        notice = queues.next_heartbeat()

        assert told in notice["error"]
        assert endpoint.process.wait(GONE_S) == status
        assert told in endpoint.log
        assert "Traceback" not in endpoint.log


def test_setup_and_teardown_commands_run_around_the_endpoints_life(queues, tmp_path):
    marks = tmp_path / "marks"
    config = THREADS + f"endpoint_setup: echo up >> {marks}\nendpoint_teardown: echo down >> {marks}\n"
    with UserEndpointProcess(queues, tmp_path, config=config):
        queues.next_heartbeat()
        assert marks.read_text() == "up\n"

    assert marks.read_text() == "up\ndown\n"


def test_directory_and_log_are_where_the_manager_says(queues, tmp_path, monkeypatch):
    monkeypatch.setenv("GLOBUS_COMPUTE_ENDPOINT_DIR", str(tmp_path / "elsewhere"))
    monkeypatch.setenv("GLOBUS_COMPUTE_LOG_PATH", str(tmp_path / "logs" / "mine.log"))
    with UserEndpointProcess(queues, tmp_path):
        queues.next_heartbeat()

        assert (tmp_path / "elsewhere" / "daemon.pid").exists()
        assert "Waiting for tasks" in (tmp_path / "logs" / "mine.log").read_text()


def test_a_stop_is_heard_while_the_broker_is_away(broker, tmp_path):
    with Proxy(urlsplit(broker.amqp_url).port) as proxy:
        proxy.refuse()
        url = broker.amqp_url.replace(f":{urlsplit(broker.amqp_url).port}", f":{proxy.port}")
        with Queues(broker.amqp_url, endpoint_url=url) as queues, UserEndpointProcess(queues, tmp_path) as endpoint:
            assert wait_until(lambda: "connecting again" in endpoint.log)

            endpoint.process.terminate()

            assert endpoint.process.wait(5) == ExitStatus.OK


def test_a_broker_that_refuses_the_credentials_ends_the_endpoint_with_a_clear_status(broker, tmp_path):
    with Queues(broker.amqp_url) as queues:
        parts = urlsplit(broker.amqp_url)
        queues._endpoint_url = f"amqp://nobody:s3cret@{parts.hostname}:{parts.port}/%2F"
        with UserEndpointProcess(queues, tmp_path) as endpoint:
            assert endpoint.process.wait(60) == ExitStatus.NETWORK
            assert "refuses our credentials" in endpoint.log
            assert "s3cret" not in endpoint.log


def test_a_start_document_that_is_none_is_a_clear_error(tmp_path):
    command = [str(Path(sys.executable).parent / "globus-compute-endpoint"), "_start-user-endpoint", "uep"]
    done = subprocess.run(
        command,
        input="{}",
        text=True,
        capture_output=True,
        env={**os.environ, "GLOBUS_COMPUTE_USER_DIR": str(tmp_path)},
        timeout=30,
    )

    assert done.returncode == ExitStatus.BAD_CONFIG
    assert "start document" in (tmp_path / "uep" / "endpoint.log").read_text()


def wait_until_begun(endpoint: UserEndpointProcess, count: int, task_id: str = "") -> bool:
    """Whether so many starts (of that task) are noted in time."""
    journal = endpoint.directory / "uep" / "journal"

    def begun() -> int:
        lines: list[str] = []
        for path in journal.glob("*.log"):
            with contextlib.suppress(FileNotFoundError):  # the endpoint puts two of them into one
                lines += path.read_text().splitlines()
        return sum(line.startswith(f"S {task_id}") for line in lines)

    return wait_until(lambda: begun() >= count)


def wait_until_taken(queues: Queues, timeout: float = 10) -> bool:
    """Whether the endpoint has taken all tasks from their queue in time."""
    return wait_for_messages(queues, queues.task, 0, timeout)


def wait_for_messages(queues: Queues, queue: str, count: int, timeout: float = 10) -> bool:
    return wait_until(lambda: queues.waiting(queue) == count, timeout)


def wait_until(condition: Callable[[], bool], timeout: float = 10) -> bool:
    """Whether the condition came true in time."""
    deadline = time.monotonic() + timeout
    while not condition():
        if time.monotonic() > deadline:
            return False
        time.sleep(0.05)
    return True


def test_a_broker_that_is_away_shows_in_the_status(broker, tmp_path):
    port = urlsplit(broker.amqp_url).port
    with Proxy(port) as proxy:
        url = broker.amqp_url.replace(f":{port}", f":{proxy.port}")
        with Queues(broker.amqp_url, endpoint_url=url) as queues, UserEndpointProcess(queues, tmp_path) as endpoint:
            queues.next_heartbeat()
            assert wait_until(lambda: said_of(endpoint)["broker"]["state"] == "connected")
            assert said_of(endpoint)["engine"]["state"] == "running"

            proxy.refuse()

            assert wait_until(lambda: said_of(endpoint)["broker"]["state"] == "reconnecting")
            assert "No connection to the broker" in said_of(endpoint)["broker"]["reason"]
            proxy.accept_again()
            assert wait_until(lambda: said_of(endpoint)["broker"]["state"] == "connected")
        assert not (endpoint.directory / "uep" / "status.json").exists()


def said_of(endpoint):
    return json.loads((endpoint.directory / "uep" / "status.json").read_text())


def test_an_interchange_that_is_killed_is_replaced_and_what_had_begun_is_told_of(queues, tmp_path):
    ran = tmp_path / "ran"
    config = (
        "engine:\n  type: GlobusComputeEngine\n  max_workers_per_node: 1\n  address: 127.0.0.1\n"
        "  provider:\n    type: LocalProvider\n    init_blocks: 1\n    max_blocks: 1\nheartbeat_period: 5\n"
    )
    with UserEndpointProcess(queues, tmp_path, config=config) as endpoint:
        tasks = [queues.submit(note_and_sleep, str(ran), number, 1.5) for number in range(3)]
        assert wait_until(lambda: ran.exists(), 30)
        [interchange] = [
            child
            for child in psutil.Process(endpoint.process.pid).children()
            if "interchange" in child.name() or "interchange" in " ".join(child.cmdline())
        ]
        interchange.kill()
        killed = time.monotonic()

        first = queues.result_of(tasks[0])

        assert first.error_details.code == "TASK_INTERRUPTED"
        assert "the engine stopped before it finished" in first.data
        assert time.monotonic() - killed < 10
        assert [queues.value_of(task_id) for task_id in tasks[1:]] == [1, 2]
        assert endpoint.process.poll() is None
    assert ran.read_text().split() == ["0", "1", "2"]


def test_many_tasks_that_get_too_old_at_once_are_all_kept(queues, tmp_path):
    with UserEndpointProcess(queues, tmp_path, config=THREADS + "ack_deadline: 1\n") as endpoint:
        queues.next_heartbeat()
        tasks = [queues.submit(nap, 2.5, number) for number in range(10)]

        assert wait_until(lambda: endpoint.log.count("kept on the disk, and acknowledged") == 10, 20)

        assert [queues.value_of(task_id, 60) for task_id in tasks] == list(range(10))
        assert wait_until(lambda: not list((tmp_path / "uep" / "spool").iterdir()))
        assert queues.unexpected_results() == []
