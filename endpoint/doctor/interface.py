"""Whether workers reach this process: a job of a second, where the engine's workers would run, tries each address."""

from __future__ import annotations

import json
import shutil
import tempfile
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from endpoint.doctor.findings import Finding, failed, failure, not_tried, ok, warning
from endpoint.doctor.job import GRACE_S, LOOK_S, Job, one_node, refused, submitted, watch
from endpoint.doctor.listener import NO_PORT, Listener
from endpoint.doctor.probe import MARK
from endpoint.doctor.situation import JobReport, NotTried, Situation, Trial
from endpoint.engines.htex_options import OWN_NETWORK
from endpoint.engines.lifeline import Lifeline
from endpoint.engines.parsl_parts import build_addresses, interface_addresses
from endpoint.errors import ConfigError, EndpointError, EngineFailure, ExitStatus

MOST_JOBS = 3
PER_ADDRESS_S = 3.0
SPARE_S = 4.0  # of the stage's time, for ending the job and telling of it
MODULES = ["endpoint.worker.run", "dill", "parsl"]
COSTLY = ("KubernetesProvider", "AWSProvider", "GoogleCloudProvider", "AzureProvider")


def check(situation: Situation) -> Iterator[Finding]:
    """Leaves `reports`."""
    if not situation.buildable:
        raise NotTried("no engine can be built")
    if not any(trial.provider for trial in situation.buildable):
        yield ok("The engine's workers are in this process or beside it, and need no address")
        return
    trials = [trial for trial in situation.buildable if trial.provider and trial.for_job]
    if not situation.wishes.job:
        yield from _listed(trials)
        raise NotTried("--no-job leaves out the job that would try them")
    _check_user(situation)
    for trial in trials[:MOST_JOBS]:
        yield from _try(situation, trial)
    if len(trials) > MOST_JOBS:
        yield not_tried(f"The engines of {len(trials) - MOST_JOBS} more sets of options: {MOST_JOBS} jobs are enough")


def _check_user(situation: Situation) -> None:
    if situation.of_another and not situation.multi_user:
        raise NotTried("the directory is another user's, and root runs nothing of theirs", "Run this as that user")
    if situation.multi_user:
        raise NotTried(
            "jobs are submitted as the mapped user, whom only the endpoint's monitor can become",
            "As a user of the endpoint: make an endpoint of your own from the same template, and ask its doctor",
        )


def _addresses(trial: Trial) -> tuple[list[str], bool]:
    """As the engine gives them to its workers, and whether these are all that may do."""
    engine = trial.engine
    own_network = engine.get("container_type") in OWN_NETWORK
    block = engine.get("address")
    return build_addresses(block, local=_is_local(trial) and not own_network), block is None


def _is_local(trial: Trial) -> bool:
    return trial.provider is not None and trial.provider.get("type") == "LocalProvider"


def _listed(trials: list[Trial]) -> Iterator[Finding]:
    for trial in trials:
        addresses, _ = _addresses(trial)
        yield ok(f"Workers would be given {', '.join(addresses)}", addresses=addresses, engine=trial.summary)


def _try(situation: Situation, trial: Trial) -> Iterator[Finding]:
    assert trial.provider is not None
    kind = str(trial.provider["type"])
    facts: dict[str, Any] = {"engine": trial.summary, "options": dict(trial.options)}
    if kind in COSTLY:
        yield not_tried(f"{kind} would start a machine or a pod for the job, which doctor does not do", **facts)
        return
    if not situation.schedulers_ok.get(kind, True):
        yield not_tried(f"Not tried: the commands of {kind} don't work here", **facts)
        return
    stopping = situation.stopping
    deadline = situation.deadline - min(SPARE_S, situation.wishes.timeout_s / 3)
    folder = Path(tempfile.mkdtemp(prefix=".doctor-", dir=situation.folder))
    lifeline = None
    try:
        addresses, any_may_do = _addresses(trial)
        provider = one_node(trial.provider, situation.left_s)
        lifeline = Lifeline(folder) if _is_local(trial) else None
        with _listener(situation, None if any_may_do else addresses[0], _ports(trial)) as listener:
            from endpoint.doctor.job_command import probe_command

            asked = {"token": listener.token, "port": listener.port, "addresses": addresses}
            asked |= {"timeout_s": PER_ADDRESS_S, "modules": MODULES}
            command = probe_command(trial, provider, folder, lifeline, asked)
            scripts = folder / "submit_scripts"
            scripts.mkdir()
            with submitted(provider, kind, command, scripts) as job:
                watch(job, listener.arrived, stopping, deadline, situation.progress)
                report = listener.report or _from_output(job, listener, deadline)
                yield from _told(situation, trial, job, report, facts)
    except (ConfigError, EndpointError) as error:
        yield refused(error, **facts) if isinstance(error, ConfigError) else failure(error, **facts)
    finally:
        if lifeline is not None:
            lifeline.cut()
        shutil.rmtree(folder, ignore_errors=True)


