"""Kernel keyrings: a key of whoever started the monitor is neither the manager's nor a user's to read."""

from __future__ import annotations

import ctypes
import subprocess

import pytest

from tests.support.accounts import Accounts
from tests.support.installed import Installed
from tests.support.monitors import RunningMonitor, Site, site, wait_until

READS = """
import ctypes, os, pathlib, sys
libc = ctypes.CDLL("libkeyutils.so.1", use_errno=True)
found = libc.request_key(b"user", b"gct-probe", None, 0)
"""


@pytest.fixture(scope="module")
def keyutils() -> ctypes.CDLL:
    return ctypes.CDLL("libkeyutils.so.1", use_errno=True)


def with_a_key(keyutils: ctypes.CDLL) -> None:
    """A session keyring that its children inherit, with a key that they can read."""
    assert keyutils.keyctl_join_session_keyring(None) > 0
    assert keyutils.add_key(b"user", b"gct-probe", b"secret", ctypes.c_size_t(6), -3) > 0


def test_neither_manager_nor_user_inherits_the_session_keyring(
    program: Installed, machine: Accounts, keyutils: ctypes.CDLL
) -> None:
    user, service = machine.user(), machine.user(system=True)
    with site(program, machine, service) as place:
        said = place.folder / "said"
        said.mkdir(mode=0o777)
        said.chmod(0o777)
        tells = READS + f"pathlib.Path('{said}', sys.argv[0].rpartition('/')[2]).write_text(str(found))\n"
        manager, uep = place.folder / "manager_stand_in.py", place.folder / "seen_by_user.py"
        first = "from __future__ import annotations\n"
        manager.write_text(manager.read_text().replace(first, first + tells, 1))
        uep.write_text(tells)
        monitor = start_with_key(place, keyutils)
        monitor.hello()
        monitor.start("uep.1", user.name)
        wait_until(lambda: len(list(said.iterdir())) == 2, place.log())

        assert {path.name: path.read_text() for path in said.iterdir()} == {manager.name: "-1", uep.name: "-1"}


def start_with_key(place: Site, keyutils: ctypes.CDLL) -> RunningMonitor:
    """The monitor inherits the key: this process has it for that moment, and a new session afterwards."""
    with_a_key(keyutils)
    try:
        seen = subprocess.run([place.program.python, "-c", READS + "print(found)"], capture_output=True, text=True)
        assert int(seen.stdout) > 0, "a child could not read the key either: the test shows nothing"
        return place.start()
    finally:
        assert keyutils.keyctl_join_session_keyring(None) > 0
