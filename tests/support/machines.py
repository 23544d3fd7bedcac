"""A booted Debian with systemd, as a container of its own on this machine: systemd-nspawn, and the network of this one.

A file system takes twenty seconds to make, a boot less than one. What is bound into the machine is there for reading.
"""

from __future__ import annotations

import os
import secrets
import shutil
import subprocess
import sys
import time
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING

from tests.support.site_roots import copy_root

if TYPE_CHECKING:
    from typing_extensions import Self

# A distribution for each version of Python, whose compiled modules it can load.
SUITES = {(3, 11): "bookworm", (3, 13): "trixie"}
CGROUPS = Path("/sys/fs/cgroup")
BOOT_S = 40.0
STOP_S = 40.0
MARK = "a-machine-of-the-tests"  # a file that this machine does not have: commands for the other one never run here
# What is started so is asked to end when this process dies. Not killed: a machine without its systemd-nspawn runs on.
_WITH_US = ("setpriv", "--pdeathsig", "TERM")
# Boots as often as the machine wants to be booted again, which systemd-nspawn says with its status; asked to end, it
# passes that on, and ends.
LOOP = """\
machine= ended=
trap 'ended=1; kill -TERM $machine' TERM
while [ -z "$ended" ]; do
    "$@" &
    machine=$!
    while wait $machine; status=$?; kill -0 $machine 2>/dev/null; do :; done
    [ $status = 133 ] || exit $status
done
"""


def make_root(target: Path, suite: str = "") -> None:
    """Make a file system of a Debian below `target`: of `suite`, else of the one with the Python of this process."""
    suite = suite or SUITES.get(sys.version_info[:2], "")
    assert suite, f"no Debian is known here that has Python {sys.version_info[:2]}"
    copy_root(suite, target)
    (target / MARK).touch()
    (target / "etc" / "hosts").write_text("127.0.0.1 localhost\n::1 localhost\n")


def remove_root(folder: Path) -> None:
    """Remove a folder with a machine's files; refuses where something is mounted below it, and would be emptied too."""
    mounted = [line.split()[1] for line in Path("/proc/self/mounts").read_text().splitlines()]
    assert not [place for place in mounted if place.startswith(f"{folder}/")], f"something is mounted below {folder}"
    shutil.rmtree(folder)


