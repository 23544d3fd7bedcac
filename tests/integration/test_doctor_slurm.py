"""`doctor` and its job on a real Slurm: partitions, a queue that is full, and jobs that are never left behind."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from endpoint.errors import ExitStatus
from tests.support.doctors import LOCAL, Patient
from tests.support.ill_service import IllService
from tests.support.slurm import NODES, Slurm


@pytest.fixture
def patient(tmp_path: Path, slurm: Slurm) -> Iterator[Patient]:
    with IllService() as service:
        found = Patient(tmp_path / "gc", {**service.environment, "SLURM_CONF": str(slurm.configuration)})
        yield found
        found.end()


def engine(**provider: Any) -> dict[str, Any]:
    block = {"type": "SlurmProvider", "partition": "debug", "walltime": "00:05:00", "nodes_per_block": 2}
    return {**LOCAL, "provider": {**block, **provider}}


def wait_for(condition: Callable[[], Any], timeout: float = 60) -> None:
    deadline = time.monotonic() + timeout
    while not condition():
        assert time.monotonic() < deadline, "it did not happen in time"
        time.sleep(0.05)


def test_a_job_of_one_node_comes_back_with_what_a_worker_would_meet(patient: Patient, slurm: Slurm) -> None:
    patient.configure(engine(launcher={"type": "SrunLauncher"}))
    found = patient.examine()

    assert found.with_fact("scheduler", "version")["facts"]["version"].startswith("slurm")
    partition = found.with_fact("scheduler", "partition")["facts"]
    assert (partition["partition"], partition["state"], partition["nodes"]) == ("debug", "UP", len(NODES))
    (reached,) = found.findings("interface")
    assert reached["verdict"] == "ok", str(found)
    assert [entry["address"] for entry in reached["facts"]["addresses"] if "latency_ms" in entry]
    assert found.stage("workers")["verdict"] == "ok", str(found)
    job = slurm.job(reached["facts"]["job"])
    assert (len(job.nodes), job.partition) == (1, "debug")
    wait_for(lambda: slurm.job(job.id).ended)


def test_a_partition_that_the_scheduler_does_not_know_is_told_with_those_it_knows(patient: Patient) -> None:
    patient.configure(engine(partition="gpu"))
    found = patient.examine()
    failure = found.failure("scheduler")
    assert failure["code"] == "NO_SUCH_QUEUE"
    assert failure["facts"]["known"] == ["closed", "debug", "short"]
    refused = found.failure("interface")
    assert refused["code"] == "SUBMIT_REFUSED"
    assert "invalid partition specified: gpu" in refused["words"]


def test_a_full_queue_is_a_warning_with_the_schedulers_reason_and_leaves_no_job(patient: Patient, slurm: Slurm) -> None:
    patient.configure(engine())
    full = slurm.run("sbatch", "--parsable", f"--nodes={len(NODES)}", "--exclusive", "--wrap", "sleep 300").strip()
    wait_for(lambda: slurm.job(full).state == "RUNNING")
    found = patient.examine("--timeout", "12")

    (waiting,) = found.findings("interface")
    assert (waiting["verdict"], waiting["code"]) == ("warning", "QUEUE_FULL")
    assert waiting["facts"]["reason"] in ("Resources", "Priority")
    assert f"still waits in the queue ({waiting['facts']['reason']})" in waiting["words"]
    assert found.stage("workers")["verdict"] == "not tried"
    assert slurm.job(waiting["facts"]["job"]).state == "CANCELLED"
    slurm.cancel(full)


def test_ctrl_c_cancels_the_job(patient: Patient, slurm: Slurm) -> None:
    patient.configure(engine(worker_init="sleep 300"))
    before = {job.id for job in slurm.jobs()}
    process = patient.start()
    wait_for(lambda: [job for job in slurm.jobs() if job.id not in before and job.state == "RUNNING"])
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=60)

    assert process.returncode == ExitStatus.INTERRUPTED, err
    assert "was cancelled before it told anything" in out
    (job,) = [job for job in slurm.jobs() if job.id not in before]
    wait_for(lambda: slurm.job(job.id).ended)
    assert slurm.job(job.id).state == "CANCELLED"
    assert not list(patient.folder.glob(".doctor-*"))


def test_a_worker_init_that_breaks_on_a_node_is_told_with_the_jobs_standard_error(patient: Patient) -> None:
    patient.configure(engine(worker_init="module load python; exit 1"))
    failure = patient.examine().failure("interface")
    assert failure["code"] == "JOB_FAILED"
    assert "module: command not found" in failure["detail"]


def test_a_scheduler_that_does_not_answer_is_told_and_no_job_is_tried(patient: Patient, tmp_path: Path) -> None:
    conf = tmp_path / "slurm.conf"
    host = os.uname().nodename
    conf.write_text(
        f"ClusterName=gone\nSlurmctldHost={host}(127.0.0.1)\nSlurmctldPort=9\nNodeName=n1\nMessageTimeout=2\n"
    )
    patient.variables["SLURM_CONF"] = str(conf)
    patient.configure(engine())
    found = patient.examine()
    assert found.failure("scheduler")["code"] == "SCHEDULER_SILENT"
    assert found.stage("interface")["verdict"] == "not tried"
