"""`doctor` as people and programs run it, on endpoints that are well and on some that are not."""

from __future__ import annotations

import json
import os
import pty
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest
from globus_sdk.token_storage import SQLiteTokenStorage, TokenStorageData
from jsonschema import Draft202012Validator

from endpoint.doctor.stages import STAGES
from endpoint.errors import ExitStatus
from endpoint.lease import Lease
from tests.support.doctors import LOCAL, PROGRAM, Patient, everything_below, local
from tests.support.hubs import RunningHub

NAMES = [stage.name for stage in STAGES]
VERDICT = {"enum": ["ok", "warning", "failed", "not tried"]}
FINDING = {
    "type": "object",
    "required": ["verdict", "words", "facts", "mender", "next_step", "detail", "code"],
    "additionalProperties": False,
    "properties": {
        "verdict": VERDICT,
        "words": {"type": "string", "minLength": 5},
        "facts": {"type": "object"},
        "mender": {"enum": ["user", "admin", "service", "developer", None]},
        "next_step": {"type": "string"},
        "detail": {"type": "string"},
        "code": {"type": "string", "pattern": "^[A-Z_]*$"},
    },
    # Whatever is not well says what to do, and a failure has a code.
    "if": {"properties": {"verdict": {"const": "failed"}}},
    "then": {"properties": {"code": {"minLength": 2}, "mender": {"type": "string"}}},
}
DOCUMENT = {
    "type": "object",
    "required": ["endpoint", "version", "verdict", "exit_status", "interrupted", "seconds", "stages"],
    "additionalProperties": False,
    "properties": {
        "endpoint": {
            "type": "object",
            "required": ["name", "directory"],
            "additionalProperties": False,
            "properties": {"name": {"type": "string"}, "directory": {"type": "string"}},
        },
        "version": {"type": "string"},
        "verdict": VERDICT,
        "exit_status": {"type": "integer"},
        "interrupted": {"type": "boolean"},
        "seconds": {"type": "number", "minimum": 0},
        "stages": {
            "type": "array",
            "items": {
                "type": "object",
                "required": ["name", "title", "verdict", "seconds", "findings"],
                "additionalProperties": False,
                "properties": {
                    "name": {"enum": NAMES},
                    "title": {"type": "string"},
                    "verdict": VERDICT,
                    "seconds": {"type": "number", "minimum": 0},
                    "findings": {"type": "array", "items": FINDING, "minItems": 1},
                },
            },
        },
    },
}


@pytest.fixture(scope="module")
def identity(hub: RunningHub) -> dict[str, str]:
    return hub.client_env("doctor")


@pytest.fixture
def patient(tmp_path: Path, identity: dict[str, str]) -> Iterator[Patient]:
    found = Patient(tmp_path / "gc", dict(identity))
    found.configure()
    yield found
    found.end()


def test_an_endpoint_that_is_well_passes_every_stage(patient: Patient, hub: RunningHub) -> None:
    found = patient.examine()

    assert found.status == 0, str(found)
    assert found.verdicts() == dict.fromkeys(NAMES, "ok"), str(found)
    assert found.with_fact("service", "median_ms")["facts"]["median_ms"] > 0
    assert found.with_fact("service", "url")["facts"]["url"] == hub.url
    assert found.with_fact("broker", "product")["facts"]["product"] == "RabbitMQ"
    (reached,) = found.findings("interface")
    assert reached["facts"]["host"] == os.uname().nodename
    assert reached["facts"]["addresses"][0]["latency_ms"] < 1000
    python = found.with_fact("workers", "python")["facts"]
    assert (python["python"], python["modules"]["dill"]) == (sys.executable, "0.3.9")
    assert found.document["seconds"] < 60


def test_people_read_one_line_for_each_thing_and_a_summary(patient: Patient) -> None:
    done = patient.run()

    assert done.returncode == 0, done.stdout
    titles = [line for line in done.stdout.splitlines() if line and not line.startswith(" ")]
    assert titles[:-1] == [stage.title for stage in STAGES]
    assert titles[-1].startswith("All is well (")
    assert done.stderr == ""


