"""Pika's asyncio connection, with fewer system calls."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from typing import Any

from pika.adapters.asyncio_connection import AsyncioConnection
from pika.adapters.utils.io_services_utils import _AsyncPlaintextTransport

LARGE = 32 * 1024  # bytes
RECEIVED_AT_ONCE = 64 * 1024  # bytes; pika reads 4 KiB at a time, which makes a large task hundreds of calls


class Connection(AsyncioConnection):  # type: ignore[misc]
    """Sends all that is written in one turn of the loop with one call.

    Left to itself, pika sends each frame by itself: a result is three packets, and each of them wakes the broker.
    """

    def __init__(self, *args: Any, custom_ioloop: asyncio.AbstractEventLoop, **kwargs: Any) -> None:
        self._unsent: list[bytes] = []
        self._turn = custom_ioloop
        super().__init__(*args, custom_ioloop=custom_ioloop, **kwargs)

    def receive_in_large_pieces(self) -> None:
        """To be called when the connection is open."""
        if hasattr(self._transport, "_MAX_RECV_BYTES"):
            self._transport._MAX_RECV_BYTES = RECEIVED_AT_ONCE

    def _adapter_emit_data(self, data: bytes) -> None:
        """What an adapter of pika's has to define: take data to send."""
        if not self._unsent:
            self._turn.call_soon(self._send_all)
        self._unsent.append(data)

    def _send_all(self) -> None:
        unsent, self._unsent = self._unsent, []
        if self._transport is not None:
            for piece in _pieces(unsent):
                if rest := self._send_now(piece):
                    super()._adapter_emit_data(rest)

    def _send_now(self, piece: bytes) -> memoryview:
        """Send what the socket takes at once; returns the rest. Pika would ask first whether it is writable.

        The rest is no copy, which would be one more for each try.
        """
        rest = memoryview(piece)
        transport = self._transport
        if type(transport) is not _AsyncPlaintextTransport or transport.get_write_buffer_size():
            return rest
        try:
            return rest[transport._sock.send(piece) :]
        except OSError:  # it is full, or broken, which is for pika to find
            return rest


def _pieces(unsent: list[bytes]) -> Iterator[bytes]:
    """Small ones joined, large ones as they are: what a full socket leaves of a piece is copied for each try."""
    small: list[bytes] = []
    for data in unsent:
        if len(data) < LARGE:
            small.append(data)
            continue
        if small:
            yield b"".join(small)
            small = []
        yield data
    if small:
        yield b"".join(small)
