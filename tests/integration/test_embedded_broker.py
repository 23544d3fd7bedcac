"""The private RabbitMQ node: it starts, stops, keeps its data and its address, and leaves nothing behind."""

from __future__ import annotations

import asyncio
import os
import pwd
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import httpx
import pika
import psutil
import pytest
from pika.exceptions import ProbableAuthenticationError

from endpoint.errors import AlreadyRunning, ConfigError, NetworkFailure
from endpoint.hub import embedded
from endpoint.hub.embedded import EmbeddedBroker, NodeSettings, find_server, free_ports

REPOSITORY = Path(__file__).resolve().parents[2]


def url_of(broker: EmbeddedBroker) -> str:
    return broker.amqp_url.replace("://", f"://{broker.user}:{broker.password}@") + f"/{broker.vhost}"


def test_a_restart_on_the_same_directory_keeps_queues_and_address_and_a_death_is_noticed(tmp_path, no_process_left):
    async def leave_a_message() -> str:
        broker = EmbeddedBroker(tmp_path / "node")
        await broker.start()
        with pika.BlockingConnection(pika.URLParameters(url_of(broker))) as connection:
            channel = connection.channel()
            channel.queue_declare("kept", durable=True)
            channel.confirm_delivery()
            channel.basic_publish("", "kept", b"a task", pika.BasicProperties(delivery_mode=2))
        ended = asyncio.create_task(broker.ended())
        await broker.stop()
        await broker.stop()
        await ended
        return url_of(broker)

    async def find_it_and_kill_the_node(url: str) -> None:
        broker = EmbeddedBroker(tmp_path / "node")
        await broker.start()
        try:
            with pika.BlockingConnection(pika.URLParameters(url)) as connection:
                _, _, body = connection.channel().basic_get("kept", auto_ack=True)
            assert body == b"a task"
            ended = asyncio.create_task(broker.ended())
            await asyncio.sleep(0)
            os.kill(broker.pids[1], signal.SIGKILL)
            with pytest.raises(NetworkFailure, match="ended with status -9"):
                await asyncio.wait_for(ended, 5)
        finally:
            await broker.stop()

    asyncio.run(find_it_and_kill_the_node(asyncio.run(leave_a_message())))


def test_only_the_loopback_is_listened_at(broker):
    listening = [
        connection.laddr.ip
        for pid in broker.pids
        for connection in psutil.Process(pid).net_connections("inet")
        if connection.status == psutil.CONN_LISTEN
    ]
    assert len(listening) >= 4  # AMQP, management, Erlang's distribution, epmd
    assert set(listening) <= {"127.0.0.1", "::1"}


def test_nobody_gets_in_with_the_packages_default_user(broker):
    with pytest.raises(ProbableAuthenticationError):
        pika.BlockingConnection(pika.URLParameters(broker.amqp_base.replace("://", "://guest:guest@") + "/%2F"))
    answer = httpx.get(f"{broker.management_url}/api/overview", auth=("guest", "guest"), trust_env=False)
    assert answer.status_code == 401


def test_secrets_are_in_files_that_only_we_can_read(broker):
    readable = [
        path
        for path in broker.directory.rglob("*")
        if path.is_file() and path.stat().st_mode & 0o077 and broker.password.encode() in path.read_bytes()
    ]
    assert readable == []
    assert broker.directory.stat().st_mode & 0o077 == 0


OWNER = """
import asyncio, sys
from pathlib import Path
from endpoint.hub.embedded import EmbeddedBroker

async def main():
    broker = EmbeddedBroker(Path(sys.argv[1]))
    await broker.start()
    print(*broker.pids, flush=True)
    await broker.ended()

asyncio.run(main())
"""


@pytest.fixture
def unprivileged() -> Iterator[tuple[list[str], Path]]:
    """The beginning of a command that runs Python as nobody in particular, and a directory of that user."""
    directory = Path(tempfile.mkdtemp(prefix="broker-"))
    command = [sys.executable]
    if os.geteuid() == 0:
        nobody = pwd.getpwnam("nobody")
        os.chown(directory, nobody.pw_uid, nobody.pw_gid)
        # our own interpreter may be where only root can read; the system's needs no packages for this
        python = shutil.which("python3", path="/usr/bin:/bin")
        assert python is not None
        command = ["setpriv", f"--reuid={nobody.pw_uid}", f"--regid={nobody.pw_gid}", "--clear-groups", python]
    yield command, directory
    shutil.rmtree(directory)


