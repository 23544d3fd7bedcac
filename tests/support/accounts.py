"""Real users, groups and PAM services of this machine, made for a test and gone after it."""

from __future__ import annotations

import contextlib
import os
import pwd
import secrets
import subprocess
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

PAM_FOLDER = Path("/etc/pam.d")
PREFIX = "gct"
LOCKED = 10  # seconds that another program may hold the user database


@dataclass(frozen=True)
class TestUser:
    """A local user."""

    __test__ = False

    name: str
    uid: int
    gid: int
    home: Path


@dataclass
class Accounts:
    """Makes accounts, and removes them all in `clean_up`."""

    users: list[str] = field(default_factory=list)
    groups: list[str] = field(default_factory=list)
    files: list[Path] = field(default_factory=list)

    def user(
        self,
        *,
        groups: list[str] | None = None,
        shell: str = "/bin/bash",
        expires: str | None = None,
        system: bool = False,
        name: str | None = None,
    ) -> TestUser:
        """A new user with a home directory and a group of its own. `expires`: a day, as useradd wants it."""
        name = name or f"{PREFIX}{secrets.token_hex(4)}"
        options = ["--create-home", "--user-group", "--shell", shell]
        options += ["--system"] if system else []
        options += ["--groups", ",".join(groups)] if groups else []
        options += ["--expiredate", expires] if expires else []
        run_tool("useradd", *options, name)
        self.users.append(name)
        entry = pwd.getpwnam(name)
        return TestUser(name, entry.pw_uid, entry.pw_gid, Path(entry.pw_dir))

    def group(self) -> str:
        """A new group."""
        name = f"{PREFIX}{secrets.token_hex(4)}"
        run_tool("groupadd", name)
        self.groups.append(name)
        return name

    def pam_service(self, text: str) -> str:
        """A new PAM service with these lines; returns its name."""
        name = f"{PREFIX}-{secrets.token_hex(4)}"
        self.file(PAM_FOLDER / name, text)
        return name

    def file(self, path: Path, text: str, mode: int = 0o644) -> Path:
        """A file that is removed with the rest."""
        path.write_text(text)
        path.chmod(mode)
        self.files.append(path)
        return path

    def clean_up(self) -> None:
        """Remove everything that was made here."""
        for path in self.files:
            path.unlink(missing_ok=True)
        for name in self.users:
            run_tool("userdel", "--remove", "--force", name)
        for name in self.groups:
            run_tool("groupdel", name)
        self.users, self.groups, self.files = [], [], []


@contextlib.contextmanager
def accounts() -> Iterator[Accounts]:
    """Accounts for a while."""
    assert os.geteuid() == 0, "this makes users of the machine: run it as root"
    made = Accounts()
    try:
        yield made
    finally:
        made.clean_up()


def run_tool(*command: str) -> None:
    """Run one of the programs that change the user database; two can't do so at a time."""
    deadline = time.monotonic() + LOCKED
    while True:
        done = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
        if done.returncode == 0:
            return
        busy = "lock" in done.stdout
        assert busy and time.monotonic() < deadline, f"{' '.join(command)} failed: {done.stdout}"
        time.sleep(0.1)