def test_programs_read_one_document_of_a_known_form(patient: Patient) -> None:
    healthy, ill = patient.examine("--no-job"), None
    (patient.folder / "config.yaml").write_text("display_nam: x\n")
    ill = patient.examine("--no-job")

    for found in (healthy, ill):
        assert not list(Draft202012Validator(DOCUMENT).iter_errors(found.document)), found.document
        assert [stage["name"] for stage in found.document["stages"]] == NAMES
        assert found.document["exit_status"] == found.status


def test_nothing_is_registered_written_or_left_behind(patient: Patient, hub: RunningHub) -> None:
    before = everything_below(patient.directory)
    assert patient.examine().status == 0
    assert everything_below(patient.directory) == before
    listed = subprocess.run(
        [PROGRAM, "list", "--json"], env=patient.environment, capture_output=True, text=True, timeout=60, check=True
    )
    assert [entry["id"] for entry in json.loads(listed.stdout)] == [None]


def test_secrets_are_never_shown(patient: Patient) -> None:
    secret = patient.variables["GLOBUS_COMPUTE_CLIENT_SECRET"]
    patient.variables["https_proxy"] = "http://user:hunter22@127.0.0.1:9"
    patient.variables["HTTPS_PROXY"] = "http://a-proxys-token@127.0.0.1:9"
    done = [patient.run("--no-job"), patient.run("--no-job", "--json"), patient.run("--no-job", "--debug")]
    for one in done:
        assert "Web service" in one.stdout
        for hidden in (secret, "hunter22", "a-proxys-token"):
            assert hidden not in one.stdout + one.stderr


def test_a_running_endpoint_is_told_of_and_not_disturbed(patient: Patient) -> None:
    process = subprocess.Popen(
        [PROGRAM, "start", "lab"], env=patient.environment, stdin=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True
    )
    try:
        assert process.stderr is not None
        assert any("Connected" in line for line in process.stderr)
        found = patient.examine()
        assert process.poll() is None
        assert found.status == 0, str(found)
        running = found.with_fact("configuration", "state")
        assert running["facts"] == {"state": "running", "pid": process.pid, "host": os.uname().nodename}
        assert f"process {process.pid} of the endpoint" in found.with_fact("broker", "source")["facts"]["source"]
        assert found.with_fact("broker", "product")["facts"]["product"] == "RabbitMQ"
        assert found.with_fact("service", "endpoint_id")["facts"]["status"] == "online"
    finally:
        process.terminate()
        process.communicate(timeout=60)


def test_every_problem_of_a_configuration_is_told_with_its_place(patient: Patient) -> None:
    (patient.folder / "config.yaml").write_text("display_nam: x\ndebug: maybe\nheartbeat_period: 30\n")
    found = patient.examine()

    assert found.status == ExitStatus.BAD_CONFIG
    problems = found.findings("configuration", "failed")
    assert [(one["facts"]["line"], one["facts"]["column"]) for one in problems] == [(1, 1), (2, 1)]
    assert problems[0]["words"].startswith(f"{patient.folder / 'config.yaml'}:1:1: display_nam: ")
    for name in ("credentials", "service", "broker", "template"):
        assert found.stage(name)["verdict"] == "not tried"
        assert "the endpoint's configuration can't be used" in found.findings(name)[0]["words"]
    assert found.stage("machine")["verdict"] == "ok"


def test_an_endpoint_that_is_not_there_is_a_sentence(patient: Patient) -> None:
    patient.name = "nowhere"
    done = patient.run()
    assert done.returncode == ExitStatus.BAD_CONFIG
    assert "There is no endpoint 'nowhere'" in done.stderr


