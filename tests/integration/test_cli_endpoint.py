"""The commands that run endpoints, against a real hub and a real broker."""

from __future__ import annotations

import json
import os
import select
import signal
import socket
import subprocess
import sys
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import psutil
import pytest

from endpoint.errors import ExitStatus
from endpoint.lease import Lease
from tests.support.hubs import RunningHub, clean_environment

PROGRAM = str(Path(sys.executable).with_name("globus-compute-endpoint"))


class Site:
    """One compute directory, and one identity at the hub. Ends what its endpoints left running."""

    def __init__(self, directory: Path, environment: dict[str, str]) -> None:
        self.directory = directory
        self.environment = clean_environment({**environment, "GLOBUS_COMPUTE_USER_DIR": str(directory)})
        self._foreground: list[subprocess.Popen[str]] = []

    def run(self, *args: str, status: int = 0) -> subprocess.CompletedProcess[str]:
        done = subprocess.run(
            [PROGRAM, *args], env=self.environment, capture_output=True, text=True, timeout=60, stdin=subprocess.DEVNULL
        )
        assert done.returncode == status, f"{args}: {done.returncode}\n{done.stdout}\n{done.stderr}"
        return done

    def json(self, *args: str, status: int = 0) -> Any:
        return json.loads(self.run(*args, "--json", status=status).stdout)

    def configure(self, name: str) -> Path:
        self.run("configure", name)
        return self.directory / name

    def start(self, *args: str) -> subprocess.Popen[str]:
        process = subprocess.Popen(
            [PROGRAM, "start", *args],
            env=self.environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        self._foreground.append(process)
        return process

    def end(self) -> None:
        for process in self._foreground:
            if process.poll() is None:
                process.kill()
            process.communicate()
        for path in self.directory.glob("*/daemon.pid"):
            try:
                process = psutil.Process(json.loads(path.read_text())["pid"])
                process.kill()
                process.wait(10)
            except (OSError, ValueError, psutil.NoSuchProcess):
                continue


def line_of(process: subprocess.Popen[str], words: str, stream: str = "stderr") -> str:
    """The next line on the process's stream that has `words`."""
    for line in getattr(process, stream):
        if words in line:
            return str(line)
    raise AssertionError(f"it ended without saying {words!r}")


def ended(pid: int) -> bool:
    try:
        psutil.Process(pid).wait(30)
    except psutil.NoSuchProcess:
        return True
    return True


@pytest.fixture(scope="module")
def identity(hub: RunningHub) -> dict[str, str]:
    return hub.client_env("cli")


@pytest.fixture
def site(tmp_path: Path, identity: dict[str, str]) -> Iterator[Site]:
    found = Site(tmp_path / "gc", identity)
    yield found
    found.end()


def test_start_prints_the_id_on_stdout_and_ends_with_ctrl_c(site: Site) -> None:
    directory = site.configure("one")
    process = site.start("one")
    line_of(process, "Connected")
    endpoint_id = json.loads((directory / "endpoint.json").read_text())["endpoint_id"]
    (listed,) = site.json("list")
    assert (listed["id"], listed["status"], listed["pid"]) == (endpoint_id, "Running", process.pid)
    assert site.json("status", endpoint_id)["service"]["status"] == "online"
    assert f"process {process.pid}" in site.run("start", "one", status=ExitStatus.ALREADY_RUNNING).stderr
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=30)
    assert process.returncode == 0, err
    assert out == f"        >>> Endpoint ID: {endpoint_id} <<<\n"
    assert "Traceback" not in err
    assert site.json("list")[0]["status"] == "Stopped"


