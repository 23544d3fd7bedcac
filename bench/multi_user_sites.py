"""Both multi-user endpoints as a site has them: started by root, with an identity mapping, PAM, and real users."""

from __future__ import annotations

import contextlib
import json
import os
import secrets
import shutil
import signal
import subprocess
import tempfile
import time
import uuid
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bench.figures import OFFICIAL, OURS
from bench.processes import PROC, children_of, cpu_seconds_of, pss_bytes
from tests.support.accounts import PAM_FOLDER, TestUser, accounts
from tests.support.hubs import Credentials
from tests.support.installed import Installed, installed
from tests.support.multi_user import NAME, MultiUserEndpoint
from tests.support.web_service import OWNER, SECRET, Answer, WebService

TEMPLATE = "engine:\n  type: ThreadPoolEngine\n  max_workers: 2\nheartbeat_period: 30\n"
TEMPLATE_FILE = "user_config_template.yaml.j2"
PAM = """\
account  required  pam_nologin.so
account  required  pam_unix.so
session  required  pam_limits.so
session  required  pam_env.so
"""
PREFIX = "gcbench"  # of users and of the PAM service
OFFICIAL_PROGRAM = "globus-compute-endpoint"
STOP_S = 60.0
STARTS_PER_MINUTE = 1000  # of a user; the policy's own limit is not what is measured
SMALLEST_UID = 1000  # of whom a process may be ended here
MIB = 1024 * 1024

MONITOR, MANAGER, KEEPERS, USER_ENDPOINTS = "monitor", "manager", "keepers", "user endpoints"
Roles = dict[str, list[int]]


@dataclass(frozen=True)
class Ground:
    """What both stand on: users with their identities, a PAM service, and programs that every user can run."""

    folder: Path
    users: dict[str, TestUser]  # by identity
    service: TestUser
    pam_service: str
    ours: Installed
    official: Installed

    def pam(self, enable: bool) -> dict[str, Any]:
        return {"enable": enable, "service_name": self.pam_service}


@contextlib.contextmanager
def ground(users: int, ours: Path, official: Path) -> Iterator[Ground]:
    """Make it, and leave nothing of it. ours, official: the folders with their programs."""
    with contextlib.ExitStack() as stack:
        made = stack.enter_context(accounts())
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="bench-multi-user-")))
        folder.chmod(0o755)
        their = stack.enter_context(installed(_packages(official), ours=False))
        _put_official_program(their, official)
        people = {str(uuid.uuid4()): made.user(name=_name()) for _ in range(users)}
        stack.callback(end_processes_of, list(people.values()))
        yield Ground(
            folder=folder,
            users=people,
            service=made.user(system=True, shell="/usr/sbin/nologin", name=_name()),
            pam_service=made.file(PAM_FOLDER / _name(), PAM).name,
            ours=stack.enter_context(installed(_packages(ours))),
            official=their,
        )


def _name() -> str:
    return f"{PREFIX}{secrets.token_hex(4)}"


def _packages(programs: Path) -> Path:
    return next((programs.parent / "lib").glob("python*/site-packages"))


def _put_official_program(their: Installed, programs: Path) -> None:
    lines = (programs / OFFICIAL_PROGRAM).read_text().splitlines()
    target = their.root / "bin" / OFFICIAL_PROGRAM
    target.write_text("\n".join([f"#!{their.python} -I", *lines[1:]]) + "\n")
    target.chmod(0o755)


def end_processes_of(users: list[TestUser]) -> int:
    """End what still runs of users that were made for this; returns how many processes those were."""
    uids = {user.uid for user in users if user.uid >= SMALLEST_UID}
    left = []
    for entry in PROC.iterdir():
        with contextlib.suppress(OSError, ValueError):
            if entry.name.isdigit() and entry.stat().st_uid in uids:
                left.append(int(entry.name))
    for pid in left:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
    time.sleep(0.2 if left else 0.0)
    return len(left)


