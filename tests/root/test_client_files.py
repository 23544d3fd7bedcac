"""The client identity in two files: whose they must be, and how it reaches a manager and nothing else."""

from __future__ import annotations

import fcntl
import json
import os
import subprocess
from pathlib import Path

import pytest

from endpoint.errors import ConfigError
from endpoint.manager.login import client_credentials
from endpoint.privileged.client_files import LARGEST, read_client
from endpoint.privileged.documents import SEALS
from tests.support.accounts import Accounts, TestUser
from tests.support.installed import Installed
from tests.support.monitors import site

CLIENT_ID = "11111111-2222-4333-8444-555555555555"
SECRET = "not-to-be-seen-7f3a"


@pytest.fixture(scope="module")
def service(machine: Accounts) -> TestUser:
    return machine.user(system=True)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A directory with both files, as root has them."""
    write(tmp_path)
    return tmp_path


def write(folder: Path) -> None:
    for name, text in (("client_id", CLIENT_ID), ("client_secret", SECRET)):
        (folder / name).write_text(text + "\n")
        (folder / name).chmod(0o600)


def refusal(folder: Path, *owners: int) -> ConfigError:
    with pytest.raises(ConfigError) as caught:
        read_client(folder, owners or (0,))
    assert SECRET not in str(caught.value.failure.to_dict())
    return caught.value


def test_both_files_are_an_identity_and_none_is_none(folder: Path, tmp_path_factory: pytest.TempPathFactory) -> None:
    assert read_client(folder, (0,)) == (CLIENT_ID, SECRET)
    assert read_client(tmp_path_factory.mktemp("empty"), (0,)) is None


def test_empty_files_are_none_as_a_unit_without_credentials_has_them(folder: Path) -> None:
    for path in folder.iterdir():
        path.write_text("\n")

    assert read_client(folder, (0,)) is None


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o620, 0o602])
def test_a_file_that_is_open_to_others_is_refused_with_the_command_that_helps(folder: Path, mode: int) -> None:
    (folder / "client_secret").chmod(mode)

    error = refusal(folder)

    assert error.failure.code == "CREDENTIAL_FILE_OPEN"
    assert f"chmod 600 {folder / 'client_secret'}" in error.failure.hint


def test_a_file_of_somebody_else_a_link_a_pipe_and_a_folder_are_refused(folder: Path, service: TestUser) -> None:
    secret = folder / "client_secret"
    os.chown(secret, service.uid, service.gid)
    assert f"belongs to the user with the id {service.uid}" in str(refusal(folder))
    secret.unlink()
    secret.symlink_to(folder / "client_id")
    refusal(folder)
    secret.unlink()
    os.mkfifo(secret, 0o600)
    assert "is not a regular file" in str(refusal(folder))
    secret.unlink()
    secret.mkdir(0o700)
    assert "is not a regular file" in str(refusal(folder))


def test_one_file_without_the_other_is_refused(folder: Path) -> None:
    (folder / "client_secret").unlink()

    assert "client_secret is missing or empty, although there is client_id" in str(refusal(folder))


@pytest.mark.parametrize("content", [b"x" * (LARGEST + 1), b"one\ntwo", b"\xff\xfe", b"a\x00b"])
def test_what_is_no_single_value_is_refused(folder: Path, content: bytes) -> None:
    (folder / "client_secret").write_bytes(content)

    assert refusal(folder).failure.code == "BAD_CREDENTIAL_FILE"


def test_files_in_the_endpoint_s_directory_must_be_its_owner_s(folder: Path, service: TestUser) -> None:
    found = client_credentials({}, folder)
    assert found is not None and (found.client_id, found.client_secret) == (CLIENT_ID, SECRET)

    os.chown(folder, service.uid, service.gid)
    with pytest.raises(ConfigError):
        client_credentials({}, folder)
    for path in folder.iterdir():
        os.chown(path, service.uid, service.gid)
    assert client_credentials({}, folder) == found


def test_the_environment_comes_before_the_endpoint_s_files_and_no_directory_is_no_identity(folder: Path) -> None:
    given = {"GLOBUS_COMPUTE_CLIENT_ID": CLIENT_ID.replace("1", "9"), "GLOBUS_COMPUTE_CLIENT_SECRET": "other"}

    found = client_credentials(given, folder)

    assert found is not None and found.client_secret == "other"
    assert client_credentials({}, folder / "not-there") is None


def test_a_monitor_hands_the_identity_over_in_sealed_memory_and_keeps_none_of_it(
    program: Installed, machine: Accounts, service: TestUser, folder: Path
) -> None:
    with site(program, machine, service) as place:
        monitor = place.start(CREDENTIALS_DIRECTORY=str(folder), GLOBUS_COMPUTE_CLIENT_SECRET="an-old-one")
        variables = dict(
            one.split("=", 1) for one in Path(f"/proc/{monitor.manager}/environ").read_text().split("\0") if one
        )

        assert not {"CREDENTIALS_DIRECTORY", "GLOBUS_COMPUTE_CLIENT_SECRET"} & set(variables)
        number = int(variables["GLOBUS_COMPUTE_CREDENTIAL_FILE"].removeprefix("/proc/self/fd/"))
        descriptor = os.open(f"/proc/{monitor.manager}/fd/{number}", os.O_RDONLY)
        with os.fdopen(descriptor) as stream:
            assert json.load(stream) == {"client_id": CLIENT_ID, "client_secret": SECRET}
            facts = os.fstat(descriptor)
            assert (facts.st_uid, facts.st_mode & 0o777) == (service.uid, 0o400)
            assert fcntl.fcntl(descriptor, fcntl.F_GET_SEALS) & SEALS == SEALS
        assert SECRET.encode() not in memory_of(monitor.process.pid)


def test_a_monitor_that_finds_an_open_file_ends_with_words_and_its_status(
    program: Installed, machine: Accounts, service: TestUser, folder: Path
) -> None:
    (folder / "client_secret").chmod(0o644)
    with site(program, machine, service) as place:
        environment = {"PATH": os.environ["PATH"], "CREDENTIALS_DIRECTORY": str(folder)}
        done = subprocess.run(place.command(), stderr=subprocess.PIPE, text=True, timeout=30, env=environment)

    assert done.returncode == 78
    assert "is open to others" in done.stderr


def memory_of(pid: int) -> bytes:
    """All that a process has in memory that it can write."""
    found = b""
    with open(f"/proc/{pid}/maps") as maps, open(f"/proc/{pid}/mem", "rb", buffering=0) as memory:
        for line in maps:
            place, rights, *_ = line.split()
            if "w" in rights and "[v" not in line:
                begin, end = (int(word, 16) for word in place.split("-"))
                memory.seek(begin)
                found += memory.read(end - begin)
    return found
