"""Packets between monitor, manager and keepers: a small JSON object each, and at most two descriptors.

A `SOCK_SEQPACKET` socket keeps packets apart and ends when the other side does, so there is nothing to frame. Whatever
comes in was sent by somebody with fewer rights than the reader: sizes, nesting, numbers and descriptors are bounded
before anything looks at them, and a descriptor that nobody asked for is closed at once.
"""

from __future__ import annotations

import array
import collections
import json
import os
import socket
import struct
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, NoReturn

from endpoint.errors import EndpointError, ExitStatus, Stage

LARGEST_PACKET = 64 * 1024
MOST_DESCRIPTORS = 2
MOST_WAITING = 4096  # packets that the other side has not taken
MOST_WAITING_BYTES = 64 * 1024 * 1024  # of them
LONGEST_NUMBER = 20  # digits; what is longer is no number of ours

_DESCRIPTOR = array.array("i").itemsize
_PEER = struct.Struct("3i")  # struct ucred: pid, uid, gid


class BadPacket(EndpointError):
    """What came is not a packet of ours."""

    exit_status = ExitStatus.BAD_REQUEST
    stage = Stage.COMMAND
    code = "BAD_PACKET"


class ChannelClosed(EndpointError):
    """The other side is gone."""

    stage = Stage.COMMAND
    code = "CHANNEL_CLOSED"


class ChannelStuck(EndpointError):
    """The other side takes nothing any more, and no more is kept for it."""

    stage = Stage.COMMAND
    code = "CHANNEL_STUCK"


@dataclass(frozen=True)
class Packet:
    """One message, and the descriptors that came with it; these belong to whoever received it."""

    message: Mapping[str, Any]
    descriptors: tuple[int, ...] = ()

    def close(self) -> None:
        """Close the descriptors."""
        close_all(self.descriptors)


def pair() -> tuple[socket.socket, socket.socket]:
    """Two connected sockets for a channel's two ends."""
    return socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)


class Channel:
    """One end; never waits. Watch `fileno()` for reading, and for writing while `waiting`."""

    def __init__(self, end: socket.socket) -> None:
        end.setblocking(False)
        self._socket = end
        self._waiting: collections.deque[tuple[bytes, tuple[int, ...]]] = collections.deque()
        self._waiting_bytes = 0

    def fileno(self) -> int:
        """The socket's descriptor."""
        return self._socket.fileno()

    @property
    def waiting(self) -> bool:
        """Whether something is kept until the other side takes it."""
        return bool(self._waiting)

    def peer_uid(self) -> int:
        """The user id of the process that made the other end, as the kernel knows it."""
        raw = self._socket.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _PEER.size)
        uid: int = _PEER.unpack(raw)[1]
        return uid

    def receive(self) -> Packet:
        """The next packet. Raises BlockingIOError if there is none, ChannelClosed, or BadPacket."""
        try:
            data, ancillary, flags, _ = self._socket.recvmsg(
                LARGEST_PACKET + 1, socket.CMSG_SPACE(MOST_DESCRIPTORS * _DESCRIPTOR), socket.MSG_CMSG_CLOEXEC
            )
        except BlockingIOError:
            raise
        except OSError as error:
            raise ChannelClosed("The other side of the channel is gone", detail=str(error)) from error
        descriptors = tuple(_descriptors(ancillary))
        try:
            if not data and not descriptors:
                raise ChannelClosed("The other side of the channel is gone")
            if flags & socket.MSG_CTRUNC:
                raise BadPacket(f"A packet came with more than {MOST_DESCRIPTORS} descriptors")
            if len(data) > LARGEST_PACKET or flags & socket.MSG_TRUNC:
                raise BadPacket(f"A packet is larger than {LARGEST_PACKET} bytes")
            return Packet(decode(data), descriptors)
        except EndpointError:
            close_all(descriptors)
            raise

    def send(self, message: Mapping[str, Any], descriptors: Sequence[int] = ()) -> None:
        """Send now. Raises BlockingIOError if the other side is behind, ChannelClosed, or BadPacket for one of ours."""
        self._send(encode(message), descriptors)

    def post(self, message: Mapping[str, Any], descriptors: Sequence[int] = ()) -> None:
        """Send now or, if the other side is behind, with `flush`; raises ChannelStuck when too much waits."""
        data = encode(message)
        if not self._waiting:
            with suppress(BlockingIOError):
                return self._send(data, descriptors)
        if len(self._waiting) >= MOST_WAITING or self._waiting_bytes + len(data) > MOST_WAITING_BYTES:
            raise ChannelStuck("The other side of the channel takes nothing any more")
        self._waiting_bytes += len(data)
        self._waiting.append((data, tuple(os.dup(descriptor) for descriptor in descriptors)))
        return None

    def flush(self) -> None:
        """Send what waits, as far as the other side takes it; raises ChannelClosed."""
        while self._waiting:
            data, descriptors = self._waiting[0]
            try:
                self._send(data, descriptors)
            except BlockingIOError:
                return
            self._waiting.popleft()
            self._waiting_bytes -= len(data)
            close_all(descriptors)

    def close(self) -> None:
        """Close this end, and forget what waits."""
        for _, descriptors in self._waiting:
            close_all(descriptors)
        self._waiting.clear()
        self._waiting_bytes = 0
        self._socket.close()

    def _send(self, data: bytes, descriptors: Sequence[int]) -> None:
        rights = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", descriptors))] if descriptors else []
        try:
            self._socket.sendmsg([data], rights, socket.MSG_NOSIGNAL)
        except BlockingIOError:
            raise
        except OSError as error:
            raise ChannelClosed("The other side of the channel is gone", detail=str(error)) from error


