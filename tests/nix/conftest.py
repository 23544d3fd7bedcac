"""Nix, once for the whole run. It fails, and never skips, where Nix is missing."""

from __future__ import annotations

import shutil

import pytest

from tests.support.nixes import Nix, set_up


@pytest.fixture(scope="session")
def nix(tmp_path_factory: pytest.TempPathFactory) -> Nix:
    if shutil.which("nix") is None:
        pytest.fail("Nix is missing: `tests/support/system-packages site` installs it")
    return set_up(tmp_path_factory.mktemp("nix"))