def test_without_a_login_the_rest_is_still_tried(patient: Patient) -> None:
    for name in ("GLOBUS_COMPUTE_CLIENT_ID", "GLOBUS_COMPUTE_CLIENT_SECRET"):
        del patient.variables[name]
    found = patient.examine("--no-job")

    assert found.status == ExitStatus.FAILED
    assert found.failure("credentials")["code"] == "LOGIN_REQUIRED"
    assert found.stage("service")["verdict"] == "ok"
    assert "told at registration" in found.findings("broker", "not tried")[0]["words"]
    assert found.stage("engine")["verdict"] == "ok"
    assert not (patient.directory / "storage.db").exists()


def test_a_wrong_secret_is_refused_by_the_service_and_told(patient: Patient) -> None:
    patient.variables["GLOBUS_COMPUTE_CLIENT_SECRET"] = "wrong"
    found = patient.examine("--no-job")
    assert found.status == ExitStatus.FAILED
    assert found.failure("credentials")["code"] == "LOGIN_REFUSED"


def test_a_credential_file_that_others_can_read_is_refused(patient: Patient) -> None:
    (patient.folder / "client_id").write_text(patient.variables.pop("GLOBUS_COMPUTE_CLIENT_ID"))
    (patient.folder / "client_secret").write_text(patient.variables.pop("GLOBUS_COMPUTE_CLIENT_SECRET"))
    for name, mode in (("client_id", 0o600), ("client_secret", 0o644)):
        (patient.folder / name).chmod(mode)
    found = patient.examine("--no-job")
    assert found.failure("credentials")["code"] == "CREDENTIAL_FILE_OPEN"
    (patient.folder / "client_secret").chmod(0o600)
    found = patient.examine("--no-job")
    assert found.stage("credentials")["verdict"] == "ok"
    source = found.with_fact("credentials", "source")["facts"]
    assert (source["source"], source["mode"]) == (str(patient.folder / "client_id"), "0600")


def test_a_persons_tokens_are_told_by_their_dates_alone(patient: Patient) -> None:
    for name in ("GLOBUS_COMPUTE_CLIENT_ID", "GLOBUS_COMPUTE_CLIENT_SECRET"):
        del patient.variables[name]
    storage = SQLiteTokenStorage(patient.directory / "storage.db", namespace="user/local")
    tokens = {
        "funcx_service": _token("funcx_service", expires=time.time() - 60, refresh=None),
        "auth.globus.org": _token("auth.globus.org", expires=time.time() + 3600, refresh="a-refresh-token"),
    }
    storage.store_token_data_by_resource_server(tokens)
    storage.close()
    done = patient.run("--no-job")

    assert "The token for funcx_service was good until 2" in done.stdout
    assert "it is renewed by itself" in done.stdout
    assert "an-access-token" not in done.stdout + done.stderr
    assert "a-refresh-token" not in done.stdout + done.stderr
    assert done.returncode == ExitStatus.FAILED


def _token(server: str, *, expires: float, refresh: str | None) -> TokenStorageData:
    return TokenStorageData(server, None, "scope", "an-access-token", refresh, int(expires), "Bearer")


def test_the_template_is_tried_with_each_set_of_sample_options(patient: Patient) -> None:
    template = {"engine": local(worker_init="{{ init }}", max_blocks="{{ blocks | default(1) }}")}
    (patient.folder / "user_config_template.yaml").write_text(json.dumps(template))
    schema = {
        "type": "object",
        "properties": {"init": {"type": "string"}, "blocks": {"type": "integer"}},
        "required": ["init"],
        "examples": [{"init": "true"}, {"init": "export A=1", "blocks": 2}],
    }
    (patient.folder / "user_config_schema.json").write_text(json.dumps(schema))
    found = patient.examine()

    tried = [one["facts"]["options"] for one in found.findings("template", "ok")]
    assert tried[:2] == schema["examples"]
    assert [one["facts"]["options"] for one in found.findings("interface", "ok")] == schema["examples"], str(found)
    assert found.status == 0


