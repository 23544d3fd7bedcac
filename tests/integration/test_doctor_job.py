"""`doctor` and its job on this machine: what a worker would meet there, and why one would not come."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from endpoint.errors import ExitStatus
from tests.support.doctors import LOCAL, Patient, local
from tests.support.ill_service import IllService

NOT_OURS = "198.51.100.7"  # RFC 5737: nobody's


@pytest.fixture
def patient(tmp_path: Path) -> Iterator[Patient]:
    with IllService() as service:
        found = Patient(tmp_path / "gc", service.environment)
        yield found
        found.end()


def bare_environment(folder: Path) -> Path:
    """A Python of the user's own, in which there is nothing at all."""
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", str(folder)], check=True, timeout=60)
    return folder


def test_a_worker_init_that_breaks_is_told_with_the_shells_own_words(patient: Patient) -> None:
    patient.configure(local(worker_init="module load no/such/python || exit 3"))
    found = patient.examine()

    assert found.status == ExitStatus.NETWORK  # of the broker, which this service does not have
    failure = found.failure("interface")
    assert (failure["code"], failure["facts"]["exit_code"]) == ("JOB_FAILED", 3)
    assert "module: command not found" in failure["detail"]
    assert "worker_init" in failure["next_step"]
    assert found.stage("workers")["verdict"] == "not tried"
    assert found.stage("interface")["seconds"] < 30


def test_a_worker_init_that_takes_too_long_is_told_and_its_job_cancelled(patient: Patient) -> None:
    patient.configure(local(worker_init="echo loading a large module >&2; sleep 1000"))
    found = patient.examine("--timeout", "6")
    failure = found.failure("interface")
    assert failure["code"] == "JOB_SLOW"
    assert "loading a large module" in failure["detail"]
    assert not list(patient.folder.glob(".doctor-*"))


def test_workers_that_cannot_reach_this_process_are_told_with_the_address(patient: Patient) -> None:
    """The job runs in a network of its own, where nothing is."""
    launcher = {"type": "WrappedLauncher", "prepend": "unshare --net"}
    patient.configure(local(launcher=launcher))
    found = patient.examine()

    failure = found.failure("interface")
    assert failure["code"] == "UNREACHABLE"
    assert failure["facts"]["host"] == os.uname().nodename
    (tried,) = failure["facts"]["addresses"]
    assert tried["address"] == "127.0.0.1"
    assert tried["error"] in failure["words"]
    assert "address_by_interface" in failure["next_step"]
    # The job told of itself in its output, so the rest is known all the same.
    assert found.stage("workers")["verdict"] == "ok", str(found)


def test_an_address_that_is_none_of_this_machines_is_refused_before_any_job(patient: Patient) -> None:
    patient.configure({**LOCAL, "address": NOT_OURS})
    found = patient.examine()
    failure = found.failure("interface")
    assert failure["code"] == "BAD_ADDRESS"
    assert NOT_OURS in failure["words"]


def test_an_interface_that_is_not_there_is_the_engines_failure(patient: Patient) -> None:
    patient.configure({**LOCAL, "address": {"type": "address_by_interface", "ifname": "ib7"}})
    found = patient.examine()
    failure = found.failure("engine")
    assert failure["code"] == "BAD_CONFIG"
    assert "There is no interface ib7; this machine has " in failure["next_step"]
    assert "lo (127.0.0.1)" in failure["next_step"]


def test_without_a_job_the_addresses_are_told_and_nothing_is_submitted(patient: Patient) -> None:
    patient.configure(local(worker_init=f"touch {patient.directory}/submitted"))
    found = patient.examine("--no-job")
    assert found.with_fact("interface", "addresses")["facts"]["addresses"] == ["127.0.0.1"]
    assert "--no-job" in found.findings("interface", "not tried")[0]["words"]
    assert found.stage("workers")["verdict"] == "not tried"
    assert not (patient.directory / "submitted").exists()


