"""The manager's side of its channel with the monitor; the test is the monitor, over a real pair of sockets."""

from __future__ import annotations

import asyncio
import fcntl
import json
import os
import uuid
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest
from cryptography.fernet import Fernet

from endpoint.config.model import load_manager_config
from endpoint.errors import ConfigError, EndpointError
from endpoint.manager.commands import Recipient, Requester, StartRequest
from endpoint.manager.local_user import LocalUser
from endpoint.manager.monitor_link import MonitorGone
from endpoint.manager.monitored import Monitored, Welcome
from endpoint.manager.multi_user import agree
from endpoint.manager.note import Note
from endpoint.manager.spawn import Host
from endpoint.privileged.channel import Channel, Packet, pair
from endpoint.privileged.documents import check_document
from endpoint.privileged.requests import Phase, checked
from endpoint.wire.queues import Registration

NAME = "uep.one"
USER = LocalUser("alice", 1234, 1234, Path("/home/alice"), matched_identity="an-identity")
FAILURE = {"stage": "render", "code": "BAD_USER_OPTIONS", "reason": "No such option.", "mender": "user"}


def start_request(**changes: Any) -> StartRequest:
    creds = {
        "endpoint_id": str(uuid.uuid4()),
        "heartbeat_queue_info": {
            "connection_url": "amqp://broker/",
            "queue": "beats",
            "queue_publish_kwargs": {"exchange": "", "routing_key": "beats"},
        },
    }
    recipient = Recipient(creds["endpoint_id"], Registration.parse(creds).heartbeat)
    values = {"name": NAME, "requester": Requester("alice@example.org", "x", ()), "amqp_creds": creds}
    return StartRequest(recipient=recipient, **{**values, **changes})


class Scripted:
    """The monitor's end: what came is checked against the closed table, what is to be told is told."""

    def __init__(self, channel: Channel) -> None:
        self.channel = channel

    async def next(self, phase: Phase = Phase.OPEN) -> tuple[str, dict[str, Any], Packet]:
        while True:
            try:
                packet = self.channel.receive()
            except BlockingIOError:
                await asyncio.sleep(0.005)
                continue
            _, fields = checked(packet, phase)
            return str(packet.message["request"]), fields, packet

    async def expect(self, kind: str) -> tuple[dict[str, Any], Packet]:
        found, fields, packet = await asyncio.wait_for(self.next(), 10)
        assert found == kind
        return fields, packet

    def tell(self, event: str, **fields: Any) -> None:
        self.channel.post({"event": event, **fields})


Story = Callable[[Monitored, Scripted], Awaitable[Any]]


@pytest.fixture
def play(tmp_path: Path) -> Callable[[Story], Any]:
    """Play a story with a launcher that has greeted."""
    directory = tmp_path / "compute" / "ep"
    directory.mkdir(parents=True)
    (directory / "config.yaml").write_text("")
    (directory / "user_config_template.yaml.j2").write_text("engine:\n  type: ThreadPoolEngine\n")
    host = Host(directory, load_manager_config(directory / "config.yaml"), {})

    async def run(story: Story, found: tuple[dict[str, Any], ...]) -> Any:
        ours, theirs = pair()
        scripted = Scripted(Channel(theirs))
        monitored = Monitored(host, ours)
        try:
            greeting = asyncio.create_task(monitored.greet())
            await asyncio.wait_for(scripted.next(Phase.GREETING), 10)
            for one in found:
                scripted.tell("user-endpoint", **one)
            scripted.tell(
                "welcome", pam=True, service_name="lab", audit_log=False, audit_required=False, watchdog_s=30.0
            )
            await greeting
            return await asyncio.wait_for(story(monitored, scripted), 20)
        finally:
            monitored.close()
            scripted.channel.close()

    return lambda story, *found: asyncio.run(run(story, found))


def launched(monitored: Monitored, request: StartRequest) -> tuple[asyncio.Task[Any], Any]:
    credentials = monitored.credentials(request.name)
    return asyncio.create_task(monitored.launch(request, USER, credentials)), credentials


