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
    """Pieces of a stream in, whole frames out."""

    def __init__(self) -> None:
        self._pieces: list[bytes] = []
        self._have = 0
        self._need = _LENGTH.size

    def feed(self, piece: bytes) -> Iterator[bytes]:
        """The frames that are whole with `piece`."""
        self._pieces.append(piece)
        self._have += len(piece)
        if self._have < self._need:
            return
        stream = piece if len(self._pieces) == 1 else b"".join(self._pieces)
        self._pieces.clear()
        begin = _LENGTH.size
        while begin <= len(stream):
            end = begin + _LENGTH.unpack_from(stream, begin - _LENGTH.size)[0]
            if end > len(stream):
                break
            yield stream[begin:end]
            begin = end + _LENGTH.size
        else:
            end = begin
        begin -= _LENGTH.size
        self._have, self._need = len(stream) - begin, end - begin
        if self._have:
            self._pieces.append(stream[begin:])
