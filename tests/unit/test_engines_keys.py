"""Where an engine's keys may be."""

from __future__ import annotations

import os

import pytest

from endpoint.engines.keys import DIRECTORY, check_keys
from endpoint.errors import EngineFailure


def test_a_directory_that_is_not_there_or_its_owners_alone_will_do(tmp_path):
    check_keys(tmp_path)
    check_keys(tmp_path / "not" / "there")

    (tmp_path / DIRECTORY).mkdir(0o700)
    check_keys(tmp_path)


@pytest.mark.parametrize("mode", [0o750, 0o701, 0o777, 0o600])
def test_a_directory_that_others_may_use_is_refused(tmp_path, mode):
    (tmp_path / DIRECTORY).mkdir()
    (tmp_path / DIRECTORY).chmod(mode)

    with pytest.raises(EngineFailure, match=f"has mode {mode:04o}"):
        check_keys(tmp_path)


def test_what_is_no_directory_or_leads_to_one_is_refused(tmp_path):
    (tmp_path / "elsewhere").mkdir(0o700)
    (tmp_path / DIRECTORY).symlink_to(tmp_path / "elsewhere")

    with pytest.raises(EngineFailure, match="is no directory"):
        check_keys(tmp_path)


def test_a_directory_of_somebody_else_is_refused(tmp_path, monkeypatch):
    (tmp_path / DIRECTORY).mkdir(0o700)
    owner = os.geteuid()
    monkeypatch.setattr(os, "geteuid", lambda: owner + 1)

    with pytest.raises(EngineFailure, match=f"belongs to user {owner}"):
        check_keys(tmp_path)
