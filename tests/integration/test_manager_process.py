"""The manager as a process: real broker, real REST, and a stand-in for the user endpoint's program on its PATH."""

from __future__ import annotations

import json
import os
import signal
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit, urlunsplit

import psutil
import pytest

from endpoint.errors import ExitStatus
from tests.support.managers import ManagerProcess, Wire, registering
from tests.support.proxy import Proxy
from tests.support.web_service import OWNER, Answer, WebService


@pytest.fixture
def wire(broker: Any) -> Iterator[Wire]:
    with Wire(broker.amqp_url) as wire:
        yield wire


@pytest.fixture
def manager(wire: Wire, tmp_path: Path) -> Iterator[ManagerProcess]:
    """A manager that is connected."""
    with registering(wire) as service, ManagerProcess(tmp_path, service, config="heartbeat_period: 5\n") as manager:
        assert wire.next_state(wire.heartbeats) == {"heartbeat_period": 5.0}
        yield manager


@pytest.fixture
def user_endpoint() -> str:
    return str(uuid.uuid4())


def refused(wire: Wire, command: Any, **properties: Any) -> str:
    """The failure notice that `command` gets."""
    wire.send(command, **properties)
    state = wire.state_of(command["kwargs"]["amqp_creds"]["endpoint_id"])
    assert state.keys() == {"error", "heartbeat_period"}
    return str(state["error"])


def wait_for_earlier_commands(wire: Wire) -> None:
    """Commands are followed in order: when a later one is answered, those before it are done."""
    refused(wire, wire.start_command(str(uuid.uuid4())) | {"command": "cmd_unknown"})


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGQUIT])
def test_a_manager_is_online_until_a_signal_and_says_goodbye(manager, wire, number):
    manager.process.send_signal(number)

    assert manager.wait() == ExitStatus.OK
    assert wire.next_state(wire.heartbeats) == {"heartbeat_period": 0}


def test_a_manager_sends_heartbeats_again_and_again(manager, wire):
    assert wire.next_state(wire.heartbeats) == {"heartbeat_period": 5.0}


def test_a_started_user_endpoint_finds_everything_that_the_protocol_promises(manager, wire, user_endpoint):
    command = wire.start_command(
        user_endpoint, user_runtime={"python": {"version": "3.11.1"}, "globus_compute_sdk_version": "4.19.0"}
    )
    name, creds = command["kwargs"]["name"], command["kwargs"]["amqp_creds"]

    wire.send(command)
    seen = wire.state_of(user_endpoint)

    assert seen["argv"] == ["_start-user-endpoint", name]
    assert seen["sid"] == seen["pid"], "it leads a session of its own"
    assert seen["umask"] == 0o077
    assert seen["descriptors"] == [0, 1, 2, seen["document"]["mem_fd"]]
    assert not seen["mem_fd_writable"]
    assert seen["credentials"] == creds
    assert seen["document"]["ep_info"] == {"posix_ppid": manager.process.pid}
    assert "ThreadPoolEngine" in seen["document"]["config"]
    assert "allowed_functions" not in seen["document"]
    environment = seen["environment"]
    assert environment["GLOBUS_COMPUTE_ENDPOINT_NAME"] == name
    assert environment["GC_USER_PYTHON_VERSION"] == "3.11.1"
    assert environment["GC_USER_SDK_VERSION"] == "4.19.0"
    assert environment["GLOBUS_COMPUTE_ENDPOINT_DIR"] == str(manager.compute_dir / name)
    assert (manager.compute_dir / name).stat().st_mode & 0o777 == 0o700
    assert seen["cwd"] == environment["HOME"]


def test_a_second_request_renews_the_credentials_of_the_user_endpoint_that_runs(manager, wire, user_endpoint):
    wire.send(wire.start_command(user_endpoint))
    pid = wire.state_of(user_endpoint)["pid"]
    renewed = wire.creds(user_endpoint) | {"renewed": True}

    wire.send(wire.start_command(user_endpoint, amqp_creds=renewed))
    wait_for_earlier_commands(wire)
    os.kill(pid, signal.SIGUSR2)

    assert wire.state_of(user_endpoint) == {"event": "credentials", "credentials": renewed}


def test_a_user_endpoint_that_ends_just_after_a_second_request_is_started_again(manager, wire, user_endpoint):
    wire.send(wire.start_command(user_endpoint))
    first = wire.state_of(user_endpoint)
    wire.send(wire.start_command(user_endpoint, amqp_creds=wire.creds(user_endpoint) | {"renewed": True}))
    wait_for_earlier_commands(wire)

    os.kill(first["pid"], signal.SIGUSR1)
    second = wire.state_of(user_endpoint)

    assert second["event"] == "started"
    assert second["pid"] != first["pid"]
    assert second["credentials"]["renewed"]


