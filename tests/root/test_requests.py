"""The monitor's socket: what comes in whole goes on, and nothing else gets anywhere."""

from __future__ import annotations

import json
import os
import random
import selectors
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from endpoint.errors import EndpointError
from endpoint.privileged.channel import LARGEST_PACKET, BadPacket, Channel, ChannelClosed, ChannelStuck, pair
from endpoint.privileged.documents import LARGEST_DOCUMENT, SEALS, check_document
from endpoint.privileged.keeper import Order, Settings
from endpoint.privileged.keepers import Keepers
from endpoint.privileged.policy import Bounds, Policy
from endpoint.privileged.requests import NAME, REQUESTS, BadRequest
from endpoint.privileged.session import Ended, Session
from endpoint.privileged.state import Runtime
from tests.support.monitors import Site, sealed

FUZZED = 10_000
FUZZED_MONITORS = 30


@pytest.fixture
def ends() -> Iterator[tuple[Channel, socket.socket]]:
    ours, theirs = pair()
    channel = Channel(ours)
    yield channel, theirs
    channel.close()
    theirs.close()


def open_descriptors() -> int:
    return len(os.listdir("/proc/self/fd"))


def test_a_message_and_its_descriptors_arrive_together(ends: tuple[Channel, socket.socket]) -> None:
    channel, theirs = ends
    document = sealed(b"content")

    Channel(theirs).send({"request": "x"}, [document])
    packet = channel.receive()

    assert packet.message == {"request": "x"}
    assert os.pread(packet.descriptors[0], 100, 0) == b"content"
    assert not os.get_inheritable(packet.descriptors[0])
    packet.close()
    os.close(document)


@pytest.mark.parametrize("number", [1, 2, 3, 20])
def test_descriptors_of_what_is_refused_are_closed(ends: tuple[Channel, socket.socket], number: int) -> None:
    channel, theirs = ends
    before = open_descriptors()

    socket.send_fds(theirs, [b"no json"], [0] * number)
    with pytest.raises(BadPacket):
        channel.receive()

    assert open_descriptors() == before


def test_a_packet_that_is_too_large_is_refused_whole(ends: tuple[Channel, socket.socket]) -> None:
    channel, theirs = ends
    theirs.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 1_000_000)

    theirs.send(json.dumps({"a": "x" * LARGEST_PACKET}).encode())

    with pytest.raises(BadPacket, match="larger"):
        channel.receive()
    with pytest.raises(BlockingIOError):
        channel.receive()


def test_the_end_of_the_other_side_is_told(ends: tuple[Channel, socket.socket]) -> None:
    channel, theirs = ends
    theirs.close()

    with pytest.raises(ChannelClosed):
        channel.receive()
    with pytest.raises(ChannelClosed):
        channel.send({})


def test_what_is_not_taken_waits_up_to_a_bound_and_in_order(ends: tuple[Channel, socket.socket]) -> None:
    channel, theirs = ends
    with pytest.raises(ChannelStuck):
        for number in range(100_000):
            channel.post({"number": number})

    other = Channel(theirs)
    seen = []
    while channel.waiting or len(seen) < 4096:
        seen.append(other.receive().message["number"])
        channel.flush()
    assert seen == list(range(len(seen)))


@pytest.mark.parametrize(
    "kind", ["unsealed", "half sealed", "too large", "file", "directory", "pipe", "socket", "path"]
)
def test_only_a_sealed_memory_file_of_bounded_size_is_a_document(kind: str, tmp_path: Path) -> None:
    ours, theirs = pair()
    (tmp_path / "file").write_text("{}")
    made = {
        "unsealed": lambda: sealed(b"{}", 0),
        "half sealed": lambda: sealed(b"{}", SEALS & ~1),
        "too large": lambda: sealed(b"x" * (LARGEST_DOCUMENT + 1)),
        "file": lambda: os.open(tmp_path / "file", os.O_RDWR),
        "directory": lambda: os.open(tmp_path, os.O_RDONLY),
        "pipe": lambda: os.pipe()[0],
        "socket": lambda: ours.detach(),
        "path": lambda: os.open(tmp_path / "file", os.O_PATH),
    }[kind]()

    with pytest.raises(BadRequest):
        check_document(made)

    os.close(made)
    ours.close()
    theirs.close()


class Recorder(Keepers):
    """The real table, whose orders go into a list in place of a keeper."""

    def __init__(self, settings: Settings, selector: selectors.BaseSelector, channel: Channel) -> None:
        super().__init__(settings, selector, channel.post)
        self.orders: list[Order] = []

    def start(self, order: Order) -> None:
        self.orders.append(order)


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    policy = Policy(runtime_directory=str(tmp_path / "run"))
    return Settings(
        endpoint="e",
        policy=policy,
        bounds=Bounds.of(policy),
        service_uid=990,
        runtime=Runtime.open(tmp_path / "run", "e"),
        environment={},
        library=None,
        audit=None,
    )