def test_a_start_is_one_request_with_a_sealed_document_and_what_the_next_manager_needs(play):
    request = start_request()

    async def story(monitored: Monitored, monitor: Scripted) -> Any:
        launching, credentials = launched(monitored, request)
        fields, packet = await monitor.expect("start")
        check_document(packet.descriptors[0])
        document = json.loads(os.pread(packet.descriptors[0], 1 << 20, 0))
        monitor.tell("accepted", name=NAME)
        monitor.tell("running", name=NAME, pid=77, started=1.0)
        process = await launching
        monitor.tell("ended", name=NAME, status=-9, seconds=3.0)
        return fields, document, credentials.key, process.pid, await process.wait()

    fields, document, key, pid, status = play(story)

    assert (fields["name"], fields["user"], fields["identity"]) == (NAME, "alice", "an-identity")
    assert fields["identity_name"] == "alice@example.org"
    assert (document["amqp_creds"], document["enckey"]) == (request.amqp_creds, key)
    assert document["mapped_identity"]["local"]["uname"] == "alice"
    note = Note.from_text(fields["note"])
    assert (note.request(NAME, None).recipient, note.enckey) == (request.recipient, key)
    assert (pid, status) == (77, -9)


def test_a_refusal_is_the_failure_that_the_user_reads(play):
    async def story(monitored: Monitored, monitor: Scripted) -> Any:
        launching, _ = launched(monitored, start_request())
        await monitor.expect("start")
        monitor.tell("refused", name=NAME, code="SHELL_NOT_ALLOWED", reason="Not with this shell.", detail="/bin/false")
        with pytest.raises(EndpointError) as caught:
            await launching
        return caught.value.failure

    failure = play(story)

    assert "Not with this shell." in failure.for_user()
    assert "administrator" in failure.for_user()
    assert "/bin/false" not in failure.for_user()
    assert "/bin/false" in failure.for_admin()


@pytest.mark.parametrize(
    ("told", "words"),
    [
        (FAILURE, "No such option. [render: BAD_USER_OPTIONS]"),
        ({"stage": "nowhere", "reason": "x"}, "could not be started (step prepare)"),
        ("nonsense", "could not be started (step prepare)"),
    ],
)
def test_a_failure_of_a_step_comes_as_it_was_told_or_as_one_of_the_step(play, told, words):
    async def story(monitored: Monitored, monitor: Scripted) -> Any:
        launching, _ = launched(monitored, start_request())
        await monitor.expect("start")
        monitor.tell("accepted", name=NAME)
        monitor.tell("failed", name=NAME, step="prepare", failure=told)
        with pytest.raises(EndpointError) as caught:
            await launching
        again, _ = launched(monitored, start_request())  # the name is free again
        await monitor.expect("credentials")
        await monitor.expect("start")
        again.cancel()
        return caught.value.failure.for_user()

    assert words in play(story)


def test_credentials_go_as_soon_as_they_can_be_given_and_the_newest_last(play):
    async def story(monitored: Monitored, monitor: Scripted) -> Any:
        launching, credentials = launched(monitored, start_request())
        credentials.write({"newer": 1})
        await monitor.expect("start")
        credentials.write({"newer": 2})
        monitor.tell("accepted", name=NAME)
        first = await monitor.expect("credentials")
        monitor.tell("running", name=NAME, pid=77, started=1.0)
        await launching
        credentials.write({"newer": 3})
        second = await monitor.expect("credentials")
        return credentials.key, [os.pread(packet.descriptors[0], 1 << 20, 0) for _, packet in (first, second)]

    key, contents = play(story)

    assert [json.loads(Fernet(key).decrypt(content))["amqp_creds"]["newer"] for content in contents] == [2, 3]


def test_signals_are_sent_to_what_runs_and_to_nothing_else(play):
    async def story(monitored: Monitored, monitor: Scripted) -> Any:
        launching, _ = launched(monitored, start_request())
        await monitor.expect("start")
        monitor.tell("accepted", name=NAME)
        monitor.tell("running", name=NAME, pid=77, started=1.0)
        process = await launching
        await monitor.expect("credentials")
        process.terminate()
        process.kill()
        sent = [(await monitor.expect("signal"))[0]["signal"] for _ in range(2)]
        monitor.tell("ended", name=NAME, status=0, seconds=1.0)
        await process.wait()
        process.kill()
        monitored.say("alive")
        await monitor.expect("alive")
        return sent

    assert play(story) == ["TERM", "KILL"]


def test_one_that_was_found_is_followed_to_its_end(play):
    one = {"name": NAME, "user": "alice", "uid": 1234, "pid": 42, "started": 1.0, "state": "running", "note": "n"}

    async def story(monitored: Monitored, monitor: Scripted) -> Any:
        monitor.tell("ended", name=NAME, status=3, seconds=1.0)
        process = await monitored.follow(NAME)
        return process.pid, await process.wait()

    assert play(story, one) == (42, 3)


