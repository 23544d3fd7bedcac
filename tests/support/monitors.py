"""A monitor as a process, with a test in the place of its manager."""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import select
import shutil
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from endpoint.privileged.channel import Channel
from endpoint.privileged.documents import SEALS
from tests.support.accounts import Accounts, TestUser
from tests.support.installed import Installed

SUPPORT = Path(__file__).parent
PATIENCE_S = 15.0
START = """
import sys
from pathlib import Path
from endpoint.privileged.monitor import main
name, folder, python, manager, user = sys.argv[1:6]
sys.exit(main(
    [name, "--endpoint-dir", folder + "/" + name, "--policy", folder + "/policy.json", "--", *sys.argv[6:]],
    manager_command=lambda monitor_fd: (python, "-I", manager, str(monitor_fd), folder + "/socket"),
    user_command=lambda user_endpoint: (python, "-I", user, user_endpoint),
))
"""


def sealed(content: bytes | Mapping[str, Any], seals: int = SEALS) -> int:
    """A memory file with this content, sealed."""
    descriptor = os.memfd_create("document", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
    os.write(descriptor, content if isinstance(content, bytes) else json.dumps(content).encode())
    os.lseek(descriptor, 0, os.SEEK_SET)
    fcntl.fcntl(descriptor, fcntl.F_ADD_SEALS, seals)
    return descriptor


class Site:
    """One endpoint: its directory, policy, runtime directory, and one monitor after the other."""

    def __init__(self, program: Installed, service: TestUser, policy: Mapping[str, Any]) -> None:
        self.program = program
        self.service = service
        self.name = "site"
        self.folder = Path(tempfile.mkdtemp(prefix="gct-site-"))
        self.folder.chmod(0o755)
        for script in ("seen_by_user.py", "manager_stand_in.py"):
            shutil.copy(SUPPORT / script, self.folder / script)
            (self.folder / script).chmod(0o644)
        (self.folder / self.name).mkdir()
        os.chown(self.folder / self.name, service.uid, service.gid)
        self.runtime = self.folder / "run"
        self.write_policy(policy)
        self._listener = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self._listener.bind(str(self.folder / "socket"))
        (self.folder / "socket").chmod(0o777)
        self._listener.listen(1)
        self._monitors: list[RunningMonitor] = []

    def write_policy(self, policy: Mapping[str, Any]) -> None:
        """The policy from the next monitor on."""
        whole = {"service_user": self.service.name, "runtime_directory": str(self.runtime), "end_s": 1, **policy}
        (self.folder / "policy.json").write_text(json.dumps(whole))

    def command(self, *arguments: str) -> list[str]:
        """The command line of a monitor with the test's programs."""
        programs = [self.program.python, self.folder / "manager_stand_in.py", self.folder / "seen_by_user.py"]
        own = [self.program.python, "-I", "-c", START, self.name, self.folder, *programs, *arguments]
        return [str(word) for word in own]

    def start(self, **variables: str) -> RunningMonitor:
        """A monitor whose manager is the test."""
        log = (self.folder / "monitor.log").open("ab")
        environment = {"PATH": os.environ["PATH"], "LANG": "C.UTF-8", **variables}
        process = subprocess.Popen(self.command(), stdin=subprocess.DEVNULL, stderr=log, stdout=log, env=environment)
        log.close()
        ready, _, _ = select.select([self._listener], [], [], PATIENCE_S)
        assert ready, self.log()
        connection, _ = self._listener.accept()
        data, descriptors, _, _ = socket.recv_fds(connection, 100, 1)
        channel = Channel(socket.socket(fileno=descriptors[0]))
        running = RunningMonitor(process, int(data), connection, channel, self)
        self._monitors.append(running)
        return running

    def log(self) -> str:
        """What monitors and keepers have said."""
        path = self.folder / "monitor.log"
        return path.read_text() if path.exists() else ""

    def facts(self) -> dict[str, Any]:
        """What stands in the runtime directory, by user endpoint."""
        found = (json.loads(path.read_text()) for path in (self.runtime / self.name).glob("*.json"))
        return {facts["name"]: facts for facts in found}

    def clean_up(self) -> None:
        """End everything that is left, and remove the files."""
        with contextlib.suppress(FileNotFoundError):
            for facts in self.facts().values():
                for pid in (facts["pid"], facts["keeper"]):
                    with contextlib.suppress(ProcessLookupError):
                        if pid:
                            os.kill(pid, 9)
        for running in self._monitors:
            running.end()
        self._listener.close()
        shutil.rmtree(self.folder)


class RunningMonitor:
    """A monitor, and the test's end of its channel."""

    def __init__(
        self, process: subprocess.Popen[bytes], manager: int, connection: socket.socket, channel: Channel, site: Site
    ) -> None:
        self.process = process
        self.manager = manager
        self.channel = channel
        self._connection = connection
        self._site = site
        self.events: list[dict[str, Any]] = []

    def ask(self, request: str, *descriptors: int, **fields: Any) -> None:
        """Send a request; the descriptors are closed."""
        self.channel.send({"request": request, **fields}, descriptors)
        for descriptor in descriptors:
            os.close(descriptor)

    def hello(self) -> list[dict[str, Any]]:
        """Greet; returns the events up to `welcome`."""
        before = len(self.events)
        self.ask("hello", version=1)
        self.wait_for("welcome")
        return self.events[before:]

    def start(self, name: str, user: str, **document: Any) -> None:
        """Ask for a user endpoint."""
        texts = {"identity": "00000000-0000-4000-8000-000000000001", "identity_name": "her@example.org", "note": "n"}
        texts["mapped_by"] = "document 1, rule 1"
        self.ask("start", sealed(document), name=name, user=user, **texts)

    def next(self) -> dict[str, Any]:
        """The next event."""
        ready, _, _ = select.select([self.channel], [], [], PATIENCE_S)
        assert ready, f"no event; so far {self.events}\n{self._site.log()}"
        event = dict(self.channel.receive().message)
        self.events.append(event)
        return event

    def wait_for(self, kind: str, name: str | None = None) -> dict[str, Any]:
        """The next event of a kind (about one user endpoint)."""
        while True:
            event = self.next()
            if event["event"] == kind and name in (None, event.get("name")):
                return event
            assert not (event["event"] in ("refused", "failed") and name == event.get("name")), (
                event,
                self._site.log(),
            )

    def running(self, name: str, user: str, **document: Any) -> dict[str, Any]:
        """Ask for a user endpoint, and wait until it runs; returns that event."""
        self.start(name, user, **document)
        return self.wait_for("running", name)

    def heard(self) -> int:
        """The next signal that the manager has got."""
        ready, _, _ = select.select([self._connection], [], [], PATIENCE_S)
        assert ready, "the manager got no signal"
        return int(self._connection.recv(100))

    def end_manager(self, status: int = 0) -> int:
        """The manager ends with a status; returns the monitor's."""
        self._connection.send(str(status).encode())
        return self.process.wait(PATIENCE_S)

    def end(self) -> None:
        """End the monitor, whatever it does, and its manager."""
        if self.process.poll() is None:
            self.process.kill()
            self.process.wait(PATIENCE_S)
        self.channel.close()
        self._connection.close()  # by which the manager ends


def wait_until(condition: Any, what: str, patience_s: float = PATIENCE_S) -> None:
    """Wait for something that has no event."""
    deadline = time.monotonic() + patience_s
    while not condition():
        assert time.monotonic() < deadline, what
        time.sleep(0.02)


def is_alive(pid: int) -> bool:
    """Whether a process is there and has not ended."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return False
    return stat.rpartition(")")[2].split()[0] not in "ZX"


@contextlib.contextmanager
def site(program: Installed, machine: Accounts, service: TestUser, **policy: Any) -> Iterator[Site]:
    """An endpoint for a while, without PAM unless the policy says so."""
    made = Site(program, service, {"pam": {"enable": False}, **policy})
    try:
        yield made
    finally:
        made.clean_up()
