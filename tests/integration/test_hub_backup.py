"""`compute-hub backup` beside a hub that runs, and `restore` when it doesn't."""

from __future__ import annotations

import json
import sqlite3
import stat
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pika
import pytest

from endpoint.errors import ExitStatus
from endpoint.wire.codec import encode
from endpoint.wire.messages import Result
from tests.support.brokers import RunningBroker
from tests.support.hubs import Credentials, HubProcess, RunningHub, clean_environment
from tests.support.waiting import wait_for

COMPUTE_SCOPE = "https://auth.globus.org/scopes/facd7ccc-c5f4-42aa-916b-a0e270e2c2a9/all"


class Hubs:
    """A hub with a virtual host of its own, started again and again."""

    def __init__(self, broker: RunningBroker, directory: Path) -> None:
        self.directory = directory
        self.database = directory / "hub.db"
        self._broker = broker
        self._running: HubProcess | None = None

    def start(self) -> RunningHub:
        arguments = [*self._broker.serve_arguments(self.directory, vhost="backup"), "--port", "0"]
        self._running = HubProcess(arguments, log=self.directory / "hub.stderr")
        return RunningHub(url=self._running.url, directory=self.directory, process=self._running)

    def stop(self) -> None:
        if self._running is not None:
            assert self._running.stop() == 0
            self._running = None

    def run(self, *arguments: str, status: int = 0) -> dict[str, Any]:
        done = subprocess.run(
            [sys.executable, "-m", "endpoint.cli.hub", *arguments, "--database", str(self.database), "--json"],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=60,
            env=clean_environment({}),
        )
        assert done.returncode == status, f"{done.returncode}: {done.stdout}{done.stderr}"
        document: dict[str, Any] = json.loads(done.stdout)
        return document


@pytest.fixture
def hubs(broker: RunningBroker, tmp_path: Path) -> Iterator[Hubs]:
    made = Hubs(broker, tmp_path)
    yield made
    made.stop()


class Caller:
    """A client identity that is logged in."""

    def __init__(self, hub: RunningHub, credentials: Credentials) -> None:
        answer = httpx.post(
            f"{hub.url}/v2/oauth2/token",
            auth=(credentials.client_id, credentials.client_secret),
            data={"grant_type": "client_credentials", "scope": COMPUTE_SCOPE},
            trust_env=False,
        )
        answer.raise_for_status()
        token = answer.json()["access_token"]
        self._http = httpx.Client(base_url=hub.url, headers={"Authorization": f"Bearer {token}"}, trust_env=False)

    def call(self, method: str, path: str, body: Any = None) -> Any:
        answer = self._http.request(method, path, json=body)
        assert answer.status_code == 200, answer.text
        return answer.json()

    def submit(self, endpoint_id: str, function_id: str) -> str:
        """A task's id."""
        body = {"tasks": {function_id: ["5\n11\n[]5\n11\n{}"]}, "create_queue": False}
        answer = self.call("POST", f"/v3/endpoints/{endpoint_id}/submit", body)
        return str(answer["tasks"][function_id][0])


def answer(registration: dict[str, Any], task_id: str) -> None:
    """Send a task's result, as the endpoint does."""
    queue = registration["result_queue_info"]
    where = queue["queue_publish_kwargs"]
    with pika.BlockingConnection(pika.URLParameters(queue["connection_url"])) as connection:
        channel = connection.channel()
        channel.confirm_delivery()
        channel.basic_publish(
            where["exchange"], where["routing_key"], encode(Result(task_id, "11\n42")), mandatory=True
        )


