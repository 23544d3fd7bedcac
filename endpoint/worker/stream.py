"""Frames on a stream socket between an engine or a worker and a process that runs tasks for it.

A frame is four bytes of length, then so many bytes.
"""

from __future__ import annotations

import socket
import struct
from collections.abc import Iterator

RECEIVE_BYTES = 256 * 1024

_LENGTH = struct.Struct("<I")


def header(length: int) -> bytes:
    """What stands before a frame of `length` bytes."""
    return _LENGTH.pack(length)


def send_frame(connection: socket.socket, frame: bytes) -> None:
    """Send it as a whole. Raises OSError."""
    if len(frame) < RECEIVE_BYTES:
        connection.sendall(header(len(frame)) + frame)
    else:
        connection.sendall(header(len(frame)))
        connection.sendall(frame)


class FrameReader:
    """Pieces of a stream in, whole frames out."""

    def __init__(self) -> None:
        self._head = b""
        self._missing: int | None = None  # of the frame that has begun
        self._begun = bytearray()
        self._filled = 0

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
            whole = len(part) == self._missing
            if not whole or self._begun:
                part = self._add(part)
            if not whole:
                return
            self._missing = None
            yield part

    def _add(self, part: bytes) -> bytes:
        """Put a part into its place in a frame; returns the frame when it is whole.

        The place is made at once, in its size: parts that are kept until the last one comes leave holes of every size
        in the memory.
        """
        assert self._missing is not None
        if not self._begun:
            self._begun, self._filled = bytearray(self._missing), 0
        self._begun[self._filled : self._filled + len(part)] = part
        self._filled += len(part)
        self._missing -= len(part)
        if self._missing:
            return b""
        frame, self._begun = bytes(self._begun), bytearray()
        return frame
