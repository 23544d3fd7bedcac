"""`compute-hub`, as somebody at a terminal meets it."""

from __future__ import annotations

import json
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import httpx
import pika
import psutil
import pytest
from pika.exceptions import ProbableAuthenticationError

from endpoint.errors import ExitStatus
from tests.support.hubs import Credentials, HubProcess, clean_environment

COMPUTE_SCOPE = "https://auth.globus.org/scopes/facd7ccc-c5f4-42aa-916b-a0e270e2c2a9/all"


def compute_hub(*arguments: str, timeout: float = 60, **env: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "endpoint.cli.hub", *arguments],
        capture_output=True,
        text=True,
        timeout=timeout,
        env=clean_environment(env),
    )


def ask_for_token(url: str, credentials: Credentials) -> httpx.Response:
    return httpx.post(
        f"{url}/v2/oauth2/token",
        auth=(credentials.client_id, credentials.client_secret),
        data={"grant_type": "client_credentials", "scope": COMPUTE_SCOPE},
        trust_env=False,
    )


@pytest.fixture(scope="module")
def directory(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("embedded-hub")


@pytest.fixture(scope="module")
def embedded_hub(directory: Path) -> Iterator[HubProcess]:
    hub = HubProcess(["--embedded", str(directory), "--port", "0"], log=directory / "stderr")
    yield hub
    hub.stop()


def create_client(directory: Path, name: str) -> Credentials:
    done = compute_hub("client", "create", name, "--directory", str(directory))
    assert (done.returncode, done.stderr) == (0, "")
    variables = dict(line.removeprefix("export ").split("=") for line in done.stdout.splitlines())
    return Credentials(variables["GLOBUS_COMPUTE_CLIENT_ID"], variables["GLOBUS_COMPUTE_CLIENT_SECRET"])


def test_a_created_client_gets_tokens_until_it_is_deleted(embedded_hub, directory):
    alice = create_client(directory, "alice")
    token = ask_for_token(embedded_hub.url, alice).json()["access_token"]
    answer = httpx.get(
        f"{embedded_hub.url}/v2/get_amqp_result_connection_url",
        headers={"Authorization": f"Bearer {token}"},
        trust_env=False,
    )
    amqp = pika.URLParameters(answer.json()["connection_url"])
    pika.BlockingConnection(amqp).close()

    listed = compute_hub("client", "list", "--directory", str(directory))
    assert "alice" in listed.stdout
    assert alice.client_id in listed.stdout
    assert alice.client_secret not in listed.stdout

    deleted = compute_hub("client", "delete", "alice", "--directory", str(directory))
    assert (deleted.returncode, deleted.stdout) == (0, f"Deleted {alice.client_id}\n")
    assert ask_for_token(embedded_hub.url, alice).status_code == 401
    with pytest.raises(ProbableAuthenticationError):
        pika.BlockingConnection(amqp)


def test_a_second_hub_on_the_same_directory_says_which_one_runs(embedded_hub, directory):
    second = compute_hub("serve", "--embedded", str(directory), "--port", "0")
    assert second.returncode == 73
    assert f"process {embedded_hub.process.pid}" in second.stderr
    assert "Traceback" not in second.stderr


def test_a_port_that_is_taken_is_named_before_anything_starts(tmp_path):
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        done = compute_hub("serve", "--embedded", str(tmp_path / "hub"), "--port", str(port))
    assert done.returncode == 73
    assert f"127.0.0.1:{port}" in done.stderr
    assert not (tmp_path / "hub" / "broker").exists()


def test_secrets_are_in_no_log(embedded_hub, directory):
    secret = create_client(directory, "logged").client_secret
    password = json.loads((directory / "broker" / "node.json").read_text())["password"]
    for log in [directory / "hub.log", directory / "stderr", *(directory / "broker" / "log").iterdir()]:
        assert secret not in log.read_text()
        assert password not in log.read_text()


def test_a_stopped_hub_leaves_nothing_and_comes_back_with_its_clients_until_its_broker_dies(tmp_path):
    hub = HubProcess(["--embedded", str(tmp_path), "--port", "0"], log=tmp_path / "stderr")
    credentials = create_client(tmp_path, "lasting")
    children = psutil.Process(hub.process.pid).children(recursive=True)
    assert {"beam.smp", "epmd"} <= {child.name() for child in children}
    status = hub.stop()
    assert (status, (tmp_path / "stderr").read_text()) == (0, "")
    assert still_running(children) == []

    again = HubProcess(["--embedded", str(tmp_path), "--port", "0"], log=tmp_path / "stderr")
    try:
        assert ask_for_token(again.url, credentials).status_code == 200
        node = next(c for c in psutil.Process(again.process.pid).children(recursive=True) if c.name() == "beam.smp")
        node.kill()
        assert again.process.wait(30) == 75
    finally:
        again.stop()
    assert "The embedded RabbitMQ ended with status -9" in (tmp_path / "stderr").read_text()


def still_running(processes: list[psutil.Process]) -> list[psutil.Process]:
    """Those that are neither gone nor zombies after some seconds; a helper of the node ends a moment after it."""
    deadline = time.monotonic() + 5
    while (left := [p for p in processes if not has_ended(p)]) and time.monotonic() < deadline:
        psutil.wait_procs(left, timeout=0.1)
    return left


def has_ended(process: psutil.Process) -> bool:
    try:
        return process.status() == psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return True


def test_ctrl_c_is_a_clean_end(broker, tmp_path):
    hub = HubProcess([*broker.serve_arguments(tmp_path, vhost="ctrl-c"), "--port", "0"], log=tmp_path / "stderr")
    hub.process.send_signal(signal.SIGINT)
    assert hub.process.wait(30) == 0
    hub.stop()


def test_a_hub_that_is_stopped_while_its_broker_starts_ends_cleanly(tmp_path):
    command = [sys.executable, "-m", "endpoint.cli.hub", "serve", "--embedded", str(tmp_path), "--port", "0"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as hub:
        assert hub.stdout is not None
        assert hub.stdout.readline().startswith("Starting RabbitMQ")
        deadline = time.monotonic() + 10
        while not (children := psutil.Process(hub.pid).children()) and time.monotonic() < deadline:
            pass
        hub.terminate()
        _, errors = hub.communicate(timeout=30)
    assert (hub.returncode, errors) == (0, "")
    assert children
    assert still_running(children) == []


def test_a_hub_is_what_its_file_says_and_the_command_line_wins(tmp_path):
    (tmp_path / "hub.yaml").write_text(
        "directory: data\n"
        "listen: {host: no.such.host.invalid, port: 0}\n"
        "log_format: json\n"
        "logins: {token_lifetime: 3600}\n"
    )
    hub = HubProcess(["--config", str(tmp_path / "hub.yaml"), "--host", "127.0.0.1"], log=tmp_path / "stderr")
    try:
        alice = create_client(tmp_path / "data", "alice")
        assert ask_for_token(hub.url, alice).json()["expires_in"] == 3600
    finally:
        status = hub.stop()
    assert (status, (tmp_path / "stderr").read_text()) == (0, "")
    assert (tmp_path / "data" / "broker" / "node.json").exists()
    lines = [json.loads(line) for line in (tmp_path / "data" / "hub.log").read_text().splitlines()]
    assert lines


def test_a_broker_that_a_file_names_is_used_whatever_the_variable_says(broker, tmp_path, monkeypatch):
    monkeypatch.setenv("COMPUTE_HUB_DIR", str(tmp_path / "by-variable"))
    (tmp_path / "broker-password").write_text(broker.password)
    (tmp_path / "hub.yaml").write_text(
        f"database: hub.db\n"
        f"listen: {{port: 0}}\n"
        f"log_file: hub.log\n"
        f"broker:\n"
        f"  amqp_url: {broker.amqp_base}/by-file\n"
        f"  management_url: {broker.management_url}\n"
        f"  user: {broker.user}\n"
        f"  password_file: broker-password\n"
    )
    hub = HubProcess(["-f", str(tmp_path / "hub.yaml")], log=tmp_path / "stderr")
    assert httpx.get(hub.url, trust_env=False).status_code == 200
    assert (hub.stop(), (tmp_path / "stderr").read_text()) == (0, "")
    assert (tmp_path / "hub.db").exists()
    assert (tmp_path / "hub.log").exists()
    assert not (tmp_path / "by-variable").exists()


def test_a_bad_file_is_refused_with_every_problem_and_its_place(tmp_path):
    file = tmp_path / "hub.yaml"
    file.write_text(
        "listen:\n"
        "  prot: 8080\n"
        "directory: data\n"
        "broker: {amqp_url: 'amqp://h', management_url: 'http://h', user: hub, password_file: p}\n"
        "times:\n"
        "  start_wait: 90\n"
    )
    done = compute_hub("serve", "--config", str(file))
    assert (done.returncode, done.stdout) == (78, "")
    for place in (
        "1:1: the option 'database' is missing",
        "2:3: listen.prot: there is no such option here (did you mean 'port'?)",
        "3:1: directory: must be nothing",
        "6:3: times.start_wait: must be less than 60, not 90",
    ):
        assert f"{file}:{place}" in done.stderr
    assert "Traceback" not in done.stderr
    assert list(tmp_path.iterdir()) == [file]


def test_an_existing_broker_that_refuses_the_password_is_reported(broker, tmp_path):
    arguments = broker.serve_arguments(tmp_path, vhost="refused")
    (tmp_path / "broker-password").write_text("wrong\n")
    done = compute_hub("serve", *arguments, "--port", "0")
    assert done.returncode == 75
    assert "refuses the user" in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize(
    ("arguments", "status", "says"),
    [
        (["serve", "--amqp-url", "amqp://localhost"], 64, "--broker-password-file"),
        (["serve", "--port", "70000"], 64, "--port"),
        (["serve", "--config", "/nonexistent/hub.yaml"], 78, "hub.yaml is missing"),
        (["serve", "--host", "127.0.0.1", "--embedded", "/dev/null/hub"], 78, "can't be written"),
        (["serve", "--host", "no.such.host.invalid"], 78, "is not an address of this machine"),
        (["client", "list", "--directory", "/nonexistent"], 78, "no hub database"),
        (["client", "delete", "nobody", "--directory", "/nonexistent"], 78, "no hub database"),
        (["client", "create"], 64, "NAME"),
        (["nonsense"], 64, "nonsense"),
    ],
)
def test_mistakes_get_a_sentence_and_a_status(arguments, status, says, tmp_path):
    done = compute_hub(*arguments, COMPUTE_HUB_DIR=str(tmp_path))
    assert (done.returncode, done.stdout) == (status, "")
    assert says in done.stderr
    assert "Traceback" not in done.stderr


def test_deleting_asks_for_an_id_where_names_are_not_unique(tmp_path):
    first, second = create_client(tmp_path, "twin"), create_client(tmp_path, "twin")
    ambiguous = compute_hub("client", "delete", "twin", "--directory", str(tmp_path))
    assert ambiguous.returncode == 64
    assert first.client_id in ambiguous.stderr
    assert compute_hub("client", "delete", second.client_id, "--directory", str(tmp_path)).returncode == 0
    left = compute_hub("client", "list", "--directory", str(tmp_path), "--json")
    assert [entry["id"] for entry in json.loads(left.stdout)] == [first.client_id]


def test_help_imports_no_web_framework():
    code = (
        "import sys\n"
        "from endpoint.cli.hub import run\n"
        "run(['serve', '--help'])\n"
        "print([name for name in ('uvicorn', 'starlette', 'sqlalchemy', 'httpx', 'pika') if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=30)
    assert done.stdout.splitlines()[-1] == "[]"


SDK_PROGRAM = """
from globus_compute_sdk import Client
client = Client()
print(client._compute_web_client.v2.get_version().data)
print(client.get_result_amqp_url()["queue_prefix"])
"""


def test_the_official_sdk_reaches_a_hub_on_any_port(hub, peer_sdk_python, tmp_path):
    done = subprocess.run(
        [peer_sdk_python, "-c", SDK_PROGRAM],
        capture_output=True,
        text=True,
        timeout=60,
        env=clean_environment({**hub.client_env("sdk"), "HOME": str(tmp_path)}),
    )
    assert done.returncode == 0, done.stderr
    assert "groups." in done.stdout


@pytest.mark.parametrize("package", ["uvicorn", "sqlalchemy"])
def test_a_hub_without_its_packages_is_told_what_to_install(tmp_path, package):
    # None in sys.modules is how Python itself marks a module that can't be imported.
    program = f"import sys; sys.modules[{package!r}] = None; from endpoint.cli.hub import main; main(sys.argv[1:])"
    done = subprocess.run(
        [sys.executable, "-c", program, "serve", "--embedded", str(tmp_path / "hub")],
        capture_output=True,
        text=True,
        timeout=30,
    )

    assert done.returncode == ExitStatus.FAILED
    assert package in done.stderr
    assert "requirements/hub.txt" in done.stderr
    assert "fault of the program" not in done.stderr