def test_what_a_killed_user_endpoint_leaves_behind_is_ended(manager, wire, user_endpoint):
    wire.send(wire.start_command(user_endpoint, user_opts={"mode": "parent"}))
    seen = wire.state_of(user_endpoint)
    child = psutil.Process(seen["child"])

    os.kill(seen["pid"], signal.SIGKILL)

    assert "signal 9 (SIGKILL)" in wire.state_of(user_endpoint)["error"]
    psutil.wait_procs([child], timeout=10)
    assert not child.is_running() or child.status() == psutil.STATUS_ZOMBIE


def test_a_manager_whose_connections_are_cut_comes_back_and_its_user_endpoints_stay(wire, tmp_path):
    ids = [str(uuid.uuid4()) for _ in range(2)]
    parts = urlsplit(wire.amqp_url)
    with Proxy(parts.port) as proxy:
        login = parts.netloc.rpartition("@")[0]
        url = urlunsplit(parts._replace(netloc=f"{login}@127.0.0.1:{proxy.port}"))
        answer = wire.registration(wire.manager_id, heartbeats=wire.heartbeats, url=url)
        service = WebService(lambda _asked, _body: Answer(200, answer))
        with service, ManagerProcess(tmp_path, service):
            wire.send(wire.start_command(ids[0]))
            pid = wire.state_of(ids[0])["pid"]

            proxy.cut()
            wire.send(wire.start_command(ids[1]))

            assert wire.state_of(ids[1])["event"] == "started"
            assert psutil.pid_exists(pid)


def test_several_user_endpoints_run_at_once(manager, wire):
    ids = [str(uuid.uuid4()) for _ in range(4)]

    for endpoint_id in ids:
        wire.send(wire.start_command(endpoint_id))

    assert len({wire.state_of(endpoint_id)["pid"] for endpoint_id in ids}) == 4


def test_a_document_larger_than_a_pipe_arrives(manager, wire, user_endpoint):
    creds = wire.creds(user_endpoint) | {"padding": "x" * 500_000}

    wire.send(wire.start_command(user_endpoint, amqp_creds=creds))

    assert len(wire.state_of(user_endpoint, timeout=40)["credentials"]["padding"]) == 500_000


def test_a_user_endpoint_that_cannot_start_is_reported_with_its_status(manager, wire, user_endpoint):
    text = refused(wire, wire.start_command(user_endpoint, user_opts={"mode": "exit 70"}))

    assert "status 70 (unexpected answer)" in text
    assert "the reason" not in text, "the log is the administrator's"
    assert "the reason, with amqp://user:***@broker/" in manager.log


def test_a_user_endpoint_that_has_told_its_reason_is_not_reported_once_more(manager, wire, user_endpoint):
    wire.send(wire.start_command(user_endpoint, user_opts={"mode": "exit 78"}))
    wire.send(wire.start_command(user_endpoint, user_opts={"mode": "exit 70"}, name="another"))

    assert "status 70" in wire.state_of(user_endpoint)["error"]
    assert wire.waiting(f"beats.{user_endpoint}") == 0


def test_a_command_of_somebody_else_is_refused_and_they_are_told(manager, wire, user_endpoint):
    text = refused(wire, wire.start_command(user_endpoint, sub=str(uuid.uuid4())))

    assert "IDENTITY_NOT_ALLOWED" in text


def test_a_command_that_is_too_old_is_refused_and_they_are_told(manager, wire, user_endpoint):
    assert "COMMAND_TOO_OLD" in refused(wire, wire.start_command(user_endpoint), timestamp=1_700_000_000)


def test_an_unknown_command_is_refused_and_they_are_told(manager, wire, user_endpoint):
    assert "UNKNOWN_COMMAND" in refused(wire, wire.start_command(user_endpoint) | {"command": "cmd_reboot"})


def test_a_name_that_is_taken_by_another_user_endpoint_is_refused(manager, wire, user_endpoint):
    wire.send(wire.start_command(user_endpoint, name="one"))
    pid = wire.state_of(user_endpoint)["pid"]

    assert "NAME_TAKEN" in refused(wire, wire.start_command(str(uuid.uuid4()), name="one"))

    os.kill(pid, signal.SIGUSR2)
    assert wire.state_of(user_endpoint)["credentials"] == wire.creds(user_endpoint), "nothing was handed over"


