"""One hub process: its lock, its broker, its web service; up in this order, down in the opposite one."""

from __future__ import annotations

import asyncio
import logging
import os
import signal
import socket
import ssl
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import unquote, urlsplit

import uvicorn

from endpoint.errors import AlreadyRunning, ConfigError, NetworkFailure, Stage
from endpoint.hub.app import create_app
from endpoint.hub.broker_admin import BrokerAdmin
from endpoint.hub.embedded import VHOST, EmbeddedBroker
from endpoint.hub.lock import only_one
from endpoint.hub.settings import HubSettings
from endpoint.privileged.notify import Notifier

if TYPE_CHECKING:
    from endpoint.config.hub import TlsConfig

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


def check_tls(tls: TlsConfig) -> None:
    """Raise ConfigError where the pair can't be used, before anything starts."""
    try:
        ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER).load_cert_chain(tls.certificate, tls.key, password=_no_password)
    except (OSError, ValueError) as e:  # an ssl.SSLError is an OSError
        why = e.strerror if isinstance(e, OSError) and e.filename is None else str(e)
        raise ConfigError(
            f"The certificate {tls.certificate} with the key {tls.key} can't be used: {why}",
            hint="Both are PEM files that the hub's account can read, the key without a password, and belong together",
            stage=Stage.HUB,
            code="BAD_CERTIFICATE",
        ) from e


def _no_password() -> str:
    raise ValueError("the key has a password")  # else OpenSSL would ask for it on the terminal


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
    tls: TlsConfig | None = None,
    progress: Callable[[str], None],
    ready: Callable[[str], None],
) -> None:
    """Serve until SIGTERM or SIGINT, then stop everything and return.

    broker: one that runs, or the directory of an embedded one. port: 0 takes a free one. tls: for HTTPS.
    progress gets sentences, ready the service's URL. Raises an EndpointError when something can't start, or when the
    broker is lost for good.
    """
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    notifier = Notifier(os.environ)
    if tls is not None:
        check_tls(tls)
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    with only_one(settings.database), _listening(host, port) as listener:
        async with _broker(broker, progress, stop) as (admin, broker_ended):
            if stop.is_set():
                return
            app = create_app(settings, admin)
            async with app.router.lifespan_context(app):
                # A broken link is mended by itself; this is about one that can't be, and about defects.
                losses = [asyncio.create_task(app.state.hub.lost()), *broker_ended]
                beating = asyncio.create_task(notifier.beat())
                try:
                    await _serve_http(app, listener, stop, losses, _telling(notifier, ready), progress, tls)
                finally:
                    notifier.tell("STOPPING=1")
                    for task in (*losses, beating):
                        task.cancel()
        progress("Stopped")


def _telling(notifier: Notifier, ready: Callable[[str], None]) -> Callable[[str], None]:
    """As `ready`; the service manager hears of it too."""

    def tell(url: str) -> None:
        ready(url)
        notifier.tell(f"READY=1\nSTATUS=Serves at {url}")

    return tell


async def _serve_http(
    app: Any,
    listener: socket.socket,
    stop: asyncio.Event,
    losses: list[asyncio.Task[None]],
    ready: Callable[[str], None],
    progress: Callable[[str], None],
    tls: TlsConfig | None,
) -> None:
    server = _Server(
        uvicorn.Config(
            app,
            lifespan="off",
            log_config=None,
            access_log=False,
            timeout_graceful_shutdown=GRACE,
            ssl_certfile=None if tls is None else tls.certificate,
            ssl_keyfile=None if tls is None else tls.key,
        )
    )
    serving = asyncio.create_task(server.serve(sockets=[listener]))
    asked = asyncio.create_task(stop.wait())
    host, port = listener.getsockname()[:2]
    scheme = "http" if tls is None else "https"
    ready(f"{scheme}://[{host}]:{port}" if ":" in host else f"{scheme}://{host}:{port}")
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
