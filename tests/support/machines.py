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

if TYPE_CHECKING:
    from typing_extensions import Self

# A distribution for each version of Python, whose compiled modules it can load.
SUITES = {(3, 11): "bookworm", (3, 13): "trixie"}
PACKAGES = ("systemd", "systemd-sysv", "dbus", "libpam-systemd", "python3")
CGROUPS = Path("/sys/fs/cgroup")
MAKE_S = 200.0
BOOT_S = 40.0
STOP_S = 40.0
MARK = "a-machine-of-the-tests"  # a file that this machine does not have: commands for the other one never run here
REBOOT = 133  # what systemd-nspawn ends with when the machine wants to be booted again


def make_root(target: Path) -> None:
    """Make a file system of a Debian below `target`, with the Python of this process."""
    suite = SUITES.get(sys.version_info[:2])
    assert suite, f"no Debian is known here that has Python {sys.version_info[:2]}"
    included = f"--include={','.join(PACKAGES)}"
    # What it mounts there (/proc and /sys, too) nobody else sees, and it goes when this is interrupted.
    alone = ["setpriv", "--pdeathsig", "KILL", "unshare", "--mount", "--pid", "--mount-proc", "--kill-child=KILL"]
    command = [*alone, "mmdebstrap", "--quiet", "--mode=root", "--variant=minbase", included, suite, str(target)]
    done = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=MAKE_S)
    assert done.returncode == 0, f"{' '.join(command)}: {done.stderr[-4000:]}"
    target.chmod(0o755)
    (target / MARK).touch()
    (target / "etc" / "hosts").write_text("127.0.0.1 localhost\n::1 localhost\n")


def remove_root(folder: Path) -> None:
    """Remove a folder with a machine's files; refuses where something is mounted below it, and would be emptied too."""
    mounted = [line.split()[1] for line in Path("/proc/self/mounts").read_text().splitlines()]
    assert not [place for place in mounted if place.startswith(f"{folder}/")], f"something is mounted below {folder}"
    shutil.rmtree(folder)


class Machine:
    """A context manager: the machine runs inside. `bound`: folders of this machine that it sees."""

    def __init__(self, root: Path, *, bound: Sequence[Path] = ()) -> None:
        self.root = root
        self.name = f"gct-{os.getpid()}-{secrets.token_hex(3)}"  # a host name, too
        self._bound = bound
        self._cgroups: list[Path] = []
        self.console = root.parent / "console"

    def __enter__(self) -> Self:
        # systemd-nspawn divides the cgroup that it is started in, so it gets one of its own.
        named = [CGROUPS / name for name in ("systemd", "unified") if (CGROUPS / name).is_dir()]
        self._cgroups = [folder / self.name for folder in named or [CGROUPS]]
        for folder in self._cgroups:
            folder.mkdir()
        self._boot()
        return self

    def _boot(self) -> None:
        enter = "".join(f"echo $$ > {folder}/cgroup.procs; " for folder in self._cgroups)
        with self.console.open("ab") as console:
            self._process = subprocess.Popen(
                ["sh", "-c", enter + 'exec "$@"', "boot", *self._command()],
                stdin=subprocess.DEVNULL,
                stdout=console,
                stderr=console,
                start_new_session=True,
            )
        try:
            self._wait_until_up()
        except BaseException:
            self._end()
            raise

    def reboot(self) -> None:
        """Shut down in order, and boot again."""
        self.run("systemctl", "reboot", check=False)
        assert self._process.wait(STOP_S) == REBOOT, self.console.read_text()
        self._boot()

    def _command(self) -> list[str]:
        settings = ["--register=no", "--keep-unit", "--boot", "--console=pipe", "--kill-signal=SIGRTMIN+3"]
        bound = [f"--bind-ro={folder}" for folder in self._bound]
        program = ["setpriv", "--pdeathsig", "KILL", "systemd-nspawn", "--quiet", f"--directory={self.root}"]
        return [*program, f"--machine={self.name}", *settings, *bound]

    def _wait_until_up(self) -> None:
        deadline = time.monotonic() + BOOT_S
        state = ""
        while state not in ("running", "degraded"):
            assert time.monotonic() < deadline and self._process.poll() is None, f"{state}\n{self.console.read_text()}"
            time.sleep(0.1)
            with suppress(OSError):
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
            for inner in sorted((p for p in folder.rglob("*") if p.is_dir()), reverse=True):
                with suppress(OSError):
                    inner.rmdir()
            with suppress(OSError):
                folder.rmdir()

    def _leader(self) -> int:
        """The machine's first process. Raises OSError while it does not yet have the machine's file system."""
        pid = self._process.pid
        children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
        if not children or not Path(f"/proc/{children[0]}/root/{MARK}").exists():
            raise FileNotFoundError(f"the machine is not there\n{self.console.read_text()}")
        return int(children[0])

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