def test_garbage_in_the_command_queue_disturbs_nobody(manager, wire, user_endpoint):
    for body in (b"", b"\xff\x00", b"[]", b"{}", b'{"kwargs": 1}', b"[" * 10_000):
        wire.send(body)
    wire.send(wire.start_command(user_endpoint), content_type="text/plain")

    wire.send(wire.start_command(user_endpoint))

    assert wire.state_of(user_endpoint)["event"] == "started"
    assert wire.waiting(wire.commands) == 0


def test_options_that_the_template_cannot_take_are_reported_to_the_user(wire, tmp_path, user_endpoint):
    template = "display_name: {{ mode }}\nengine: {type: ThreadPoolEngine}\n"
    with registering(wire) as service, ManagerProcess(tmp_path, service, template=template):
        text = refused(wire, wire.start_command(user_endpoint))

    assert "mode" in text
    assert "BAD_USER_OPTIONS" in text


def test_a_program_that_is_not_there_is_reported_and_the_administrator_told_where(wire, tmp_path, user_endpoint):
    empty = tmp_path / "empty"
    empty.mkdir()
    with registering(wire) as service, ManagerProcess(tmp_path, service, programs=empty) as manager:
        text = refused(wire, wire.start_command(user_endpoint))

        assert "NO_PROGRAM" in text
        assert str(empty) not in text
        assert f"PATH is {empty}" in manager.log


def test_stopping_ends_the_user_endpoints_even_one_that_will_not(manager, wire):
    ids = [str(uuid.uuid4()) for _ in range(2)]
    wire.send(wire.start_command(ids[0]))
    wire.send(wire.start_command(ids[1], user_opts={"mode": "stubborn"}))
    processes = [psutil.Process(wire.state_of(endpoint_id)["pid"]) for endpoint_id in ids]

    manager.process.send_signal(signal.SIGTERM)
    assert [wire.state_of(endpoint_id) for endpoint_id in ids] == [{"event": "terminated"}] * 2
    manager.process.send_signal(signal.SIGTERM)

    assert manager.wait(10) == ExitStatus.OK, "the second signal means now"
    assert not any(process.is_running() for process in processes)


def test_credentials_that_the_broker_refuses_are_renewed_by_registering_again(wire, tmp_path, user_endpoint):
    wrong = wire.amqp_url.replace("://", "://nobody-").replace("nobody-", "nobody-", 1)
    answers = [
        wire.registration(wire.manager_id, heartbeats=wire.heartbeats, url=url) for url in (wrong, wire.amqp_url)
    ]
    service = WebService(lambda _asked, _body: Answer(200, answers.pop(0)))
    with service, ManagerProcess(tmp_path, service):
        wire.next_state(wire.heartbeats, timeout=60)
        wire.send(wire.start_command(user_endpoint))

        assert wire.state_of(user_endpoint)["event"] == "started"
    assert [(method, path) for method, path, _ in service.calls] == [
        ("POST", "/v3/endpoints"),
        ("PUT", f"/v3/endpoints/{wire.manager_id}"),
    ]


def test_a_manager_that_the_service_has_locked_out_ends_with_that_status(wire, tmp_path):
    wrong = wire.amqp_url.replace("://", "://nobody-")
    first = wire.registration(wire.manager_id, heartbeats=wire.heartbeats, url=wrong)
    answers = [Answer(200, first), Answer(423, {"code": "RESOURCE_LOCKED", "reason": "Endpoint was stopped"})]
    with WebService(lambda _asked, _body: answers.pop(0)) as service, ManagerProcess(tmp_path, service) as manager:
        assert manager.wait(10) == ExitStatus.ENDPOINT_BLOCKED

    assert manager.output.count("Endpoint was stopped") == 1
    assert "RESOURCE_LOCKED" in manager.output
    assert "{" not in manager.output, "the reason is enough of the answer"


