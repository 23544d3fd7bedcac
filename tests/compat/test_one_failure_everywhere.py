"""One failure, wherever somebody reads it: the terminal, the log, the 422, the future's exception. And no secrets."""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from tests.support.hubs import RunningHub, clean_environment, hub_environment
from tests.support.managed import AS_ORDINARY_USER, TEMPLATE, ManagedEndpoint
from tests.support.recorder import Recorder, passwords_in
from tests.support.user_endpoint import BIN

PROGRAM = BIN / "globus-compute-endpoint"
OPTIONS = {"workers": "many"}
CODE = "BAD_USER_OPTIONS"
# Keeps the start document, which has the user endpoint's own credentials, before the program reads it.
KEEPING_THE_DOCUMENT = '#!/bin/sh\ncat > "$HOME/$2.document"\nexec {program} "$@" < "$HOME/$2.document"\n'
USER = """
import json
import sys

from globus_compute_sdk import Client, Executor
from globus_sdk import GlobusAPIError

endpoint_id, options = sys.argv[1], json.loads(sys.argv[2])
answer = {}


def add(a, b):
    return a + b


def fail():
    raise ValueError("a user's mistake")


def error_of(future):
    try:
        return future.result(60)
    except Exception as error:
        return str(error)


client = Client()
batch = client.create_batch(user_endpoint_config=options)
batch.add(client.register_function(add), args=(1, 2))
try:
    client.batch_run(endpoint_id, batch)
except GlobusAPIError as error:
    answer["status"], answer["document"] = error.http_status, error.raw_json
with Executor(endpoint_id=endpoint_id, user_endpoint_config=options) as executor:
    answer["future"] = error_of(executor.submit(add, 1, 2))
with Executor(endpoint_id=endpoint_id) as executor:
    answer["value"] = executor.submit(add, 1, 2).result(60)
    answer["mistake"] = error_of(executor.submit(fail))
    executor.resource_specification = {"num_nodes": 2}
    refused = executor.submit(add, 1, 2)
    answer["refused"], answer["refused_task"] = error_of(refused), refused.task_id
print(json.dumps(answer))
"""


@dataclass
class Run:
    """What the user got, what `render-user-config` says, what the logs have, and what must be in none of them."""

    answer: dict[str, Any]
    rendered: subprocess.CompletedProcess[str]
    logs: dict[Path, str]
    manager_log: str
    user_log: str
    secrets: set[str]


@pytest.fixture(scope="module", params=["text", "json"])
def log_format(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture(scope="module")
def run(hub: RunningHub, peer_sdk_python: Path, log_format: str, tmp_path_factory: Any) -> Iterator[Run]:
    """One life of an endpoint that logs everything it can: a refusal, a result, a user's mistake, and the end."""
    directory = tmp_path_factory.mktemp("endpoint")
    programs = tmp_path_factory.mktemp("programs")
    (programs / "globus-compute-endpoint").write_text(KEEPING_THE_DOCUMENT.format(program=PROGRAM))
    (programs / "globus-compute-endpoint").chmod(0o755)
    client = hub.client(f"reader-of-{log_format}")
    settings = f"log_format: {log_format}\ndebug: true\n"
    with Recorder(hub.url) as recorder:
        env = {**hub_environment(recorder.url), **client.env}
        endpoint = ManagedEndpoint(PROGRAM, directory, env, user_bin=programs, extra_config=settings)
        endpoint.configure()
        (endpoint.folder / "user_config_template.yaml.j2").write_text(TEMPLATE + settings)
        endpoint.start()
        try:
            answer = play(peer_sdk_python, env, endpoint.endpoint_id)
            rendered = render(endpoint)
        finally:
            endpoint.__exit__()
    documents = [path.read_text() for path in directory.glob("*.document")]
    assert documents, "the user endpoint's credentials are to be known"
    known = {client.client_secret}.union(recorder.secrets, *map(passwords_in, documents))
    known |= {json.loads(document)["enckey"] for document in documents}
    files = [*directory.glob("*/endpoint.log*"), directory / "stdout", hub.process.log]
    logs = {path: path.read_text(errors="replace") for path in files}
    user_log = next(text for path, text in logs.items() if path.parent.name.startswith("uep."))
    yield Run(answer, rendered, logs, logs[endpoint.folder / "endpoint.log"], user_log, known)


def play(python: Path, env: dict[str, str], endpoint_id: str) -> dict[str, Any]:
    done = subprocess.run(
        [str(python), "-c", USER, endpoint_id, json.dumps(OPTIONS)],
        env=clean_environment(env),
        capture_output=True,
        text=True,
        timeout=110,
    )
    assert done.returncode == 0, f"{done.stdout}\n{done.stderr}"
    return dict(json.loads(done.stdout.splitlines()[-1]))


def render(endpoint: ManagedEndpoint) -> subprocess.CompletedProcess[str]:
    (endpoint.directory / "options.json").write_text(json.dumps(OPTIONS))
    return subprocess.run(
        [*AS_ORDINARY_USER, str(PROGRAM), "render-user-config", "-e", "lab", "-o", endpoint.directory / "options.json"],
        env=endpoint.env,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
    )


def messages(log: str, log_format: str) -> str:
    """The log as a person reads it."""
    return "\n".join(entry["message"] for entry in entries(log)) if log_format == "json" else log


def entries(log: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in log.splitlines()]


def test_a_refused_option_is_the_same_failure_wherever_it_is_read(run: Run, log_format: str) -> None:
    assert run.rendered.returncode == os.EX_CONFIG
    first_line = run.rendered.stderr.splitlines()[0]
    reason = first_line.rpartition(" [")[0]
    assert "workers" in reason
    assert run.answer["status"] == 422
    for where, text in {
        "the terminal": run.rendered.stderr,
        "the manager's log": messages(run.manager_log, log_format),
        "the service's answer": run.answer["document"]["reason"],
        "the future": run.answer["future"],
    }.items():
        assert reason in text, where
        assert f"render: {CODE}]" in text, where


def test_the_endpoint_that_refused_one_user_configuration_runs_another(run: Run) -> None:
    assert run.answer["value"] == 3
    assert "a user's mistake" in run.answer["mistake"]


def test_no_log_of_the_run_has_a_secret(run: Run) -> None:
    assert len(run.secrets) > 5
    for path, text in run.logs.items():
        assert text, path
        for secret in run.secrets:
            assert secret not in text, f"{path} has {secret}"


def test_json_lines_have_their_fields(run: Run, log_format: str) -> None:
    if log_format == "text":
        assert not run.manager_log.lstrip().startswith("{")
        return
    lines = entries(run.manager_log)
    refused = next(line for line in lines if line.get("code") == CODE and line["level"] == "ERROR")
    assert refused["stage"] == "render"
    assert refused["user_endpoint"] != refused["endpoint"]
    started = next(line for line in lines if line["message"].startswith("Started uep."))
    assert started["user_endpoint"] in started["message"]
    lines = entries(run.user_log)
    assert all(line["user_endpoint"] == started["user_endpoint"] for line in lines)
    (refused,) = [line for line in lines if line["level"] == "WARNING"]
    assert (refused["task"], refused["stage"]) == (run.answer["refused_task"], "task")
    assert refused["code"] in run.answer["refused"]