class OurSite:
    """Our endpoint: a monitor, a manager, keepers. A context manager."""

    side = OURS

    def __init__(self, ground: Ground, registration: dict[str, Any], *, pam: bool) -> None:
        self.registration = registration
        self._service = WebService(lambda _asked, _body: Answer(200, registration))
        self._ground = ground
        self._pam = pam

    def __enter__(self) -> OurSite:
        with contextlib.ExitStack() as stack:  # which closes everything again where the start fails
            service = stack.enter_context(self._service)
            base = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="ours-", dir=self._ground.folder)))
            base.chmod(0o755)
            self._endpoint = MultiUserEndpoint(
                base,
                programs=self._ground.ours.root / "bin",
                service_user=self._ground.service.name,
                hub_env=service.environment,
                owner=Credentials(OWNER, SECRET),
                users={identity: user.name for identity, user in self._ground.users.items()},
                policy={"pam": self._ground.pam(self._pam), "starts_per_minute_per_user": STARTS_PER_MINUTE},
            )
            self._endpoint.configure()
            (self._endpoint.folder / TEMPLATE_FILE).write_text(TEMPLATE)
            stack.push(self._endpoint.__exit__)
            self._endpoint.start()
            self._stack = stack.pop_all()
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    @property
    def logs(self) -> str:
        """What it has said."""
        return self._endpoint.logs if self._endpoint.output.exists() else ""

    def roles(self) -> Roles:
        """Who is what, by process id."""
        assert self._endpoint.process is not None
        monitor, manager = self._endpoint.process.pid, self._endpoint.manager_pid
        children = children_of()
        keepers = [pid for pid in children[monitor] if pid != manager]
        return {
            MONITOR: [monitor],
            MANAGER: _with_descendants(manager, children),
            KEEPERS: keepers,
            USER_ENDPOINTS: [
                pid for keeper in keepers for child in children[keeper] for pid in _with_descendants(child, children)
            ],
        }


class OfficialSite:
    """The official endpoint: a manager, which is root. A context manager."""

    side = OFFICIAL

    def __init__(self, ground: Ground, registration: dict[str, Any], *, pam: bool) -> None:
        self.registration = registration
        self._ground = ground
        self._pam = pam

    def __enter__(self) -> OfficialSite:
        self._base = Path(tempfile.mkdtemp(prefix="official-", dir=self._ground.folder))
        self._base.chmod(0o755)
        self._folder = folder = self._base / NAME
        folder.mkdir(mode=0o700)
        mapping = folder / "identity_mapping_config.json"
        rules = [{"source": "{id}", "match": who, "output": user.name} for who, user in self._ground.users.items()]
        mapping.write_text(json.dumps([{"DATA_TYPE": "expression_identity_mapping#1.0.0", "mappings": rules}]))
        config = {"identity_mapping_config_path": str(mapping), "pam": self._ground.pam(self._pam)}
        (folder / "config.yaml").write_text(json.dumps(config))
        (folder / TEMPLATE_FILE).write_text(TEMPLATE)
        programs = self._ground.official.root / "bin"
        (folder / "user_environment.yaml").write_text(f"PATH: {programs}:/usr/bin:/bin\n")
        registration = self._base / "registration.json"
        registration.write_text(json.dumps(self.registration))
        self._start([str(self._ground.official.python), "-I", str(_SCRIPT), str(folder), str(registration)])
        return self

    def _start(self, command: list[str]) -> None:
        with (self._base / "said").open("ab") as said:
            self.process = subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=said,
                stderr=said,
                env={"PATH": f"{self._ground.official.root / 'bin'}:/usr/bin:/bin", "HOME": "/root", "LANG": "C.UTF-8"},
                start_new_session=True,
            )

    def __exit__(self, *_: object) -> None:
        self.process.terminate()
        try:
            self.process.wait(STOP_S)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
        end_processes_of(list(self._ground.users.values()))
        shutil.rmtree(self._base, ignore_errors=True)

    @property
    def logs(self) -> str:
        """What it has said."""
        files = [self._folder / "endpoint.log", self._base / "said"]
        return "\n".join(file.read_text(errors="replace") for file in files if file.exists())

    def roles(self) -> Roles:
        """Who is what, by process id."""
        children = children_of()
        below = [pid for child in children[self.process.pid] for pid in _with_descendants(child, children)]
        return {MANAGER: [self.process.pid], USER_ENDPOINTS: below}


Site = OurSite | OfficialSite
_SCRIPT = Path(__file__).with_name("multi_user_official.py")


def pss_mib(pids: list[int]) -> float:
    """Memory of processes in MiB, each shared page counted in parts."""
    return sum(pss_bytes(pid) for pid in pids) / MIB


def cpu_seconds(pids: list[int]) -> float:
    """Processor time of processes, and of their children that have ended."""
    return sum(cpu_seconds_of(pid) for pid in pids)


def _with_descendants(pid: int, children: dict[int, list[int]]) -> list[int]:
    found, waiting = [], [pid]
    while waiting:
        one = waiting.pop()
        found.append(one)
        waiting += children.get(one, ())
    return found
