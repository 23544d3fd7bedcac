"""Pika, awaited: one connection and its channels as coroutines, and pika's exceptions as ours.

Nothing above this module catches an exception of pika's.
"""

from __future__ import annotations

import asyncio
import re
import socket
import ssl
from typing import Any, Protocol

import pika
import pika.exceptions
from pika.channel import Channel

from endpoint.amqp.connection import Connection
from endpoint.errors import AccessRefused, EndpointError, NetworkFailure, QueueInUse, redact

CONNECT_TIMEOUT_S = 15.0
HEARTBEAT_S = 20  # a connection that was lost without a word is noticed after two of these, at both ends
PRECONDITION_FAILED = 406
_REFUSALS = (403, 404, 405, 530)  # AMQP reply codes that say "not you" or "no such thing"
_REFUSAL_IN_TEXT = re.compile(r"\((403|404|405|530)\b")
_PROBABLE = (pika.exceptions.ProbableAuthenticationError, pika.exceptions.ProbableAccessDeniedError)


class Role(Protocol):
    """What a link carries: see `Consumer` and `Publisher`."""

    async def attach(self, session: Session) -> None: ...


class Session:
    """An open connection: `lost` is done, with the reason, when the connection or one of its channels is gone."""

    def __init__(self, connection: Connection, where: str) -> None:
        self._connection = connection
        self._where = where
        self.lost: asyncio.Future[EndpointError] = asyncio.get_running_loop().create_future()
        connection.add_on_close_callback(lambda _connection, reason: self.lose(reason))

    def lose(self, reason: BaseException) -> None:
        """Give the session up because of `reason`; the first reason counts."""
        if not self.lost.done():
            self.lost.set_result(translate(reason, self._where))
        if self._connection.is_open:
            self._connection.close()

    async def channel(self) -> Channel:
        """A new channel, whose end is the end of the session."""
        opened: asyncio.Future[Channel] = asyncio.get_running_loop().create_future()

        def on_open(channel: Channel) -> None:
            channel.add_on_close_callback(lambda _channel, reason: self.lose(reason))
            _settle(opened, channel)

        self._connection.channel(on_open_callback=on_open)
        return await self.answer(opened)

    async def attach(self, role: Role) -> None:
        """Have a consumer or a publisher begin its work; raises AccessRefused or NetworkFailure."""
        try:
            await role.attach(self)
        except pika.exceptions.AMQPError as error:  # the connection broke just before a step of the set-up
            raise translate(error, self._where) from error

    async def answer(self, future: asyncio.Future[Any]) -> Any:
        """What the broker answers; raises the reason if the session is lost before."""
        await asyncio.wait((future, self.lost), return_when=asyncio.FIRST_COMPLETED)
        if future.done():
            return future.result()
        raise self.lost.result()

    async def close(self) -> None:
        """Close politely; returns when the broker has agreed, or the connection is gone anyway."""
        if self._connection.is_open:
            self._connection.close()
        if not self._connection.is_closed:
            await asyncio.wait((self.lost,), timeout=CONNECT_TIMEOUT_S)


async def connect(url: str) -> Session:
    """Connect to `url` (amqp[s]://user:password@host:port/vhost); raises AccessRefused or NetworkFailure."""
    where = redact(url)
    loop = asyncio.get_running_loop()
    opened: asyncio.Future[Connection] = loop.create_future()
    try:
        parameters = pika.URLParameters(url)
        if parameters.heartbeat is None:  # the address does not say, and a broker's own is a minute
            parameters.heartbeat = HEARTBEAT_S
    except (ValueError, TypeError, KeyError, IndexError) as error:
        raise AccessRefused(f"The broker's address {where} can't be read", detail=redact(repr(error))) from error
    connection = Connection(
        parameters,
        on_open_callback=lambda connection: _settle(opened, connection),
        on_open_error_callback=lambda _connection, error: _fail(opened, error),
        custom_ioloop=loop,
    )
    try:
        await asyncio.wait_for(opened, CONNECT_TIMEOUT_S)
        connection.receive_in_large_pieces()
        return Session(connection, where)
    except asyncio.TimeoutError as error:
        if not (connection.is_closing or connection.is_closed):
            connection.close()
        raise NetworkFailure(f"The broker at {where} did not answer within {CONNECT_TIMEOUT_S:g} s") from error
    except (pika.exceptions.AMQPError, OSError) as error:
        raise translate(error, where) from error


def translate(error: BaseException, where: str) -> EndpointError:
    """What an exception of pika's (or of the network below it) means to us."""
    if isinstance(error, EndpointError):
        return error
    detail = redact(repr(error))
    root = _root_of(error)
    if isinstance(root, _PROBABLE) and not _REFUSAL_IN_TEXT.search(str(root)):
        # Pika guesses from the moment of the loss; without the broker's word for it, it was the network.
        return NetworkFailure(f"The connection to the broker at {where} broke while it was set up", detail=detail)
    if isinstance(root, (pika.exceptions.ProbableAuthenticationError, pika.exceptions.AuthenticationError)):
        return AccessRefused(f"The broker at {where} refuses our credentials", detail=detail, code="BAD_CREDENTIALS")
    if isinstance(root, pika.exceptions.ProbableAccessDeniedError):
        return AccessRefused(f"The broker at {where} refuses us its virtual host", detail=detail)
    code = getattr(root, "reply_code", None)
    if code in _REFUSALS:
        text = redact(str(getattr(root, "reply_text", "")))
        if "exclusive" in text:
            return QueueInUse(
                f"At the broker {where} another connection has the queue: {text}",
                hint="It is another process of this endpoint, or one whose end the broker has not noticed yet",
                detail=detail,
            )
        return AccessRefused(f"The broker at {where} refuses what we ask: {text}", detail=detail, code=f"AMQP_{code}")
    if code == PRECONDITION_FAILED and "timed out" in str(getattr(root, "reply_text", "")):
        return NetworkFailure(
            f"The broker at {where} closed the channel, as a task was not acknowledged in time",
            hint="The endpoint's ack_deadline has to be shorter than the broker's consumer_timeout",
            detail=detail,
            code="CONSUMER_TIMEOUT",
        )
    if isinstance(root, ssl.SSLError):
        return NetworkFailure(f"No secure connection to the broker at {where}: {root}", detail=detail, code="TLS")
    if isinstance(root, socket.gaierror):
        return NetworkFailure(f"The name of the broker at {where} is unknown here", detail=detail, code="DNS")
    return NetworkFailure(f"No connection to the broker at {where}", detail=detail)


def _root_of(error: BaseException) -> BaseException:
    """The first cause inside pika's nested connection errors."""
    for inner in _nested(error):
        if isinstance(inner, BaseException):
            return _root_of(inner)
    return error


def _nested(error: BaseException) -> list[object]:
    args = list(error.args)
    exceptions = [getattr(arg, "exception", arg) for arg in args]
    return [*exceptions, *(inner for arg in args if isinstance(arg, (list, tuple)) for inner in arg)]


def _settle(future: asyncio.Future[Any], value: Any) -> None:
    if not future.done():
        future.set_result(value)


def _fail(future: asyncio.Future[Any], error: Any) -> None:
    if not future.done():
        future.set_exception(error if isinstance(error, BaseException) else ConnectionError(str(error)))