def test_a_node_of_an_unprivileged_user_ends_when_its_owner_is_killed(unprivileged):
    python, directory = unprivileged
    owner = subprocess.Popen([*python, "-c", OWNER, str(directory)], cwd=REPOSITORY, stdout=subprocess.PIPE)
    with owner:
        assert owner.stdout is not None
        children = [psutil.Process(int(pid)) for pid in owner.stdout.readline().split()]
        assert len(children) == 2
        owner.kill()
    deadline = time.monotonic() + 5
    while not all(_has_ended(child) for child in children) and time.monotonic() < deadline:
        psutil.wait_procs(children, timeout=0.1)
    assert [child for child in children if not _has_ended(child)] == []


def _has_ended(process: psutil.Process) -> bool:
    """Also a zombie has: whoever inherits it may take its time to reap it."""
    try:
        return process.status() == psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return True


def test_a_node_that_cannot_start_says_why_and_leaves_nothing(tmp_path, no_process_left):
    (tmp_path / "mnesia").write_text("not a directory")
    with pytest.raises(NetworkFailure, match="ended with status") as failed:
        asyncio.run(EmbeddedBroker(tmp_path).start())
    assert "broker.log" in failed.value.failure.hint
    assert failed.value.failure.detail
    assert not [*tmp_path.rglob("erl_crash.dump"), *Path.cwd().glob("erl_crash.dump")]


def test_a_start_that_is_cancelled_leaves_nothing(tmp_path, no_process_left):
    async def scenario() -> None:
        broker = EmbeddedBroker(tmp_path)
        start = asyncio.create_task(broker.start())
        with pytest.raises(asyncio.TimeoutError):
            await asyncio.wait_for(start, 1)
        assert broker.pids == []

    asyncio.run(scenario())


def test_a_port_that_is_taken_is_named(tmp_path):
    settings = NodeSettings.of(tmp_path)
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", settings.amqp_port))
        sock.listen()
        with pytest.raises(AlreadyRunning, match=f"Port {settings.amqp_port} .* is in use"):
            asyncio.run(EmbeddedBroker(tmp_path).start())


@pytest.mark.parametrize("text", ["", "[]", '{"amqp_port": 1}', "\x00"])
def test_settings_that_cannot_be_read_are_a_configuration_error(tmp_path, text):
    (tmp_path / "node.json").write_text(text)
    with pytest.raises(ConfigError, match="is not a broker's settings"):
        NodeSettings.of(tmp_path)


def test_a_directory_that_cannot_be_used_is_a_configuration_error():
    with pytest.raises(ConfigError, match="can't be used"):
        asyncio.run(EmbeddedBroker(Path("/dev/null/broker")).start())


def test_settings_are_made_once(tmp_path):
    first = NodeSettings.of(tmp_path)
    assert NodeSettings.of(tmp_path) == first
    assert (tmp_path / "node.json").stat().st_mode & 0o777 == 0o600
    assert len(first.password) >= 24
    assert first.password not in repr(first)


def test_free_ports_are_different_and_outside_the_range_of_outgoing_connections():
    first_outgoing = int(Path("/proc/sys/net/ipv4/ip_local_port_range").read_text().split()[0])
    ports = free_ports(50)
    assert len(set(ports)) == 50
    assert max(ports) < first_outgoing


def test_a_machine_without_rabbitmq_is_told_what_to_install(monkeypatch, tmp_path):
    monkeypatch.setattr(embedded, "SERVER_SCRIPTS", ())
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.delenv("RABBITMQ_SERVER", raising=False)
    with pytest.raises(ConfigError) as failed:
        find_server()
    assert "not installed" in str(failed.value)
    assert "apt-get install rabbitmq-server" in failed.value.failure.hint


def test_the_packages_wrapper_that_changes_user_is_not_taken(monkeypatch, tmp_path):
    wrapper = tmp_path / "rabbitmq-server"
    wrapper.write_text("#!/bin/sh\nexec su rabbitmq -s /bin/sh -c true\n")
    wrapper.chmod(0o755)
    monkeypatch.setattr(embedded, "SERVER_SCRIPTS", ())
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(ConfigError, match="not installed"):
        find_server()
