"""The scheduler of each provider: its commands are found and answer, and it knows the queue that is asked for."""

from __future__ import annotations

import shutil
import subprocess
import time
from collections.abc import Iterator
from dataclasses import dataclass
from importlib.util import find_spec
from typing import Any

from endpoint.doctor.findings import Finding, failed, ok, warning
from endpoint.doctor.situation import NotTried, Situation, Trial
from endpoint.errors import ExitStatus

COMMAND_TIMEOUT_S = 10.0
SHOWN = 300  # characters of a command's own words


@dataclass(frozen=True)
class Scheduler:
    """What a provider of Parsl's needs of its scheduler.

    commands: that it runs. version: of the commands. alive: asks the scheduler itself. queue: the option of the
    provider's block that names a queue, and the command, to be followed by the name, that succeeds where there is such
    a one. known: lists the queues' names, one a line. package: the Python package that it needs.
    """

    commands: tuple[str, ...] = ()
    version: tuple[str, ...] = ()
    alive: tuple[str, ...] = ()
    queue: tuple[str, tuple[str, ...]] | None = None
    known: tuple[str, ...] = ()
    package: str = ""


SCHEDULERS = {
    "LocalProvider": Scheduler(("bash", "ps", "grep")),
    "SlurmProvider": Scheduler(
        ("sbatch", "squeue", "scancel"),
        ("sbatch", "--version"),
        ("scontrol", "ping"),
        ("partition", ("scontrol", "-o", "show", "partition")),
        ("sinfo", "-h", "-o", "%R"),
    ),
    "PBSProProvider": Scheduler(
        ("qsub", "qstat", "qdel"), ("qstat", "--version"), ("qstat", "-B"), ("queue", ("qstat", "-Q"))
    ),
    "TorqueProvider": Scheduler(
        ("qsub", "qstat", "qdel"), ("qstat", "--version"), ("qstat", "-B"), ("queue", ("qstat", "-Q"))
    ),
    "LSFProvider": Scheduler(("bsub", "bjobs", "bkill"), ("bsub", "-V"), ("bqueues",), ("queue", ("bqueues",))),
    "CondorProvider": Scheduler(
        ("condor_submit", "condor_q", "condor_rm"), ("condor_version",), ("condor_q", "-totals")
    ),
    "GridEngineProvider": Scheduler(
        ("qsub", "qstat", "qdel"), ("qstat", "-help"), ("qstat",), ("queue", ("qconf", "-sq")), ("qconf", "-sql")
    ),
    "KubernetesProvider": Scheduler(package="kubernetes"),
    "AWSProvider": Scheduler(package="boto3"),
    "GoogleCloudProvider": Scheduler(package="googleapiclient"),
    "AzureProvider": Scheduler(package="azure"),
}


def check(situation: Situation) -> Iterator[Finding]:
    """Leaves in `schedulers_ok` whether a provider's commands are there and answer."""
    if not situation.trials:
        raise NotTried("no set of options gives a valid configuration")
    asked: set[str] = set()
    queues: set[tuple[str, str]] = set()
    for trial in situation.trials:
        if trial.provider is None:
            continue
        kind = str(trial.provider.get("type"))
        scheduler = SCHEDULERS.get(kind)
        if scheduler is None:
            continue
        if kind not in asked:
            asked.add(kind)
            yield from _commands(situation, kind, scheduler)
        if situation.schedulers_ok.get(kind) and (queue := _queue_of(scheduler, trial)) and (kind, queue) not in queues:
            queues.add((kind, queue))
            yield from _queue(scheduler, queue, trial)
    if not asked:
        yield ok("The engine needs no scheduler")


