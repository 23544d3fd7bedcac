"""One batch job by the configuration's own provider and launcher: submitted, watched, and always ended."""

from __future__ import annotations

import contextlib
import re
import subprocess
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from parsl.jobs.states import TERMINAL_STATES, JobState
from parsl.providers.errors import SubmitException

from endpoint.doctor.findings import Finding, failed
from endpoint.engines.parsl_parts import build_provider
from endpoint.errors import ConfigError, EndpointError, EngineFailure

LOOK_S = 0.2
ASK_S = 1.0  # between questions to a scheduler; on this machine they cost nothing
GRACE_S = 3.0  # for the files of a job that has ended: another machine may have written them
REASON_TIMEOUT_S = 5.0
TAIL = 2000  # characters of what a job has said
SHORTEST_WALLTIME_S = 60
# How a scheduler tells why a job waits; the job's id comes last.
REASONS = {
    "SlurmProvider": ("squeue", "-h", "-o", "%r", "-j"),
    "PBSProProvider": ("qstat", "-f"),
    "TorqueProvider": ("qstat", "-f"),
    "LSFProvider": ("bjobs", "-p"),
    "CondorProvider": ("condor_q", "-better-analyze"),
}


class SubmitFailed(EngineFailure):
    """The scheduler does not take the job."""

    code = "SUBMIT_REFUSED"


@dataclass
class Job:
    """A job that was submitted. state: Parsl's."""

    id: str
    provider: Any
    kind: str
    folder: Path
    submitted: float
    state: JobState = JobState.UNKNOWN
    began_s: float | None = None
    exit_code: int | None = None

    @property
    def ended(self) -> bool:
        return self.state in TERMINAL_STATES

    @property
    def waiting(self) -> bool:
        return self.state in (JobState.PENDING, JobState.HELD)

    def look(self) -> None:
        """Ask the scheduler."""
        with contextlib.suppress(Exception):  # one that doesn't answer now may answer the next time
            (status,) = self.provider.status([self.id])
            self.state, self.exit_code = status.state, status.exit_code
        if (self.state is JobState.RUNNING or self.ended) and self.began_s is None:
            self.began_s = round(time.monotonic() - self.submitted, 1)

    def reason(self) -> str:
        """Why it waits, in the scheduler's words; empty where it says nothing."""
        command = REASONS.get(self.kind)
        if command is None:
            return ""
        try:
            done = subprocess.run(
                [*command, self.id],
                stdin=subprocess.DEVNULL,
                capture_output=True,
                timeout=REASON_TIMEOUT_S,
                check=False,
            )
        except (OSError, subprocess.TimeoutExpired):
            return ""
        text = done.stdout.decode(errors="replace")
        comment = re.search(r"^\s*comment\s*=\s*(.*)", text, re.MULTILINE)
        return " ".join((comment.group(1) if comment else text).split())[:200]

    def end(self) -> None:
        """Cancel it, if it has not ended."""
        if not self.ended:
            with contextlib.suppress(Exception):  # it may have ended just now
                self.provider.cancel([self.id])

    def words(self, *suffixes: str) -> str:
        """The last of what it has written to its files that end in one of `suffixes`, or that hold the job's id."""
        found = [path for path in self.folder.rglob("*") if path.is_file() and path.name.endswith(suffixes)]
        texts = [path.read_text(errors="replace").strip() for path in sorted(found)]
        return "\n".join(filter(None, texts))[-TAIL:]

    @property
    def errors(self) -> str:
        """The end of its standard error."""
        return self.words(".stderr", ".err", ".e")

    def output(self) -> str:
        """All its standard output."""
        found = [path for path in self.folder.rglob("*") if path.is_file() and path.name.endswith((".stdout", ".out"))]
        return "\n".join(path.read_text(errors="replace") for path in sorted(found))


def one_node(block: Mapping[str, Any], seconds: float) -> Any:
    """The provider of a block of one node, for a job that takes `seconds` at the most. Raises ConfigError."""
    smaller = dict(block)
    if "nodes_per_block" in smaller:
        smaller["nodes_per_block"] = 1
    if "walltime" in smaller:
        minutes = -(-max(SHORTEST_WALLTIME_S, int(seconds)) // 60)
        smaller["walltime"] = f"{minutes // 60:02d}:{minutes % 60:02d}:00"
    return build_provider(smaller)


@contextlib.contextmanager
def submitted(provider: Any, kind: str, command: str, folder: Path) -> Iterator[Job]:
    """The job, which has ended, or is cancelled, afterwards. Raises SubmitFailed."""
    provider.script_dir = str(folder)
    begin = time.monotonic()
    try:
        job_id = provider.submit(command, 1, "gce-doctor")
    except SubmitException as error:
        said = " ".join(str(getattr(error, name, "") or "").strip() for name in ("stderr", "stdout")).strip()
        raise SubmitFailed(
            f"The scheduler refuses the job: {said[:300] or error}",
            hint="Correct the provider's block in the template, or ask the cluster's administrators for the account",
            detail=said[-TAIL:],
        ) from error
    except EndpointError:
        raise
    except Exception as error:  # the providers' exceptions have no base
        raise SubmitFailed(f"The job can't be submitted: {' '.join(str(error).split())}", detail=repr(error)) from error
    if job_id is None:
        raise SubmitFailed("The provider submits nothing now", hint="Look at the provider's block in the template")
    job = Job(str(job_id), provider, kind, folder, begin)
    try:
        yield job
    finally:
        job.end()


def watch(
    job: Job, done: threading.Event, stopping: threading.Event, deadline: float, tell: Callable[[str], None]
) -> None:
    """Wait until the job has told its report (`done`), has ended, or the time is over."""
    pause_s = LOOK_S if job.kind == "LocalProvider" else ASK_S
    asked = 0.0
    while not stopping.is_set() and time.monotonic() < deadline:
        if time.monotonic() - asked >= pause_s:
            job.look()
            asked = time.monotonic()
            waited = time.monotonic() - job.submitted
            tell(f"job {job.id} {'waits' if job.waiting else 'runs'} ({waited:.0f} s)")
        if done.wait(LOOK_S):
            return
        if job.ended:
            return


def refused(error: ConfigError | SubmitFailed, **facts: Any) -> Finding:
    """A job that never was."""
    said = error.failure
    return failed(
        said.reason,
        said.hint or "Correct the provider's block in the template",
        code=said.code,
        status=error.exit_status,
        detail=said.detail,
        **facts,
    )