def test_detached_endpoint_runs_on_and_keeps_its_id_over_a_restart(site: Site) -> None:
    site.configure("one")
    first = site.run("start", "one", "--detach").stdout
    assert ">>> Endpoint ID: " in first
    (listed,) = site.json("list")
    assert psutil.Process(listed["pid"]).is_running()
    assert f"process {listed['pid']}" in site.run("start", "one", "--detach", status=ExitStatus.ALREADY_RUNNING).stderr
    assert site.run("restart", "one", "--detach").stdout == first
    (again,) = site.json("list")
    assert again["pid"] != listed["pid"]
    assert ended(listed["pid"])
    site.run("stop", "one")
    assert ended(again["pid"])
    assert "not running" in site.run("stop", "one").stderr


def test_detached_start_shows_the_failure_of_its_process(site: Site) -> None:
    directory = site.configure("one")
    (directory / "config.yaml").write_text("display_nam: x\n")
    done = site.run("start", "one", "--detach", status=ExitStatus.BAD_CONFIG)
    assert "display_nam" in done.stderr
    assert done.stderr.count("What to do next") <= 1
    assert "display_nam" in (directory / "endpoint.log").read_text()


@pytest.mark.parametrize("how", [(), ("--detach",)])
def test_start_without_a_service_ends_with_the_status_for_networks(site: Site, how: tuple[str, ...]) -> None:
    directory = site.configure("one")
    site.environment.pop("http_proxy")
    site.environment |= {f"GLOBUS_SDK_SERVICE_URL_{name}": "http://127.0.0.1:9" for name in ("AUTH", "COMPUTE")}
    done = site.run("start", "one", *how, status=ExitStatus.NETWORK)
    assert "can't be reached" in done.stderr
    assert "can't be reached" in (directory / "endpoint.log").read_text()
    assert not (directory / "daemon.pid").exists()


def test_start_of_an_endpoint_for_several_users_is_refused(site: Site) -> None:
    site.run("configure", "many", "--multi-user", "true", "--contact-email", "a@b.org")
    assert "maps users" in site.run("start", "many", status=ExitStatus.BAD_CONFIG).stderr


def test_ctrl_c_while_the_service_keeps_silent_ends_quietly(site: Site) -> None:
    directory = site.configure("one")
    site.environment.pop("http_proxy")
    with socket.create_server(("127.0.0.1", 0)) as silent:
        url = f"http://127.0.0.1:{silent.getsockname()[1]}"
        site.environment |= {f"GLOBUS_SDK_SERVICE_URL_{name}": url for name in ("AUTH", "COMPUTE")}
        process = site.start("one")
        connection, _ = silent.accept()
        with connection:
            process.send_signal(signal.SIGINT)
            _, err = process.communicate(timeout=30)
    assert process.returncode == ExitStatus.INTERRUPTED
    assert err.strip() == "Registering the endpoint one ..."
    assert not (directory / "daemon.pid").exists()


def test_start_with_wrong_credentials_says_so(site: Site) -> None:
    site.configure("one")
    site.environment["GLOBUS_COMPUTE_CLIENT_SECRET"] = "wrong"
    assert "refused" in site.run("start", "one", status=ExitStatus.FAILED).stderr


def test_start_under_an_id_that_the_service_does_not_have_is_refused(site: Site) -> None:
    site.configure("one")
    site.run("start", "one", "--endpoint-uuid", str(uuid.uuid4()), status=ExitStatus.ENDPOINT_BLOCKED)
    site.run("start", "one", "--endpoint-uuid", "mine", status=ExitStatus.USAGE)


@pytest.mark.slow  # a lease is looked at every 15 seconds
def test_endpoint_stops_when_its_pid_file_is_removed(site: Site) -> None:
    directory = site.configure("one")
    process = site.start("one")
    line_of(process, "Connected")
    (directory / "daemon.pid").unlink()
    process.communicate(timeout=40)
    assert process.returncode == 0
    assert "removed by another process" in (directory / "endpoint.log").read_text()