def encode(message: Mapping[str, Any]) -> bytes:
    """The bytes of a message; raises BadPacket if they are too many."""
    data = json.dumps(message, separators=(",", ":")).encode("ascii")
    if len(data) > LARGEST_PACKET:
        raise BadPacket(f"A message would be larger than {LARGEST_PACKET} bytes")
    return data


def decode(data: bytes) -> Mapping[str, Any]:
    """The message in `data`: a JSON object with each key once, and with finite numbers only. Raises BadPacket."""
    try:
        message = json.loads(
            data.decode("utf-8"),
            object_pairs_hook=_unique,
            parse_constant=_refuse_constant,
            parse_int=_whole_number,
            parse_float=_number,
        )
    except (ValueError, RecursionError) as error:
        raise BadPacket("A packet is not the JSON that it should be", detail=str(error)) from error
    if not isinstance(message, dict):
        raise BadPacket("A packet is not a JSON object")
    return message


def close_all(descriptors: Iterable[int]) -> None:
    """Close each of them."""
    for descriptor in descriptors:
        with suppress(OSError):
            os.close(descriptor)


def _descriptors(ancillary: Iterable[tuple[int, int, bytes]]) -> Iterable[int]:
    for level, kind, data in ancillary:
        if level == socket.SOL_SOCKET and kind == socket.SCM_RIGHTS:
            found = array.array("i")
            found.frombytes(data[: len(data) - len(data) % _DESCRIPTOR])
            yield from found


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    result = dict(pairs)
    if len(result) != len(pairs):
        raise ValueError("a key stands twice")
    return result


def _refuse_constant(text: str) -> NoReturn:
    raise ValueError(f"{text} is no number")


def _whole_number(text: str) -> int:
    if len(text) > LONGEST_NUMBER:
        raise ValueError("a number is too long")
    return int(text)


def _number(text: str) -> float:
    if len(text) > 2 * LONGEST_NUMBER:
        raise ValueError("a number is too long")
    value = float(text)
    if value - value != 0:  # 1e999 is read as infinity
        raise ValueError("a number is not finite")
    return value