@pytest.mark.parametrize(
    ("answer", "status", "words"),
    [
        (Answer(400, {"code": "BAD", "reason": "no such policy"}), ExitStatus.REGISTRATION_REFUSED, "no such policy"),
        (Answer(422, {"code": "BAD", "reason": "bad name"}), ExitStatus.REGISTRATION_REFUSED, "bad name"),
        (Answer(404, {"code": "X", "reason": "gone"}), ExitStatus.ENDPOINT_BLOCKED, "gone"),
        (Answer(409, {"code": "X", "reason": "another"}), ExitStatus.ENDPOINT_BLOCKED, "another"),
        (Answer(423, {"code": "X", "reason": "locked"}), ExitStatus.ENDPOINT_BLOCKED, "locked"),
        (Answer(403, {"code": "X", "reason": "not yours"}), ExitStatus.FAILED, "not yours"),
        (Answer(409, {"code": "X", "odd": {"a": 1}}), ExitStatus.ENDPOINT_BLOCKED, "[register: X]"),
        (Answer(418, b"<html>teapot</html>", "text/html"), ExitStatus.UNEXPECTED_ANSWER, "418"),
        (Answer(200, b"<html>hello</html>", "text/html"), ExitStatus.UNEXPECTED_ANSWER, "JSON"),
        (Answer(200, []), ExitStatus.UNEXPECTED_ANSWER, "JSON"),
        (Answer(200, {"endpoint_id": OWNER}), ExitStatus.UNEXPECTED_ANSWER, "heartbeat_queue_info"),
    ],
)
def test_a_registration_that_fails_ends_with_its_status_and_reason(tmp_path, answer, status, words):
    with WebService(lambda _asked, _body: answer) as service, ManagerProcess(tmp_path, service) as manager:
        assert manager.wait() == status

    assert words in manager.output
    assert "Traceback" not in manager.output
    if isinstance(answer.body, dict):
        assert "{" not in manager.output


@pytest.mark.slow
def test_a_broker_that_is_away_at_the_start_ends_with_the_network_status(wire, tmp_path):
    away = wire.registration(wire.manager_id, heartbeats=wire.heartbeats, url="amqp://u:hunter2@127.0.0.1:1/")
    with WebService(lambda _asked, _body: Answer(200, away)) as service, ManagerProcess(tmp_path, service) as manager:
        assert manager.wait(60) == ExitStatus.NETWORK

    assert "hunter2" not in manager.output + manager.log


@pytest.mark.parametrize("missing", ["command", "heartbeat"])
def test_a_registration_whose_queues_are_not_there_ends_in_a_failure_and_not_in_silence(wire, tmp_path, missing):
    answer = wire.registration(wire.manager_id, heartbeats="no-such" if missing == "heartbeat" else wire.heartbeats)
    if missing == "command":
        answer["command_queue_info"]["queue"] = "no-such"
    answers = [Answer(200, answer), Answer(423, {"code": "LOCKED", "reason": "enough of the test"})]
    with WebService(lambda _asked, _body: answers.pop(0)) as service, ManagerProcess(tmp_path, service) as manager:
        assert manager.wait(60) != ExitStatus.OK

    assert "no queue" in manager.output if missing == "heartbeat" else "no-such" in manager.log
    assert "Traceback" not in manager.output


def test_what_is_registered_is_what_the_official_endpoint_registers(wire, tmp_path):
    config = f"display_name: My machine\npublic: true\nallowed_functions: [{OWNER}]\nadmins: [{OWNER}]\n"
    with registering(wire) as service, ManagerProcess(tmp_path, service, config=config) as manager:
        wire.next_state(wire.heartbeats)

    _, _, body = service.calls[0]
    metadata = body.pop("metadata")
    assert body == {
        "endpoint_name": "ep",
        "display_name": "My machine",
        "public": True,
        "high_assurance": False,
        "allowed_functions": [OWNER],
        "admins": [OWNER],
    }
    assert metadata["endpoint_config"] == config
    assert "ThreadPoolEngine" in metadata["user_config_template"]
    assert metadata.keys() == {
        "endpoint_version",
        "python_version",
        "hostname",
        "local_user",
        "endpoint_config",
        "user_config_template",
        "user_config_schema",
    }
    assert manager.endpoint_dir.joinpath("endpoint.json").read_text() == f'{{"endpoint_id": "{wire.manager_id}"}}'


def test_the_audit_log_of_the_configuration_has_the_session_and_its_starts(wire, tmp_path, user_endpoint):
    path = tmp_path / "audit.log"
    with registering(wire) as service, ManagerProcess(tmp_path, service, config=f"audit_log_path: {path}\n"):
        wire.send(wire.start_command(user_endpoint))
        seen = wire.state_of(user_endpoint)

    lines = [json.loads(line) for line in path.read_text().splitlines()]
    assert [line["event"] for line in lines] == ["log-opened", "session-begin", "start", "session-end"]
    assert lines[2]["identity_name"] == "owner@example.org"
    assert seen["document"]["audit_fd"] in seen["descriptors"]