def test_remote_stop_reaches_at_once_an_endpoint_that_is_known_by_its_id_only(site: Site, tmp_path: Path) -> None:
    site.configure("one")
    process = site.start("one")
    endpoint_id = line_of(process, "Endpoint ID", "stdout").split()[3]
    line_of(process, "Connected")
    elsewhere = Site(tmp_path / "login2", {**site.environment})
    elsewhere.run("stop", endpoint_id, status=ExitStatus.BAD_CONFIG)
    elsewhere.run("stop", "--remote", endpoint_id)
    readable, _, _ = select.select([process.stdout], [], [], 3)
    assert readable, "it still runs"
    _, said = process.communicate(timeout=5)
    assert process.returncode == ExitStatus.ENDPOINT_BLOCKED
    assert "answered 423" in said
    assert "{" not in said, "the answer's reason is enough"


def test_status_shows_the_user_endpoints_as_their_leases_tell(site: Site) -> None:
    directory = site.configure("one")
    endpoint_id = str(uuid.uuid4())
    (directory / "endpoint.json").write_text(json.dumps({"endpoint_id": endpoint_id}))
    running, killed, gone = (f"uep.{endpoint_id}.{uuid.uuid4()}" for _ in range(3))
    for name in (running, killed, gone):
        (site.directory / name).mkdir()
    with Lease.take(site.directory / running / "daemon.pid") as lease:
        (site.directory / killed / "daemon.pid").write_text(
            lease.path.read_text().replace(f'"pid": {os.getpid()},', '"pid": 4194305,')
        )
        found = {entry["name"]: entry for entry in site.json("status", "one")["user_endpoints"]}
        shown = site.run("status", "one").stdout

    assert (found[running]["status"], found[running]["pid"]) == ("Running", os.getpid())
    assert (found[killed]["status"], found[killed]["pid"]) == ("Disconnected", None)
    assert (found[gone]["status"], found[gone]["pid"]) == ("Stopped", None)
    assert running.rpartition(".")[2] in shown


def test_delete_takes_the_endpoint_from_the_service_and_from_the_disk(site: Site) -> None:
    directory = site.configure("one")
    site.run("start", "one", "--detach")
    endpoint_id = site.json("list")[0]["id"]
    site.run("delete", "one", "--yes", status=ExitStatus.ALREADY_RUNNING)
    site.run("delete", "one", "--yes", "--force")
    assert not directory.exists()
    site.configure("two")
    site.run("start", "two", "--endpoint-uuid", endpoint_id, status=ExitStatus.ENDPOINT_BLOCKED)


def test_client_identity_logs_in_is_known_and_logs_out(site: Site) -> None:
    site.run("login", "--force")
    (shown,) = site.json("whoami")
    assert shown["id"] == site.environment["GLOBUS_COMPUTE_CLIENT_ID"]
    assert shown["username"].endswith("@clients.auth.globus.org")
    assert site.json("whoami", "--linked-identities")[0] == shown
    assert (site.directory / "storage.db").stat().st_mode & 0o777 == 0o600
    site.run("logout")


def test_login_of_a_person_shows_where_and_needs_the_code(site: Site, hub: RunningHub) -> None:
    for name in ("GLOBUS_COMPUTE_CLIENT_ID", "GLOBUS_COMPUTE_CLIENT_SECRET"):
        site.environment.pop(name)
    said = site.run("login", status=ExitStatus.FAILED).stderr
    address = next(line for line in said.splitlines() if line.startswith("http"))
    asked = parse_qs(urlsplit(address).query)
    assert asked["redirect_uri"] == [f"{hub.url.rstrip('/')}/v2/web/auth-code"]
    assert asked["access_type"] == ["offline"]
    assert "openid" in asked["scope"][0].split()


def test_credential_file_serves_as_the_login(site: Site, tmp_path: Path) -> None:
    path = tmp_path / "credentials"
    path.touch(mode=0o600)
    names = ("GLOBUS_COMPUTE_CLIENT_ID", "GLOBUS_COMPUTE_CLIENT_SECRET")
    path.write_text("".join(f"{name}={site.environment.pop(name)}\n" for name in names))
    site.environment["GLOBUS_COMPUTE_CREDENTIAL_FILE"] = str(path)
    assert site.json("whoami")[0]["id"] in path.read_text()
