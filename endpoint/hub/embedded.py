"""A private RabbitMQ node: the distribution's package, run as whoever we are, reachable on the loopback only.

Everything of the node lives in one directory: its data, its logs, its Erlang cookie, its admin password and the ports
that it got on its first start, so that a restart on the same directory finds the same queues at the same address. The
node and its `epmd` (Erlang's name server, on a port of its own) are our direct children: they end when we end them,
and the kernel ends them when we are killed.
"""

from __future__ import annotations

import asyncio
import collections
import json
import os
import random
import secrets
import shutil
import signal
import socket
from contextlib import ExitStack
from dataclasses import asdict, dataclass, field
from pathlib import Path

from endpoint.errors import AlreadyRunning, ConfigError, NetworkFailure, Stage

VHOST = "compute"
ADMIN = "hub-admin"
NODE = "hub@localhost"
START_TIMEOUT = 120.0  # seconds; five on an idle machine
STOP_TIMEOUT = 30.0
SERVER_SCRIPTS = ("/usr/lib/rabbitmq/bin/rabbitmq-server", "/opt/rabbitmq/sbin/rabbitmq-server")

_READY = "Server startup complete"
# Logged when the broker itself has stopped and written everything. What follows is the management plugin's own five
# seconds of waiting, which nobody needs.
_STOPPED = "Management plugin: to stop collect_statistics"


@dataclass(frozen=True)
class NodeSettings:
    """What a node keeps over restarts; in `node.json`, mode 0600."""

    amqp_port: int
    management_port: int
    distribution_port: int
    epmd_port: int
    password: str = field(repr=False)

    @classmethod
    def of(cls, directory: Path) -> NodeSettings:
        """The settings in `directory`, made up where it has none yet."""
        file = directory / "node.json"
        try:
            return cls(**json.loads(file.read_text()))
        except FileNotFoundError:
            amqp, management, distribution, epmd = free_ports(4)
            settings = cls(amqp, management, distribution, epmd, password=secrets.token_urlsafe(24))
            write_private(file, json.dumps(asdict(settings)))
            return settings
        except (ValueError, TypeError) as e:
            raise ConfigError(
                f"{file} is not a broker's settings",
                hint=f"Delete it to let the broker choose its ports and password anew; its queues in {directory} stay",
                detail=str(e),
                stage=Stage.HUB,
            ) from e