def test_what_the_users_own_python_lacks_is_told(patient: Patient, tmp_path: Path) -> None:
    environment = bare_environment(tmp_path / "bare")
    patient.configure(local(worker_init=f"source {environment}/bin/activate"))
    found = patient.examine()

    assert found.stage("interface")["verdict"] == "ok", str(found)
    failure = found.failure("workers")
    assert (failure["code"], failure["mender"]) == ("NOT_IMPORTABLE", "admin")
    assert failure["facts"]["python"] == str(environment / "bin" / "python3")
    assert failure["facts"]["modules"]["endpoint.worker.run"] == ""  # it comes with the job
    assert "Install dill there" in failure["next_step"]
    assert "the user's own Python" in found.with_fact("workers", "pool")["words"]


def test_another_dill_than_the_sdks_is_a_warning(patient: Patient, tmp_path: Path) -> None:
    environment = bare_environment(tmp_path / "other")
    (site,) = environment.glob("lib/python3*/site-packages")
    (site / "dill.py").write_text("__version__ = '0.3.1'\n")
    patient.configure(local(worker_init=f"source {environment}/bin/activate"))
    found = patient.examine()
    (warned,) = found.findings("workers", "warning")
    assert (warned["code"], warned["facts"]["sdk_dill"]) == ("DILL", "0.3.9")
    assert "0.3.1" in warned["words"]


def test_engines_without_a_provider_need_no_job(patient: Patient) -> None:
    patient.configure({"type": "ProcessPoolEngine", "max_workers": 1})
    found = patient.examine()
    assert "need no address" in found.findings("interface")[0]["words"]
    assert found.with_fact("workers", "python")["facts"]["python"] == sys.executable


def test_a_scheduler_that_is_not_here_is_told_with_its_commands(patient: Patient) -> None:
    patient.configure({**LOCAL, "provider": {"type": "LSFProvider", "queue": "normal"}})
    found = patient.examine()
    failure = found.failure("scheduler")
    assert (failure["code"], sorted(failure["facts"]["commands"])) == ("NO_SCHEDULER", ["bjobs", "bkill", "bsub"])
    assert "user_environment.yaml" in failure["next_step"]
    assert "don't work here" in found.findings("interface", "not tried")[0]["words"]


def test_commands_that_only_users_find_are_found_by_user_environment_yaml(patient: Patient, tmp_path: Path) -> None:
    """Stand-ins for another scheduler's client: one queue is known."""
    patient.configure({**LOCAL, "provider": {"type": "LSFProvider", "queue": "short"}})
    commands = tmp_path / "lsf"
    commands.mkdir()
    for name, program in (
        ("bsub", "echo LSF 10.1"),
        ("bjobs", "true"),
        ("bkill", "true"),
        ("bqueues", 'case "$1" in ""|normal) echo normal ;; *) echo "$1: No such queue"; exit 255 ;; esac'),
    ):
        (commands / name).write_text(f"#!/bin/sh\n{program}\n")
        (commands / name).chmod(0o755)
    (patient.folder / "user_environment.yaml").write_text(f"PATH: {commands}:{os.environ['PATH']}\n")
    found = patient.examine("--no-job")
    assert found.with_fact("scheduler", "version")["facts"]["version"] == "LSF 10.1"
    assert found.failure("scheduler")["code"] == "NO_SUCH_QUEUE"
    assert "No such queue" in found.failure("scheduler")["detail"]


def test_a_directory_that_cannot_be_written_to_is_told(patient: Patient, tmp_path: Path) -> None:
    patient.configure()
    subprocess.run(["mount", "--bind", "-o", "ro", patient.folder, patient.folder], check=True)
    try:
        found = patient.examine("--no-job")
    finally:
        subprocess.run(["umount", patient.folder], check=True)
    assert found.failure("machine")["code"] == "NOT_WRITABLE"


def test_in_a_container_the_job_sees_what_workers_would_see_there(patient: Patient) -> None:
    """A custom container whose program gives it another host name."""
    options = "unshare --uts sh -c 'hostname inside; exec {EXECUTOR_LAUNCH_CMD}'"
    patient.variables["PATH"] = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
    patient.configure({**LOCAL, "container_type": "custom", "container_cmd_options": options, "address": "127.0.0.1"})
    found = patient.examine()
    assert found.with_fact("interface", "host")["facts"]["host"] == "inside", str(found)
    assert found.stage("workers")["verdict"] == "ok"
