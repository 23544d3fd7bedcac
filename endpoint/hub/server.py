"""One hub process: its lock, its broker, its web service; up in this order, down in the opposite one."""

from __future__ import annotations

import asyncio
import fcntl
import json
import logging
import os
import signal
import socket
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

import uvicorn

from endpoint.errors import AlreadyRunning, ConfigError, NetworkFailure, Stage
from endpoint.hub.app import create_app
from endpoint.hub.broker_admin import BrokerAdmin
from endpoint.hub.embedded import VHOST, EmbeddedBroker
from endpoint.hub.settings import HubSettings

log = logging.getLogger(__name__)

GRACE = 3  # seconds that requests get to end when the service stops


@dataclass(frozen=True)
class ExistingBroker:
    """A broker that somebody else runs.

    amqp_url: where hub, endpoints and clients find it, `amqp[s]://host[:port]/vhost`; without a path, vhost `compute`.
    management_url, user, password: its management API, and an administrator there.
    """

    amqp_url: str
    management_url: str
    user: str
    password: str


def admin_of(broker: ExistingBroker | EmbeddedBroker) -> BrokerAdmin:
    """Who provisions the broker."""
    if isinstance(broker, EmbeddedBroker):
        base, vhost = broker.amqp_url, broker.vhost
    else:
        parts = urlsplit(broker.amqp_url)
        base, vhost = f"{parts.scheme}://{parts.netloc}", unquote(parts.path.removeprefix("/")) or VHOST
    return BrokerAdmin(broker.management_url, broker.user, broker.password, base, vhost)


async def end_connections(broker_directory: Path, client_id: str) -> None:
    """End a deleted client's connections to an embedded broker, if that runs."""
    admin = admin_of(EmbeddedBroker(broker_directory))
    try:
        await admin.remove_client(client_id)
    except NetworkFailure:
        log.info("The broker in %s doesn't run", broker_directory)
    finally:
        await admin.close()


async def serve(
    settings: HubSettings,
    broker: ExistingBroker | Path,
    *,
    host: str,
    port: int,
    progress: Callable[[str], None],
    ready: Callable[[str], None],
) -> None:
    """Serve until SIGTERM or SIGINT, then stop everything and return.

    broker: one that runs, or the directory of an embedded one. port: 0 takes a free one.
    progress gets sentences, ready the service's URL. Raises an EndpointError when something can't start, or when the
    broker is lost for good.
    """
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    with _only_one(settings.database), _listening(host, port) as listener:
        async with _broker(broker, progress, stop) as (admin, broker_ended):
            if stop.is_set():
                return
            app = create_app(settings, admin)
            async with app.router.lifespan_context(app):
                # A broken link is mended by itself; this is about one that can't be, and about defects.
                losses = [asyncio.create_task(app.state.hub.lost()), *broker_ended]
                try:
                    await _serve_http(app, listener, stop, losses, ready, progress)
                finally:
                    for loss in losses:
                        loss.cancel()
        progress("Stopped")


async def _serve_http(
    app: Any,
    listener: socket.socket,
    stop: asyncio.Event,
    losses: list[asyncio.Task[None]],
    ready: Callable[[str], None],
    progress: Callable[[str], None],
) -> None:
    server = _Server(
        uvicorn.Config(app, lifespan="off", log_config=None, access_log=False, timeout_graceful_shutdown=GRACE)
    )
    serving = asyncio.create_task(server.serve(sockets=[listener]))
    asked = asyncio.create_task(stop.wait())
    host, port = listener.getsockname()[:2]
    ready(f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}")
    await asyncio.wait({serving, asked, *losses}, return_when=asyncio.FIRST_COMPLETED)
    progress("Stopping")
    asked.cancel()
    server.should_exit = True
    await serving
    for loss in losses:
        if loss.done():
            loss.result()


class _Server(uvicorn.Server):
    """Leaves the signals to us: there is more to stop than the web service."""

    def capture_signals(self) -> Any:
        return nullcontext()


@asynccontextmanager
async def _broker(
    broker: ExistingBroker | Path, progress: Callable[[str], None], stop: asyncio.Event
) -> AsyncIterator[tuple[BrokerAdmin, list[asyncio.Task[None]]]]:
    if isinstance(broker, ExistingBroker):
        admin = admin_of(broker)
        try:
            yield admin, []
        finally:
            await admin.close()
        return
    node = EmbeddedBroker(broker)
    progress(f"Starting RabbitMQ in {broker} (some seconds)")
    try:
        await _unless(stop, node.start())
        if stop.is_set():
            yield admin_of(node), []
            return
        progress(f"RabbitMQ is at {node.amqp_url}")
        admin = admin_of(node)
        try:
            yield admin, [asyncio.create_task(node.ended())]
        finally:
            await admin.close()
    finally:
        await node.stop()


async def _unless(stop: asyncio.Event, starting: Any) -> None:
    """Wait for `starting`, or cancel it when we are asked to stop."""
    start, asked = asyncio.ensure_future(starting), asyncio.create_task(stop.wait())
    await asyncio.wait({start, asked}, return_when=asyncio.FIRST_COMPLETED)
    asked.cancel()
    if start.done():
        start.result()
        return
    start.cancel()
    await asyncio.wait({start})


@contextmanager
def _only_one(database: Path) -> Iterator[None]:
    """Hold the lock beside the database; the kernel lets it go when we end in whatever way."""
    file = database.with_suffix(".lock")
    try:
        file.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        descriptor = os.open(file, os.O_RDWR | os.O_CREAT, 0o600)
    except OSError as e:
        raise ConfigError(f"{file} can't be written: {e.strerror}", stage=Stage.HUB) from e
    with os.fdopen(descriptor, "r+") as stream:
        try:
            fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as e:
            raise AlreadyRunning(
                f"Another hub uses {database.parent}: {_who(stream.read())}",
                hint="Stop that one first, or use another directory",
                stage=Stage.HUB,
            ) from e
        stream.truncate(0)
        json.dump({"pid": os.getpid(), "host": socket.gethostname()}, stream)
        stream.flush()
        yield


def _who(text: str) -> str:
    try:
        document = json.loads(text)
        return f"process {document['pid']} on {document['host']}"
    except (ValueError, KeyError, TypeError):
        return "its process is not known"


@contextmanager
def _listening(host: str, port: int) -> Iterator[socket.socket]:
    """The service's socket, bound before anything else starts: a port that is taken is known at once."""
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        listener = socket.socket(family, kind, protocol)
    except OSError as e:
        raise ConfigError(f"{host!r} is not an address of this machine", detail=str(e), stage=Stage.HUB) from e
    with listener:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            listener.bind(address)
            listener.listen()  # two sockets can be bound to one port; only one can listen
        except OSError as e:
            raise AlreadyRunning(
                f"The hub can't listen at {host}:{port}: {e.strerror}",
                hint="Stop the program that uses this port, or choose another one with --port",
                stage=Stage.HUB,
                code="PORT_IN_USE",
            ) from e
        yield listener