def _ports(trial: Trial) -> list[int]:
    """Those that the engine's interchange would listen at."""
    if port := trial.engine.get("worker_port"):
        return [int(port)]
    low, high = trial.engine.get("worker_port_range") or (54000, 55000)
    return list(range(int(low), int(high)))


def _listener(situation: Situation, address: str | None, ports: list[int]) -> Listener:
    """At one of the ports; at any other where the endpoint runs, and has them itself. Raises EngineFailure."""
    try:
        return Listener(address, ports)
    except EngineFailure as error:
        runs = situation.lease is not None and situation.lease.state == "running"
        if error.failure.code != NO_PORT or not runs:
            raise
        return Listener(address, [0])


def _from_output(job: Job, listener: Listener, deadline: float) -> Mapping[str, Any] | None:
    """The report in the job's own output, which no network is needed for."""
    end = min(deadline, time.monotonic() + GRACE_S)
    while job.ended:
        for line in job.output().splitlines():
            if line.startswith(MARK):
                return _checked(line.removeprefix(MARK), listener.token)
        if listener.report is not None:
            return listener.report
        if time.monotonic() > end:
            break
        listener.arrived.wait(LOOK_S)
    return None


def _checked(text: str, token: str) -> Mapping[str, Any] | None:
    try:
        report = json.loads(text)
    except ValueError:
        return None
    return report if isinstance(report, dict) and report.get("token") == token else None


def _told(
    situation: Situation, trial: Trial, job: Job, report: Mapping[str, Any] | None, facts: dict[str, Any]
) -> Iterator[Finding]:
    facts |= {"job": job.id, "waited_s": job.began_s, "state": job.state.name}
    if situation.stopping.is_set() and report is None:
        yield not_tried(f"The job {job.id} was cancelled before it told anything", **facts)
    elif report is not None:
        tried = [entry for entry in report.get("addresses", []) if isinstance(entry, dict)]
        offsets = [entry for entry in tried if "ahead_s" in entry]
        best = min(offsets, key=lambda entry: float(entry["latency_ms"]), default=None)
        situation.reports.append(JobReport(trial, report, float(best["ahead_s"]) if best else None))
        yield _reached(report, tried, facts)
    elif job.waiting:
        reason = job.reason()
        why = f" ({reason})" if reason else ""
        yield warning(
            f"The job {job.id} still waits in the queue{why}; it was cancelled, and nothing more is known",
            "Try again when the queue is shorter, with a longer --timeout, or with options for a shorter queue",
            code="QUEUE_FULL",
            reason=reason,
            **facts,
        )
    else:
        yield _silent(job, facts)


def _silent(job: Job, facts: dict[str, Any]) -> Finding:
    if not job.ended:
        took = time.monotonic() - job.submitted
        return failed(
            f"The job {job.id} has not told anything within {took:.0f} s, and was cancelled",
            "If worker_init takes so long, give it more with --timeout; else look at what it waits for",
            code="JOB_SLOW",
            detail=job.errors,
            **facts,
        )
    how = f"ended with status {job.exit_code}" if job.exit_code else "ended"
    return failed(
        f"The job {job.id} {how} without a report, so a worker would not come up either",
        "Look at worker_init and launcher of the template: what the job wrote to its standard error is below",
        code="JOB_FAILED",
        detail=job.errors or "It wrote nothing to its standard error.",
        exit_code=job.exit_code,
        **facts,
    )


def _reached(report: Mapping[str, Any], tried: list[dict[str, Any]], facts: dict[str, Any]) -> Finding:
    host = str(report.get("host"))
    good = [entry for entry in tried if "latency_ms" in entry]
    bad = [entry for entry in tried if "latency_ms" not in entry]
    facts |= {"host": host, "addresses": tried}
    missed = ", ".join(f"{entry.get('address')} ({entry.get('error')})" for entry in bad)
    if not good:
        here = interface_addresses()
        return failed(
            f"From {host} nobody reaches this process: {missed}",
            "Name an address that the nodes reach in the template: `address: {type: address_by_interface, ifname: "
            f"NAME}}`. This machine has {', '.join(here)}. Look at a firewall too: the ports are worker_port_range",
            code="UNREACHABLE",
            status=ExitStatus.NETWORK,
            interfaces=here,
            **facts,
        )
    waited = f"; the job began after {facts['waited_s']:.1f} s" if facts.get("waited_s") else ""
    reached = ", ".join(f"{entry['address']} ({entry['latency_ms']} ms)" for entry in good)
    also = f"; not {missed}" if bad else ""
    return ok(f"From {host} workers reach {reached}{also}{waited}", **facts)
