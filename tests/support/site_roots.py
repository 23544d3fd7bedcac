"""File systems for machines, one for each Debian: made once, kept in `dist/machines`, copied for each machine.

A file system has what every Debian has, and in /srv/packages what the roles install: a machine gets it from there as
a site without internet gets it from its mirror.
"""

from __future__ import annotations

import fcntl
import hashlib
import inspect
import os
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from email.parser import Parser
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parents[2]
CACHE = REPOSITORY / "dist" / "machines"
BASE = ("systemd", "systemd-sysv", "dbus", "libpam-systemd", "python3", "iproute2", "openssh-server")
OFFERED = (
    *("rabbitmq-server", "python3-venv", "python3-apt", "python3-packaging", "python3-setuptools", "ca-certificates"),
    *("acl", "sudo", "openssl", "logrotate", "procps", "nix-bin"),
)
PACKAGES = "srv/packages"  # in a machine
MAKE_S = 300.0
# The outer apt, which can reach the archive, works on the file system that is being made.
_DOWNLOAD = """\
APT_CONFIG="$MMDEBSTRAP_APT_CONFIG" apt-get install --yes --download-only --no-install-recommends {offered}
mkdir "$1/{packages}"
mv "$1"/var/cache/apt/archives/*.deb "$1/{packages}/"
"""


def copy_root(suite: str, target: Path) -> None:
    """Make `target` a machine's file system with Debian `suite`; the first time takes half a minute."""
    with _locked():
        kept = CACHE / f"{suite}-{_recipe()}"
        if not kept.is_dir():
            _make(suite, kept)
    subprocess.run(["cp", "--archive", "--reflink=auto", kept, target], check=True, timeout=MAKE_S)


def is_kept(suite: str) -> bool:
    """Whether the file system of `suite` is there, so that a copy takes a second."""
    return (CACHE / f"{suite}-{_recipe()}").is_dir()


def _recipe() -> str:
    """A name for how file systems are made, as written here."""
    text = "\n".join([*BASE, *OFFERED, _DOWNLOAD, *(inspect.getsource(step) for step in (_make, _bootstrap, _settle))])
    return hashlib.sha256(text.encode()).hexdigest()[:12]


@contextmanager
def _locked() -> Iterator[None]:
    CACHE.mkdir(parents=True, exist_ok=True)
    CACHE.chmod(0o700)  # programs with the setuid bit are below it
    with (CACHE / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def _make(suite: str, kept: Path) -> None:
    assert os.geteuid() == 0, "a machine's file system is made by root only"
    for old in CACHE.glob(f"{suite}-*"):
        shutil.rmtree(old)
    fresh = kept.with_suffix(".new")
    shutil.rmtree(fresh, ignore_errors=True)
    try:
        _bootstrap(suite, fresh)
        _settle(fresh)
        fresh.rename(kept)
    finally:
        shutil.rmtree(fresh, ignore_errors=True)


def _bootstrap(suite: str, target: Path) -> None:
    hook = _DOWNLOAD.format(offered=" ".join(OFFERED), packages=PACKAGES)
    # What it mounts there (/proc and /sys, too) nobody else sees, and it goes when this is interrupted.
    alone = ["setpriv", "--pdeathsig", "KILL", "unshare", "--mount", "--pid", "--mount-proc", "--kill-child=KILL"]
    program = ["mmdebstrap", "--quiet", "--mode=root", "--variant=minbase", f"--include={','.join(BASE)}"]
    command = [*alone, *program, f"--customize-hook={hook}", suite, str(target)]
    done = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=MAKE_S)
    assert done.returncode == 0, f"{' '.join(program)} {suite}: {done.stderr[-4000:]}"


def _settle(root: Path) -> None:
    """What a machine needs to boot as itself, with the packages as its only archive."""
    root.chmod(0o755)
    for path in (root / "etc" / "ssh").glob("ssh_host_*"):
        path.unlink()  # each machine has its own
    for name in ("hostname", "resolv.conf"):
        (root / "etc" / name).unlink(missing_ok=True)  # those of the machine that made it
    (root / "etc" / "machine-id").write_text("")
    shutil.rmtree(root / "etc" / "apt" / "sources.list.d", ignore_errors=True)
    (root / "etc" / "apt" / "sources.list").write_text(f"deb [trusted=yes] file:/{PACKAGES} ./\n")
    (root / "etc" / "dpkg" / "dpkg.cfg.d" / "speed").write_text("force-unsafe-io\n")  # it lives for minutes
    (root / PACKAGES / "Packages").write_text(_index(root / PACKAGES))
    subprocess.run(["chroot", root, "apt-get", "update", "-q"], check=True, capture_output=True, timeout=MAKE_S)


def _index(folder: Path) -> str:
    """An apt archive's list of the packages in `folder`."""
    entries = []
    for path in sorted(folder.glob("*.deb")):
        control = subprocess.run(["dpkg-deb", "--field", path], check=True, capture_output=True, text=True).stdout
        assert Parser().parsestr(control)["Package"], path
        digest = hashlib.sha256(path.read_bytes()).hexdigest()
        where = f"Filename: ./{path.name}\nSize: {path.stat().st_size}\nSHA256: {digest}\n"
        entries.append(control.rstrip("\n") + "\n" + where)
    return "\n".join(entries)