class EmbeddedBroker:
    """`await start()`, use `amqp_url` and `management_url`, `await stop()`.

    Start it in a thread that lives as long as it is needed: the kernel ends it with that thread.

    amqp_url: `amqp://127.0.0.1:PORT` without credentials and virtual host (these are `user`, `password`, `vhost`).
    """

    def __init__(self, directory: Path) -> None:
        self.directory = directory.resolve()
        self.user = ADMIN
        self.vhost = VHOST
        self._node: asyncio.subprocess.Process | None = None
        self._epmd: asyncio.subprocess.Process | None = None
        self._output: asyncio.Task[None] | None = None
        self._lines: collections.deque[str] = collections.deque(maxlen=40)
        self._seen_ready = asyncio.Event()
        self._seen_stopped = asyncio.Event()
        self._settings: NodeSettings | None = None
        self._stopping = False

    @property
    def settings(self) -> NodeSettings:
        if self._settings is None:
            self.directory.mkdir(mode=0o700, parents=True, exist_ok=True)
            self._settings = NodeSettings.of(self.directory)
        return self._settings

    @property
    def password(self) -> str:
        return self.settings.password

    @property
    def amqp_url(self) -> str:
        return f"amqp://127.0.0.1:{self.settings.amqp_port}"

    @property
    def management_url(self) -> str:
        return f"http://127.0.0.1:{self.settings.management_port}"

    @property
    def pids(self) -> list[int]:
        """The processes that we started and that still run."""
        return [p.pid for p in (self._epmd, self._node) if p is not None and p.returncode is None]

    async def start(self) -> None:
        """Start the node and wait until it takes connections.

        Raises ConfigError when RabbitMQ isn't installed, AlreadyRunning when one of the node's ports is in use,
        NetworkFailure when the node doesn't come up.
        """
        server = find_server()
        try:
            settings = self.settings
            write_node_files(self.directory, settings)
        except OSError as e:
            raise ConfigError(f"The broker's directory {self.directory} can't be used: {e}", stage=Stage.HUB) from e
        for port in (settings.amqp_port, settings.management_port, settings.distribution_port, settings.epmd_port):
            _require_free(port, self.directory)
        self._seen_ready, self._seen_stopped, self._stopping = asyncio.Event(), asyncio.Event(), False
        environment = node_environment(self.directory, settings)
        try:
            self._epmd = await _spawn(
                [_program("epmd"), "-port", str(settings.epmd_port), "-address", "127.0.0.1"], environment
            )
            self._node = await _spawn([str(server)], environment, piped=True)
            self._output = asyncio.create_task(self._read_output(self._node))
            await self._until_ready()
        except BaseException:
            await self.stop()
            raise

    async def stop(self) -> None:
        """Stop the node, then its name server; safe to call at any time, more than once."""
        self._stopping = True
        if self._node is not None and self._node.returncode is None:
            self._node.send_signal(signal.SIGTERM)
            stopped = asyncio.create_task(self._seen_stopped.wait())
            ended = asyncio.create_task(self._node.wait())
            await asyncio.wait({stopped, ended}, timeout=STOP_TIMEOUT, return_when=asyncio.FIRST_COMPLETED)
            stopped.cancel()
            if not ended.done():
                self._node.kill()
            await ended
        if self._epmd is not None and self._epmd.returncode is None:
            self._epmd.terminate()
            await self._epmd.wait()
        if self._output is not None:
            await self._output
        self._node = self._epmd = self._output = None

    async def ended(self) -> None:
        """Wait until the node has ended, and raise NetworkFailure unless `stop` ended it."""
        assert self._node is not None
        node = self._node
        status = await node.wait()
        if self._node is node and not self._stopping:
            raise self._gone(f"ended with status {status}")

    def _gone(self, how: str) -> NetworkFailure:
        return NetworkFailure(
            f"The embedded RabbitMQ {how}",
            hint=f"Its log is {self.directory / 'log' / 'broker.log'}",
            detail="\n".join(self._lines),
            stage=Stage.HUB,
        )

    async def _until_ready(self) -> None:
        assert self._node is not None
        ready = asyncio.create_task(self._seen_ready.wait())
        ended = asyncio.create_task(self._node.wait())
        try:
            await asyncio.wait({ready, ended}, timeout=START_TIMEOUT, return_when=asyncio.FIRST_COMPLETED)
            if ready.done():
                return
            how = f"ended with status {ended.result()}" if ended.done() else f"isn't up after {START_TIMEOUT:.0f} s"
            raise self._gone(how)
        finally:
            ready.cancel()
            ended.cancel()

    async def _read_output(self, node: asyncio.subprocess.Process) -> None:
        assert node.stdout is not None
        async for raw in node.stdout:
            line = raw.decode(errors="replace").rstrip()
            self._lines.append(line)
            if _READY in line:
                self._seen_ready.set()
            elif _STOPPED in line:
                self._seen_stopped.set()


def find_server() -> Path:
    """The server's own script: the one on PATH may be a wrapper that insists on a certain user."""
    candidates = [Path(p) for p in SERVER_SCRIPTS]
    if named := os.environ.get("RABBITMQ_SERVER"):
        candidates.insert(0, Path(named))
    elif found := shutil.which("rabbitmq-server"):
        candidates.append(Path(found).resolve())
    for candidate in candidates:
        if candidate.is_file() and "su rabbitmq" not in candidate.read_text(errors="replace"):
            return candidate
    raise ConfigError(
        "RabbitMQ is not installed on this machine",
        hint="Install it with `apt-get install rabbitmq-server`, or name its server script in RABBITMQ_SERVER",
        stage=Stage.HUB,
        code="RABBITMQ_MISSING",
    )


def free_ports(count: int) -> list[int]:
    """`count` different loopback ports that nobody uses now.

    They lie below the range from which the kernel takes the ports of outgoing connections: a node that is away for a
    moment must find its port free again, not in use by some client's connection.
    """
    highest = _first_outgoing_port()
    with ExitStack() as taken:
        ports: list[int] = []
        while len(ports) < count:
            sock = taken.enter_context(socket.socket())
            try:
                sock.bind(("127.0.0.1", random.randrange(10240, highest) if highest > 11000 else 0))  # noqa: S311
            except OSError:
                continue
            ports.append(sock.getsockname()[1])
        return ports


def _first_outgoing_port() -> int:
    try:
        return int(Path("/proc/sys/net/ipv4/ip_local_port_range").read_text().split()[0])
    except (OSError, ValueError, IndexError):
        return 0


def _require_free(port: int, directory: Path) -> None:
    with socket.socket() as sock:
        # as the node does: connections of its last run may linger in TIME_WAIT
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            sock.bind(("127.0.0.1", port))
        except OSError as e:
            raise AlreadyRunning(
                f"Port {port} of the broker in {directory} is in use: it runs already, or another program took it",
                hint=f"Stop that program, or delete {directory / 'node.json'} to let the broker choose new ports",
                detail=str(e),
                stage=Stage.HUB,
                code="PORT_IN_USE",
            ) from e