def test_options_of_a_users_own_are_tried_instead_and_their_faults_are_the_users(patient: Patient) -> None:
    template = {"engine": {"type": "ThreadPoolEngine", "max_workers": "{{ workers }}"}}
    (patient.folder / "user_config_template.yaml").write_text(json.dumps(template))
    (patient.folder / "user_config_schema.json").unlink()
    good = patient.examine("--user-options", '{"workers": 3}', "--no-job")
    assert [one["facts"]["options"] for one in good.findings("template")] == [{"workers": 3}]
    file = patient.directory / "options.json"
    file.write_text('{"workers": "many"}')
    bad = patient.examine("--user-options", str(file), "--no-job")
    assert bad.status == ExitStatus.BAD_CONFIG
    assert (bad.failure("template")["mender"], bad.failure("template")["code"]) == ("user", "BAD_USER_OPTIONS")
    assert bad.stage("engine")["verdict"] == "not tried"
    assert patient.run("--user-options", "[1]").returncode == ExitStatus.USAGE


def test_a_terminal_shows_what_is_being_looked_at(patient: Patient) -> None:
    ours, theirs = pty.openpty()
    process = subprocess.Popen(
        [PROGRAM, "doctor", "lab"],
        env=patient.environment,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=theirs,
    )
    os.close(theirs)
    shown = b""
    try:
        while piece := _read(ours):
            shown += piece
        assert process.wait(60) == 0
    finally:
        os.close(ours)
        process.kill()
        process.wait()
    lines = shown.decode().split("\r\x1b[K")
    assert "Web service ... " in lines
    assert any(line.startswith("Interface ... job ") for line in lines)
    assert lines[-1] == ""  # nothing of it stays


def _read(descriptor: int) -> bytes:
    """What comes from a terminal; empty at its end."""
    try:
        return os.read(descriptor, 10_000)
    except OSError:
        return b""


def test_a_workers_port_that_the_running_endpoint_has_itself_is_no_failure(patient: Patient) -> None:
    """Its interchange is there already, so doctor's job calls at another one."""
    with socket.create_server(("127.0.0.1", 0)) as taken:
        patient.configure({**LOCAL, "worker_port": taken.getsockname()[1]})
        assert patient.examine().failure("interface")["code"] == "NO_PORT"
        with Lease.take(patient.folder / "daemon.pid"):
            found = patient.examine()
    assert found.stage("interface")["verdict"] == "ok", str(found)


def test_ctrl_c_shows_what_was_found_and_leaves_no_job(patient: Patient, no_process_left: None) -> None:
    patient.configure(local(worker_init="sleep 100051"))
    process = patient.start()
    _wait_for(lambda: _sleeping("100051"))
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=60)

    assert process.returncode == ExitStatus.INTERRUPTED, err
    assert "Credentials\n  ok" in out
    assert "Interface\n  not tried" in out
    assert out.splitlines()[-1].startswith("Interrupted: ")
    assert "Traceback" not in err
    assert not list(patient.folder.glob(".doctor-*"))
    _wait_for(lambda: not _sleeping("100051"))


def test_a_doctor_that_is_terminated_cleans_up_as_well(patient: Patient, no_process_left: None) -> None:
    patient.configure(local(worker_init="sleep 100052"))
    process = patient.start("--json")
    _wait_for(lambda: _sleeping("100052"))
    process.terminate()
    out, _ = process.communicate(timeout=60)

    assert process.returncode == ExitStatus.INTERRUPTED
    document: dict[str, Any] = json.loads(out)
    assert document["interrupted"] is True
    assert [stage["name"] for stage in document["stages"]] == NAMES[: NAMES.index("interface") + 1]
    assert not list(patient.folder.glob(".doctor-*"))
    _wait_for(lambda: not _sleeping("100052"))


def _sleeping(seconds: str) -> list[psutil.Process]:
    """The processes that sleep for just so long, which are this test's."""
    return [one for one in psutil.process_iter(["cmdline"]) if one.info["cmdline"] == ["sleep", seconds]]


def _wait_for(condition: Any, timeout: float = 60) -> None:
    deadline = time.monotonic() + timeout
    while not condition():
        assert time.monotonic() < deadline, "it did not happen in time"
        time.sleep(0.05)
