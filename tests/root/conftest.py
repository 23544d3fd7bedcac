"""What the tests as root share: real users, the installed program, and whatever must be gone when they are done."""

from __future__ import annotations

import os
from collections.abc import Iterator

import pytest

from tests.support.accounts import Accounts, TestUser, accounts
from tests.support.installed import Installed, installed
from tests.support.monitors import Site, site


@pytest.fixture(scope="session", autouse=True)
def _as_root() -> None:
    if os.geteuid() != 0:
        pytest.fail("these tests become other users: run them as root")


@pytest.fixture(scope="session")
def machine() -> Iterator[Accounts]:
    """Users, groups and PAM services for the whole run."""
    with accounts() as made:
        yield made


@pytest.fixture(scope="session")
def program() -> Iterator[Installed]:
    """The program where every user can run it."""
    with installed() as made:
        yield made


@pytest.fixture(scope="module")
def service(machine: Accounts) -> TestUser:
    """Whom managers run as."""
    return machine.user(system=True)


@pytest.fixture
def place(program: Installed, machine: Accounts, service: TestUser) -> Iterator[Site]:
    """Where a monitor can be started."""
    with site(program, machine, service) as made:
        yield made