def write_node_files(directory: Path, settings: NodeSettings) -> None:
    """The node's configuration; written at each start, so that it follows this program's version."""
    conf = directory / "conf"
    conf.mkdir(mode=0o700, exist_ok=True)
    write_private(conf / "enabled_plugins", "[rabbitmq_management].\n")
    write_private(conf / "definitions.json", json.dumps(_definitions(settings)))
    lines = {
        "listeners.tcp.1": f"127.0.0.1:{settings.amqp_port}",
        "management.tcp.ip": "127.0.0.1",
        "management.tcp.port": settings.management_port,
        "management.rates_mode": "none",
        "load_definitions": conf / "definitions.json",
        "vm_memory_high_watermark.absolute": "1GB",
        "disk_free_limit.absolute": "50MB",
        "max_message_size": 134217728,
        "log.console": "true",  # which we read; the file is for people
        "log.file": "broker.log",
    }
    write_private(conf / "rabbitmq.conf", "".join(f"{key} = {value}\n" for key, value in lines.items()))


def _definitions(settings: NodeSettings) -> dict[str, object]:
    """An administrator and a virtual host, and because there are definitions, no guest user."""
    return {
        "users": [{"name": ADMIN, "password": settings.password, "tags": "administrator"}],
        "vhosts": [{"name": VHOST}],
        "permissions": [{"user": ADMIN, "vhost": VHOST, "configure": ".*", "write": ".*", "read": ".*"}],
    }


def node_environment(directory: Path, settings: NodeSettings) -> dict[str, str]:
    """The whole environment of the node; nothing of RabbitMQ's or Erlang's in ours leaks into it."""
    conf = directory / "conf"
    return {
        "PATH": os.environ.get("PATH", os.defpath),
        "HOME": str(directory),  # the Erlang cookie
        "LANG": "C.UTF-8",
        "ERL_CRASH_DUMP_SECONDS": "0",  # a dump has everything in it, passwords too
        "ERL_EPMD_PORT": str(settings.epmd_port),
        "ERL_EPMD_ADDRESS": "127.0.0.1",
        "RABBITMQ_NODENAME": NODE,
        "RABBITMQ_DIST_PORT": str(settings.distribution_port),
        "RABBITMQ_CONFIG_FILE": str(conf / "rabbitmq.conf"),
        "RABBITMQ_ADVANCED_CONFIG_FILE": str(conf / "advanced.config"),
        "RABBITMQ_ENABLED_PLUGINS_FILE": str(conf / "enabled_plugins"),
        "RABBITMQ_GENERATED_CONFIG_DIR": str(conf / "generated"),
        "RABBITMQ_CONF_ENV_FILE": "/dev/null",
        "RABBITMQ_MNESIA_BASE": str(directory / "mnesia"),
        "RABBITMQ_LOG_BASE": str(directory / "log"),
        "RABBITMQ_PID_FILE": str(directory / "node.pid"),
        "RABBITMQ_SERVER_ADDITIONAL_ERL_ARGS": "-kernel inet_dist_use_interface {127,0,0,1} +S 1:1 +sbwt none",
        # Makes the script become the node, instead of waiting for it in a shell.
        "RUNNING_UNDER_SYSTEMD": "true",
    }


async def _spawn(command: list[str], environment: dict[str, str], *, piped: bool = False) -> asyncio.subprocess.Process:
    """A child in a session of its own (the terminal's Ctrl-C is ours to handle) that the kernel kills when we die.

    Killing is safe: what the broker has confirmed is on its disk.
    """
    return await asyncio.create_subprocess_exec(
        _program("setpriv"),
        "--pdeathsig",
        "KILL",
        *command,
        env=environment,
        cwd=environment["HOME"],
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE if piped else asyncio.subprocess.DEVNULL,
        stderr=asyncio.subprocess.STDOUT if piped else asyncio.subprocess.DEVNULL,
        start_new_session=True,
    )


def _program(name: str) -> str:
    found = shutil.which(name)
    if found is None:
        package = {"epmd": "erlang-base", "setpriv": "util-linux"}[name]
        raise ConfigError(
            f"The program {name}, which the embedded RabbitMQ needs, is not on PATH",
            hint=f"Install the package {package}",
            stage=Stage.HUB,
            code="RABBITMQ_MISSING",
        )
    return found


def write_private(file: Path, text: str) -> None:
    """Write `text` to `file`, which nobody else may read, at any moment."""
    descriptor = os.open(file, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    with os.fdopen(descriptor, "w") as stream:
        os.fchmod(stream.fileno(), 0o600)
        stream.write(text)
