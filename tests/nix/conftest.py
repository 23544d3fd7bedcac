"""Nix, once for the whole run. It fails, and never skips, where Nix is missing."""

from __future__ import annotations

import shutil
from collections.abc import Iterator

import pytest

from tests.support.installed import installed
from tests.support.nixes import Nix, set_up


@pytest.fixture(scope="session")
def nix(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Nix]:
    if shutil.which("nix") is None:
        pytest.fail("Nix is missing: `tests/support/system-packages site` installs it")
    with installed(ours=False) as packages:
        yield set_up(tmp_path_factory.mktemp("nix"), packages)
