"""The manager's end of its channel with the monitor, on the loop: requests out, events in, nothing that waits."""

from __future__ import annotations

import asyncio
import logging
import os
import socket
from collections.abc import Callable, Mapping
from typing import Any

from endpoint.errors import EndpointError, Mender, Stage
from endpoint.privileged.channel import BadPacket, Channel, ChannelClosed

log = logging.getLogger(__name__)

EVENTS_AT_ONCE = 64  # that are read in one turn of the loop


class MonitorGone(EndpointError):
    """The monitor has ended, or does not listen: without it a manager can do nothing."""

    mender = Mender.ADMIN
    stage = Stage.RUN
    code = "MONITOR_GONE"


class MonitorLink:
    """`on_event` gets each event of the monitor; `gone` has a result when there will be no more."""

    def __init__(self, end: socket.socket, on_event: Callable[[Mapping[str, Any]], None]) -> None:
        self._channel = Channel(end)
        self._on_event = on_event
        self._loop = asyncio.get_running_loop()
        self.gone: asyncio.Future[None] = self._loop.create_future()
        self._loop.add_reader(self._channel, self._readable)

    def send(self, request: str, /, descriptor: int | None = None, **fields: Any) -> None:
        """Send a request as soon as the monitor takes it; `descriptor` is closed. Raises MonitorGone."""
        try:
            if self.gone.done():
                raise MonitorGone("The monitor of this endpoint has ended", hint="Start the endpoint again")
            self._channel.post({"request": request, **fields}, [] if descriptor is None else [descriptor])
        except BadPacket:
            raise  # a request of ours that is too large: nothing is wrong with the monitor
        except EndpointError as error:
            self._end(str(error))
            raise MonitorGone("The monitor of this endpoint does not answer", detail=str(error)) from error
        finally:
            if descriptor is not None:
                os.close(descriptor)
        if self._channel.waiting:
            self._loop.add_writer(self._channel, self._writable)

    def _writable(self) -> None:
        try:
            self._channel.flush()
        except ChannelClosed as error:
            self._end(str(error))
            return
        if not self._channel.waiting:
            self._loop.remove_writer(self._channel)

    def _readable(self) -> None:
        for _ in range(EVENTS_AT_ONCE):
            try:
                packet = self._channel.receive()
            except BlockingIOError:
                return
            except ChannelClosed as error:
                self._end(str(error))
                return
            except BadPacket as error:
                log.error("An event of the monitor can't be read: %s", error.failure.for_admin())
                continue
            packet.close()  # events carry no descriptors
            self._on_event(packet.message)

    def _end(self, why: str) -> None:
        if not self.gone.done():
            log.error("There is no monitor any more: %s", why)
            self.gone.set_result(None)
            self.close()

    def close(self) -> None:
        """Say nothing more, and hear nothing more. Idempotent."""
        if self._channel.fileno() >= 0:
            self._loop.remove_reader(self._channel)
            self._loop.remove_writer(self._channel)
            self._channel.close()
