"""The client identity among the credentials that systemd hands to a unit."""

from __future__ import annotations

from pathlib import Path

import pytest

from endpoint.errors import ConfigError
from endpoint.manager.login import client_credentials
from endpoint.privileged.notify import without_notifier

ID = "8f8a3c1e-0b6c-4a59-9a2b-0d8f3c6f1f6e"
OTHER = "0d8f3c6f-0b6c-4a59-9a2b-8f8a3c1e1f6e"


def handed_over(directory: Path, client_id: str, secret: str) -> dict[str, str]:
    """The variables of a unit with these credentials."""
    directory.mkdir()
    for name, value in (("client_id", client_id), ("client_secret", secret)):
        (directory / name).write_text(value)
        (directory / name).chmod(0o400)
    return {"CREDENTIALS_DIRECTORY": str(directory)}


def test_identity_comes_from_the_unit_before_the_endpoint_s_own_files(tmp_path: Path) -> None:
    handed_over(tmp_path / "endpoint", OTHER, "other")
    unit = handed_over(tmp_path / "unit", ID, "secret\n")

    found = client_credentials(unit, tmp_path / "endpoint")

    assert found is not None
    assert (found.client_id, found.client_secret) == (ID, "secret")


def test_unit_without_an_identity_leaves_it_to_the_endpoint_s_own_files(tmp_path: Path) -> None:
    handed_over(tmp_path / "endpoint", OTHER, "other")
    unit = handed_over(tmp_path / "unit", "\n", "\n")

    found = client_credentials(unit, tmp_path / "endpoint")

    assert found is not None
    assert found.client_id == OTHER


def test_half_an_identity_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="client_secret is missing or empty"):
        client_credentials(handed_over(tmp_path / "unit", ID, "\n"), tmp_path)


def test_what_a_unit_gets_is_not_for_the_processes_that_it_starts() -> None:
    unit = {"CREDENTIALS_DIRECTORY": "/run/x", "NOTIFY_SOCKET": "/run/y", "WATCHDOG_USEC": "1", "JOURNAL_STREAM": "8:1"}

    assert without_notifier(unit) == {"JOURNAL_STREAM": "8:1"}