def test_clients_tasks_and_results_are_there_again_and_what_came_later_is_not(hubs: Hubs, tmp_path: Path) -> None:
    hub, copy = hubs.start(), tmp_path / "copy.db"
    alice = hub.client("alice")
    caller = Caller(hub, alice)
    function = caller.call("POST", "/v3/functions", {"function_name": "f", "function_code": "4\n00\nX"})
    endpoint = caller.call("POST", "/v2/endpoints", {"endpoint_name": "ep", "metadata": {}})
    done, waiting = (caller.submit(endpoint["endpoint_id"], function["function_uuid"]) for _ in range(2))
    answer(endpoint, done)
    assert wait_for(lambda: "result" in caller.call("GET", f"/v2/tasks/{done}"), 20)

    made = hubs.run("backup", str(copy))
    later = hub.client("later")

    assert stat.S_IMODE(copy.stat().st_mode) == 0o600
    assert (made["file"], made["layout"]) == (str(copy), 1)
    assert made["counts"] == {"clients": 1, "people": 0, "endpoints": 1, "functions": 1, "tasks": 2}
    assert sorted(path.name for path in tmp_path.iterdir() if "copy" in path.name) == ["copy.db"], "nothing beside it"

    refused = hubs.run("restore", str(copy), status=ExitStatus.ALREADY_RUNNING)
    assert str(hub.process.process.pid) in refused["error"]["reason"]
    hubs.stop()
    restored = hubs.run("restore", str(copy))
    assert stat.S_IMODE(hubs.database.stat().st_mode) == 0o600
    with sqlite3.connect(restored["former"]) as former:
        assert former.execute("SELECT count(*) FROM clients").fetchone() == (2,)

    fresh = hubs.start()
    again = Caller(fresh, alice)
    assert again.call("GET", f"/v2/functions/{function['function_uuid']}")["function_name"] == "f"
    assert again.call("GET", f"/v2/tasks/{done}")["result"] == "11\n42"
    assert again.call("GET", f"/v2/tasks/{waiting}")["status"] == "waiting-for-ep"
    assert [one["uuid"] for one in again.call("GET", "/v2/endpoints")] == [endpoint["endpoint_id"]]
    with pytest.raises(httpx.HTTPStatusError):
        Caller(fresh, later)


def test_a_copy_is_not_written_over_unless_that_is_asked_for(hubs: Hubs, tmp_path: Path) -> None:
    hubs.run("client", "create", "one")
    copy = tmp_path / "copy.db"
    copy.write_text("precious")

    refused = hubs.run("backup", str(copy), status=ExitStatus.USAGE)

    assert "--force" in refused["error"]["hint"]
    assert copy.read_text() == "precious"
    assert hubs.run("backup", str(copy), "--force")["counts"]["clients"] == 1


def test_what_is_no_copy_of_a_hub_is_refused_and_changes_nothing(hubs: Hubs, tmp_path: Path) -> None:
    hubs.run("client", "create", "one")
    text, other, newer = tmp_path / "text", tmp_path / "other.db", tmp_path / "newer.db"
    text.write_text("not a database, and long enough to be looked at\n" * 40)
    with sqlite3.connect(other) as connection:
        connection.execute("CREATE TABLE things (id)")
    hubs.run("backup", str(newer))
    with sqlite3.connect(newer) as connection:
        connection.execute("PRAGMA user_version = 99")

    says = {
        path.name: hubs.run("restore", str(path), status=ExitStatus.BAD_CONFIG)["error"]["reason"]
        for path in (text, other, newer, tmp_path / "nowhere")
    }

    assert "file is not a database" in says["text"]
    assert "is not the database of a hub" in says["other.db"]
    assert "has layout 99" in says["newer.db"]
    assert "There is no file" in says["nowhere"]
    assert len(hubs.run("client", "list")) == 1


def test_a_database_that_is_damaged_can_be_replaced_and_is_kept(hubs: Hubs, tmp_path: Path) -> None:
    hubs.run("client", "create", "one")
    copy = tmp_path / "copy.db"
    hubs.run("backup", str(copy))
    hubs.database.write_bytes(b"\0" * 5000)

    restored = hubs.run("restore", str(copy))

    assert Path(restored["former"]).read_bytes() == b"\0" * 5000
    assert len(hubs.run("client", "list")) == 1