def _commands(situation: Situation, kind: str, scheduler: Scheduler) -> Iterator[Finding]:
    found = {name: shutil.which(name, path=situation.environ.get("PATH")) for name in scheduler.commands}
    missing = [name for name, path in found.items() if path is None]
    if scheduler.package and find_spec(scheduler.package) is None:
        missing.append(f"the Python package {scheduler.package}")
    situation.schedulers_ok[kind] = not missing
    if missing:
        yield failed(
            f"{kind} needs {', '.join(missing)}, which this process does not find",
            "Set PATH in user_environment.yaml, install the scheduler's client, or run the endpoint on a login node",
            code="NO_SCHEDULER",
            status=ExitStatus.BAD_CONFIG,
            provider=kind,
            commands=found,
            path=situation.environ.get("PATH", ""),
        )
        return
    if not scheduler.version:
        yield ok(f"{kind} has what it needs: {', '.join(scheduler.commands) or scheduler.package}", provider=kind)
        return
    facts: dict[str, Any] = {"provider": kind, "commands": found}
    version = _run(scheduler.version)
    answer = _run(scheduler.alive) if version.status == 0 else version
    situation.schedulers_ok[kind] = answer.status == 0
    if answer.status == 0:
        words = f"{', '.join(scheduler.commands)} are there ({version.first_line}), and the scheduler answers"
        yield ok(
            f"{words} within {answer.took_ms:.0f} ms", version=version.first_line, latency_ms=answer.took_ms, **facts
        )
        return
    failing = scheduler.alive if version.status == 0 else scheduler.version
    yield failed(
        f"`{' '.join(failing)}` fails, so no job can be submitted from here",
        "Run it by hand; look at the scheduler's configuration on this machine, and whether it runs",
        code="SCHEDULER_SILENT",
        status=ExitStatus.BAD_CONFIG,
        detail=answer.words,
        **facts,
    )


def _queue_of(scheduler: Scheduler, trial: Trial) -> str | None:
    if scheduler.queue is None or trial.provider is None:
        return None
    value = trial.provider.get(scheduler.queue[0])
    return str(value) if value else None


def _queue(scheduler: Scheduler, queue: str, trial: Trial) -> Iterator[Finding]:
    assert scheduler.queue is not None
    option, command = scheduler.queue
    answer = _run((*command, queue))
    facts: dict[str, Any] = {option: queue, "latency_ms": answer.took_ms, "options": dict(trial.options)}
    if answer.status is None:
        yield warning(
            f"`{' '.join(command)}` does not answer, so nobody can tell whether there is a {option} {queue!r}",
            "Run it by hand",
            code="SCHEDULER_SILENT",
            detail=answer.words,
            **facts,
        )
    elif answer.status != 0:
        known = sorted(set(_run(scheduler.known).lines)) if scheduler.known else []
        told = f"; it knows {', '.join(known[:20])}" if known else ""
        yield failed(
            f"The scheduler knows no {option} {queue!r}{told}",
            f"Correct {option} in the template's provider block, or the example in the schema of user options",
            code="NO_SUCH_QUEUE",
            status=ExitStatus.BAD_CONFIG,
            detail=answer.words,
            known=known,
            **facts,
        )
    else:
        yield from _of_partition(answer.lines[0] if answer.lines else "", option, queue, facts)


def _of_partition(line: str, option: str, queue: str, facts: dict[str, Any]) -> Iterator[Finding]:
    """What Slurm's one line of KEY=VALUE says; of other schedulers only that there is the queue."""
    values = dict(part.split("=", 1) for part in line.split() if "=" in part)
    facts |= {key: values[name] for name, key in (("State", "state"), ("MaxTime", "max_time")) if name in values}
    if values.get("State", "UP") != "UP":
        yield warning(
            f"The {option} {queue!r} is {values['State']}: jobs wait until it is UP again",
            "Ask the cluster's administrators, or name another one",
            code="QUEUE_DOWN",
            **facts,
        )
        return
    if values.get("TotalNodes", "").isdigit():
        facts["nodes"] = int(values["TotalNodes"])
    nodes = f", {facts['nodes']} nodes" if "nodes" in facts else ""
    longest = f", jobs of at most {values['MaxTime']}" if "MaxTime" in values else ""
    yield ok(f"The scheduler knows the {option} {queue!r}{nodes}{longest}", **facts)


@dataclass(frozen=True)
class _Answer:
    status: int | None  # None: none in time
    words: str
    took_ms: float

    @property
    def lines(self) -> list[str]:
        return [line.strip() for line in self.words.splitlines() if line.strip()]

    @property
    def first_line(self) -> str:
        return self.lines[0][:SHOWN] if self.lines else ""


def _run(command: tuple[str, ...]) -> _Answer:
    begin = time.monotonic()
    try:
        done = subprocess.run(
            command,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            timeout=COMMAND_TIMEOUT_S,
            check=False,
        )
        status, words = done.returncode, done.stdout.decode(errors="replace")
    except subprocess.TimeoutExpired:
        status, words = None, f"no answer within {COMMAND_TIMEOUT_S:g} s"
    except OSError as error:
        status, words = None, str(error)
    return _Answer(status, words[: 20 * SHOWN], round((time.monotonic() - begin) * 1000, 1))
