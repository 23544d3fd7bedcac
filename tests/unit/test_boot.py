"""`enable-on-boot` and `disable-on-boot` where nothing of systemd is needed; a booted machine tries the rest."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from endpoint.cli import boot_place
from endpoint.cli.boot_place import MARK, BootFailure, Place, remove_unit, write_unit, written_by_us
from endpoint.cli.main import run
from endpoint.errors import ExitStatus


@pytest.fixture
def endpoint_dir(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The directory of an endpoint of one user, called `mine`."""
    monkeypatch.setenv("GLOBUS_COMPUTE_USER_DIR", str(tmp_path))
    monkeypatch.delenv("GLOBUS_COMPUTE_ENDPOINT_DIR", raising=False)
    folder = tmp_path / "mine"
    folder.mkdir()
    (folder / "config.yaml").write_text("display_name: Mine\n")
    return folder


def test_print_shows_the_unit_and_writes_nothing(endpoint_dir: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["enable-on-boot", "mine", "--print"]) == 0

    shown = capsys.readouterr().out
    assert shown.startswith(MARK)
    assert f'--config-dir "{endpoint_dir.parent}" start "mine"' in shown
    assert [path.name for path in endpoint_dir.iterdir()] == ["config.yaml"]


def test_unit_takes_along_where_the_services_are_and_no_password(
    endpoint_dir: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("GLOBUS_SDK_SERVICE_URL_COMPUTE", "https://hub.example.org")
    monkeypatch.setenv("HTTPS_PROXY", "http://me:hush@proxy.example.org")
    monkeypatch.setenv("GLOBUS_COMPUTE_CLIENT_SECRET", "hush")

    assert run(["enable-on-boot", "mine", "--print"]) == 0

    shown = capsys.readouterr()
    assert 'Environment="GLOBUS_SDK_SERVICE_URL_COMPUTE=https://hub.example.org"' in shown.out
    assert "hush" not in shown.out
    assert "HTTPS_PROXY has a password" in shown.err


@pytest.mark.parametrize("command", ["enable-on-boot", "disable-on-boot"])
def test_machine_without_systemd_is_told(
    endpoint_dir: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], command: str
) -> None:
    monkeypatch.setattr(boot_place, "is_systemd_here", lambda: False)

    assert run([command, "mine", "--json"]) == ExitStatus.BAD_CONFIG

    assert json.loads(capsys.readouterr().out)["error"]["code"] == "NO_SYSTEMD"


def test_without_a_login_nothing_is_written(
    endpoint_dir: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    monkeypatch.setattr(boot_place, "is_systemd_here", lambda: True)
    monkeypatch.setattr(boot_place, "SYSTEM_UNITS", tmp_path / "units")
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "units"))
    monkeypatch.delenv("GLOBUS_COMPUTE_CREDENTIAL_FILE", raising=False)

    assert run(["enable-on-boot", "mine"]) == ExitStatus.FAILED

    assert "globus-compute-endpoint login" in capsys.readouterr().err
    assert not (tmp_path / "units").exists()


def test_unit_is_known_by_its_first_line(tmp_path: Path) -> None:
    path = tmp_path / "deep" / "x.service"
    assert written_by_us(path) is None

    write_unit(path, f"{MARK}\n[Unit]\n")
    assert written_by_us(path) is True
    path.write_text("# Written by somebody else\n")
    assert written_by_us(path) is False

    remove_unit(path)
    assert not list(path.parent.iterdir())


def test_what_systemd_says_is_in_the_failure(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    program = tmp_path / "systemctl"
    program.write_text("#!/bin/sh\necho 'Access denied' >&2\nexit 4\n")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")

    with pytest.raises(BootFailure, match="failed with status 4") as failed:
        Place(tmp_path).systemctl("daemon-reload")

    assert failed.value.failure.detail == "Access denied"