def test_without_a_monitor_nothing_is_started(play):
    async def story(monitored: Monitored, monitor: Scripted) -> None:
        monitor.channel.close()
        await monitored.gone
        with pytest.raises(MonitorGone):
            await monitored.launch(start_request(), USER, monitored.credentials(NAME))

    play(story)


def test_events_that_make_no_sense_are_passed_over(play):
    async def story(monitored: Monitored, monitor: Scripted) -> Any:
        for event in ("running", "accepted", "ended", "failed", "refused"):
            monitor.tell(event, name="nobody")
            monitor.tell(event)
        monitor.tell("what")
        launching, _ = launched(monitored, start_request())
        await monitor.expect("start")
        monitor.tell("accepted", name=NAME)
        monitor.tell("running", name=NAME, pid=7, started=1.0)
        return (await launching).pid

    assert play(story) == 7


@pytest.mark.parametrize(
    "changes",
    [
        {"name": "uep one"},
        {"name": "x" * 129},
        {"user_opts": {"x": "y" * (17 * 1024 * 1024)}},
    ],
)
def test_what_the_monitor_would_take_for_an_attack_is_refused_before_it_is_sent(play, changes):
    async def story(monitored: Monitored, monitor: Scripted) -> None:
        with pytest.raises(EndpointError):
            await monitored.launch(start_request(**changes), USER, monitored.credentials(NAME))
        monitored.say("alive")
        await monitor.expect("alive")

    play(story)


def test_half_a_character_in_an_identity_does_not_end_the_session(play):
    request = start_request(requester=Requester("half \ud800 of it" + "x" * 2000, "y", ()))

    async def story(monitored: Monitored, monitor: Scripted) -> Any:
        launching, _ = launched(monitored, request)
        fields, _ = await monitor.expect("start")
        monitored.audit(event="refused", reason="half \ud800 of it", code=None)
        record, _ = await monitor.expect("audit")
        launching.cancel()
        return fields["identity_name"], record["record"]["reason"]

    name, reason = play(story)

    assert name.startswith("half ? of it")
    assert reason == "half ? of it"


@pytest.mark.parametrize(
    ("configured", "actual", "agreed"),
    [
        ("", Welcome(False, "x", False, False), True),
        ("pam: {enable: true, service_name: lab}", Welcome(True, "lab", False, False), True),
        ("pam: {enable: false, service_name: lab}", Welcome(False, "other", False, False), True),
        ("", Welcome(True, "lab", False, False), False),
        ("pam: {enable: true, service_name: lab}", Welcome(True, "other", False, False), False),
        ("pam: {enable: true, service_name: lab}", Welcome(False, "lab", False, False), False),
    ],
)
def test_configuration_and_policy_must_say_the_same_of_pam(tmp_path, configured, actual, agreed):
    path = tmp_path / "config.yaml"
    path.write_text(configured)
    config = load_manager_config(path)

    if agreed:
        agree(config, actual, path)
        return
    with pytest.raises(ConfigError, match="says otherwise"):
        agree(config, actual, path)


@pytest.mark.parametrize(
    ("configured", "log", "required", "wrong"),
    [
        ("high_assurance: true", False, False, ""),
        ("high_assurance: true", True, True, ""),
        ("high_assurance: true", True, False, "high assurance"),
        ("audit_log_path: /var/log/x", False, False, "names an audit log"),
        ("audit_log_path: /var/log/x", True, False, ""),
    ],
)
def test_configuration_and_policy_must_agree_on_whether_there_is_an_audit_log(
    tmp_path, caplog, configured, log, required, wrong
):
    path = tmp_path / "config.yaml"
    path.write_text(f"pam: {{enable: false}}\n{configured}\n")
    config = load_manager_config(path)
    welcome = Welcome(False, "x", log, required)

    if wrong:
        with pytest.raises(ConfigError, match=wrong):
            agree(config, welcome, path)
        return
    agree(config, welcome, path)
    assert bool(caplog.records) == ("audit_log_path" in configured)


def test_a_memory_file_can_not_be_changed_any_more():
    from endpoint.manager.memory import ALL_SEALS, sealed

    descriptor = sealed("test", b"content")
    try:
        assert fcntl.fcntl(descriptor, fcntl.F_GET_SEALS) == ALL_SEALS
        assert os.pread(descriptor, 100, 0) == b"content"
        with pytest.raises(PermissionError):
            os.pwrite(descriptor, b"x", 0)
    finally:
        os.close(descriptor)