class Machine:
    """A context manager: the machine runs inside.

    bound: folders of this machine that it sees. hostname: what it calls itself, else as `name` says.
    namespace: the network namespace that it runs in, else it shares this machine's network.
    unified: give it a pure cgroup2 layout, which systemd 256 and later insist on.
    """

    def __init__(
        self,
        root: Path,
        *,
        bound: Sequence[Path] = (),
        hostname: str = "",
        namespace: str = "",
        unified: bool = False,
    ) -> None:
        self.root = root
        self.name = f"gct-{os.getpid()}-{secrets.token_hex(3)}"  # a host name, too
        self._bound = bound
        self._hostname = hostname or self.name
        self._namespace = namespace
        self._environ = {**os.environ, "SYSTEMD_NSPAWN_UNIFIED_HIERARCHY": "1"} if unified else dict(os.environ)
        self._cgroups: list[Path] = []
        self.console = root.parent / f"{root.name}.console"

    def __enter__(self) -> Self:
        _remove_left()
        # systemd-nspawn divides the cgroup that it is started in, so it gets one of its own.
        named = [CGROUPS / name for name in ("systemd", "unified") if (CGROUPS / name).is_dir()]
        self._cgroups = [folder / self.name for folder in named or [CGROUPS]]
        for folder in self._cgroups:
            folder.mkdir()
        self._boot()
        return self

    def _boot(self) -> None:
        enter = "".join(f"echo $$ > {folder}/cgroup.procs\n" for folder in self._cgroups)
        with self.console.open("ab") as console:
            self._process = subprocess.Popen(
                [*_WITH_US, "sh", "-c", enter + LOOP, "boot", *self._command()],
                stdin=subprocess.DEVNULL,
                stdout=console,
                stderr=console,
                env=self._environ,
                start_new_session=True,
            )
        try:
            self._wait_until_up()
        except BaseException:
            self._end()
            raise

    def reboot(self) -> None:
        """Shut down in order, and boot again."""
        before = self.boot_id
        self.run("systemctl", "reboot", check=False)
        self._wait_until_up(before)

    @property
    def boot_id(self) -> str:
        """Another one after each boot; empty while the machine goes down."""
        said = self.run("cat", "/proc/sys/kernel/random/boot_id", check=False).strip()
        return said if len(said) == len("c8a2b1a0-0000-0000-0000-000000000000") else ""

    def _command(self) -> list[str]:
        settings = ["--register=no", "--keep-unit", "--boot", "--console=pipe", "--kill-signal=SIGRTMIN+3"]
        network = [f"--network-namespace-path=/run/netns/{self._namespace}"] if self._namespace else []
        names = [f"--machine={self.name}", f"--hostname={self._hostname}"]
        bound = [f"--bind-ro={folder}" for folder in self._bound]
        program = [*_WITH_US, "systemd-nspawn", "--quiet", f"--directory={self.root}", "--resolv-conf=off"]
        return [*program, *names, *settings, *network, *bound]

    def _wait_until_up(self, before: str = "") -> None:
        """Wait for a boot, another one than `before`."""
        deadline = time.monotonic() + BOOT_S + (STOP_S if before else 0)
        state = ""
        while state not in ("running", "degraded"):
            assert time.monotonic() < deadline and self._process.poll() is None, f"{state}\n{self.console.read_text()}"
            time.sleep(0.1)
            with suppress(OSError):
                if not before or self.boot_id not in ("", before):
                    state = self.run("systemctl", "is-system-running", "--wait", check=False).strip()

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None) -> None:
        self._end()

    def _end(self) -> None:
        self._process.terminate()
        try:
            self._process.wait(STOP_S)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        for folder in self._cgroups:
            _remove_cgroup(folder)

    def _leader(self) -> int:
        """The machine's first process. Raises OSError while it does not yet have the machine's file system."""
        first = _only_child(_only_child(self._process.pid))
        if not Path(f"/proc/{first}/root/{MARK}").exists():
            raise FileNotFoundError(f"the machine is not there\n{self.console.read_text()}")
        return first

    def run(self, *command: object, check: bool = True, timeout: float = 40) -> str:
        """Run a command as root in the machine; returns what it printed. Fails if it fails."""
        inside = ["nsenter", "--target", str(self._leader()), "--all", "--", *map(str, command)]
        clean = {"PATH": "/usr/sbin:/usr/bin:/sbin:/bin", "LANG": "C.UTF-8"}
        done = subprocess.run(
            inside,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            env=clean,
            timeout=timeout,
        )
        assert not check or done.returncode == 0, f"{command}: {done.stdout}"
        return done.stdout

    def write(self, path: str, text: str, mode: int = 0o644) -> Path:
        """A file in the machine; returns where it is for us."""
        there = self.root / path.lstrip("/")
        there.parent.mkdir(parents=True, exist_ok=True)
        there.write_text(text)
        there.chmod(mode)
        return there


def _only_child(pid: int) -> int:
    """The first child of a process. Raises OSError where there is none."""
    children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    if not children:
        raise ProcessLookupError(f"process {pid} has no child")
    return int(children[0])


def _remove_cgroup(folder: Path) -> None:
    for inner in sorted((path for path in folder.rglob("*") if path.is_dir()), reverse=True):
        with suppress(OSError):
            inner.rmdir()
    with suppress(OSError):
        folder.rmdir()


def _remove_left() -> None:
    """Remove the cgroups of machines whose process was killed before it could."""
    for folder in (*CGROUPS.glob("gct-[0-9]*"), *CGROUPS.glob("*/gct-[0-9]*")):
        if not Path(f"/proc/{folder.name.split('-')[1]}").exists():
            _remove_cgroup(folder)
