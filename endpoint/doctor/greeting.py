"""The first words of an AMQP server, which it says to anybody: enough to see that it is one, and how far away."""

from __future__ import annotations

import socket
import ssl
import time
from dataclasses import dataclass
from typing import Any

import pika.exceptions
import pika.frame
import pika.spec

from endpoint.doctor.certificates import Place, connection
from endpoint.errors import NetworkFailure

LARGEST = 128 * 1024  # bytes


@dataclass(frozen=True)
class Greeting:
    """product, version: as the server says. connect_ms, answer_ms: the TCP connection, and header to greeting."""

    product: str
    version: str
    connect_ms: float
    answer_ms: float


def greet(place: Place, timeout_s: float, context: ssl.SSLContext | None) -> Greeting:
    """Say that we speak AMQP 0-9-1, and listen; nobody logs in. Raises NetworkFailure."""
    begin = time.monotonic()
    with connection(place, timeout_s) as opened:
        connect_ms = _ms(begin)
        try:
            if context is None:
                return _converse(opened, place, connect_ms)
            with context.wrap_socket(opened, server_hostname=place.host) as secure:
                return _converse(secure, place, connect_ms)
        except (OSError, ssl.SSLError) as error:
            raise NetworkFailure(f"{place} breaks off the conversation", detail=repr(error), code="NO_AMQP") from error


def _converse(peer: socket.socket, place: Place, connect_ms: float) -> Greeting:
    begin = time.monotonic()
    peer.sendall(pika.frame.ProtocolHeader().marshal())
    received = b""
    while len(received) < LARGEST:
        piece = peer.recv(65536)
        received += piece
        properties = _properties(received, place)
        if properties is not None:
            return Greeting(
                str(properties.get("product", "an AMQP server"))[:80],
                str(properties.get("version", ""))[:40],
                connect_ms,
                _ms(begin),
            )
        if not piece:
            break
    raise _no_amqp(place, received)


def _properties(received: bytes, place: Place) -> dict[str, Any] | None:
    """What the server says of itself; None while the frame is not whole."""
    try:
        _, frame = pika.frame.decode_frame(received)
    except (pika.exceptions.AMQPError, ValueError, LookupError, UnicodeDecodeError) as error:
        raise _no_amqp(place, received) from error
    if frame is None:
        return None
    method = getattr(frame, "method", None)
    if not isinstance(method, pika.spec.Connection.Start):
        raise _no_amqp(place, received)
    return dict(method.server_properties)


def _no_amqp(place: Place, received: bytes) -> NetworkFailure:
    said = repr(received[:60]) if received else "nothing"
    return NetworkFailure(
        f"What answers at {place} is no AMQP server",
        hint="Look at amqp_port in config.yaml, and what stands in between",
        detail=f"It said {said}",
        code="NO_AMQP",
    )


def _ms(begin: float) -> float:
    return round((time.monotonic() - begin) * 1000, 1)
