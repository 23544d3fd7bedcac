"""Frames on a stream socket between an engine and its worker process: four bytes of length, then so many bytes."""

from __future__ import annotations

import struct
from collections.abc import Iterator

RECEIVE_BYTES = 256 * 1024

_LENGTH = struct.Struct("<I")


def header(length: int) -> bytes:
    """What stands before a frame of `length` bytes."""
    return _LENGTH.pack(length)


class FrameReader:
    """Pieces of a stream in, whole frames out. A large frame is copied once, when its last piece is there."""

    def __init__(self) -> None:
        self._head = b""
        self._parts: list[bytes] = []
        self._missing: int | None = None  # of the frame that has begun

    def feed(self, piece: bytes) -> Iterator[bytes]:
        """The frames that are whole with `piece`; all of them have to be taken."""
        begin = 0
        while True:
            if self._missing is None:
                end = begin + _LENGTH.size - len(self._head)
                self._head += piece[begin:end]
                if len(self._head) < _LENGTH.size:
                    return
                (self._missing,) = _LENGTH.unpack(self._head)
                self._head, begin = b"", end
            part = piece[begin : begin + self._missing]
            begin += len(part)
            if len(part) < self._missing:
                self._parts.append(part)
                self._missing -= len(part)
                return
            self._missing = None
            if self._parts:
                self._parts.append(part)
                part = b"".join(self._parts)
                self._parts = []
            yield part