VALUES: list[Any] = [
    None,
    True,
    0,
    1,
    -1,
    2**70,
    1.5,
    "",
    "a",
    "../../etc/passwd",
    "root",
    "x" * 2000,
    "\ud800",
    [],
    {},
    [{}],
]


def mutated(chance: random.Random, message: dict[str, Any]) -> dict[str, Any]:
    """A message with one to three things changed."""
    for _ in range(chance.randint(1, 3)):
        keys = list(message) or ["request"]
        match chance.randrange(4):
            case 0:
                message[chance.choice(keys)] = chance.choice(VALUES)
            case 1:
                message.pop(chance.choice(keys), None)
            case 2:
                message[chance.choice(["uid", "user", "fields", "name", "argv"])] = chance.choice(VALUES)
            case 3:
                message["request"] = chance.choice([*REQUESTS, "exec", "setuid", "HELLO"])
    return message


def whole(chance: random.Random) -> dict[str, Any]:
    """A request as our own manager could send it, but for the user, whom nobody has."""
    texts = {"name": "uep.1", "identity": "i", "identity_name": "n", "mapped_by": "r", "note": ""}
    texts["user"] = "gct-nobody-has-this"
    kind = chance.choice(list(REQUESTS))
    fields = {"version": 1, "signal": "KILL", "record": {"event": "x"}, **texts}
    return {"request": kind, **{name: fields[name] for name in REQUESTS[kind].fields}}


def fuzzed(chance: random.Random) -> tuple[bytes, int]:
    """The bytes of a packet, and how many descriptors go with it."""
    descriptors = chance.choice([0, 0, 0, 1, 1, 2, 3])
    message = whole(chance)
    if chance.random() < 0.2:
        return json.dumps(message).encode(), REQUESTS[message["request"]].descriptors
    if chance.random() < 0.7:
        return json.dumps(mutated(chance, message)).encode(), descriptors
    data = bytearray(json.dumps(message).encode())
    for _ in range(chance.randint(1, 8)):
        data[chance.randrange(len(data))] = chance.randrange(256)
    return bytes(data[: chance.randrange(1, len(data) + 1)]), descriptors


def a_descriptor(chance: random.Random) -> int:
    kind = chance.randrange(4)
    if kind == 0:
        return sealed(b"{}")
    if kind == 1:
        return sealed(b"{}", 0)
    return os.open("/" if kind == 2 else "/dev/null", os.O_RDONLY)


def test_ten_thousand_fuzzed_requests_start_nothing_that_was_not_asked_for(settings: Settings) -> None:
    chance = random.Random(5)
    before = open_descriptors()
    sent = orders = refused = 0
    while sent < FUZZED:
        ours, theirs = pair()
        channel, other = Channel(ours), Channel(theirs)
        selector = selectors.DefaultSelector()
        keepers = Recorder(settings, selector, channel)
        session = Session(channel, keepers, settings, lambda state: None)
        if chance.random() < 0.9:
            other.send({"request": "hello", "version": 1})
        try:
            for _ in range(20):
                data, number = fuzzed(chance)
                descriptors = [a_descriptor(chance) for _ in range(number)]
                socket.send_fds(theirs, [data], descriptors)
                for descriptor in descriptors:
                    os.close(descriptor)
                sent += 1
                assert session.readable() is Ended.FOR_NOW
        except EndpointError as error:
            assert error.exit_status == 76, error
            refused += 1
        assert all(NAME.fullmatch(order.name) for order in keepers.orders)
        orders += len(keepers.orders)
        channel.close()
        theirs.close()
        selector.close()
    assert refused > 1000
    assert orders > 10
    assert open_descriptors() == before
    assert settings.runtime.all() == []


def test_real_monitors_end_at_the_first_wrong_request_by_their_own_rule(place: Site) -> None:
    chance = random.Random(6)
    for _ in range(FUZZED_MONITORS):
        monitor = place.start()
        monitor.hello()
        for _ in range(100):
            data, number = fuzzed(chance)
            descriptors = [a_descriptor(chance) for _ in range(number)]
            try:
                socket.send_fds(monitor.channel._socket, [data], descriptors)
            except OSError:  # it ended
                break
            finally:
                for descriptor in descriptors:
                    os.close(descriptor)
        assert monitor.process.wait(10) == 76, place.log()
        assert place.facts() == {}
    assert "is not in the table" in place.log()
    assert " runs with process id " not in place.log()
