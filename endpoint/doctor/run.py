"""Runs the stages, one after the other, each in a thread with a limit of time; what one does never hides the others."""

from __future__ import annotations

import contextlib
import queue
import threading
import time
import traceback
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

from endpoint.doctor.findings import Finding, Verdict, failed, failure, not_tried, worst
from endpoint.doctor.situation import NotTried, Situation
from endpoint.errors import EndpointError, ExitStatus, Mender

Check = Callable[[Situation], Iterator[Finding]]
MOST_TIME_S = 600.0  # for all stages
LOOK_S = 0.2


@dataclass(frozen=True)
class Stage:
    """name: one word, for programs. title: for people. clean_up_s: what it may take to end when it is asked to."""

    name: str
    title: str
    check: Check
    clean_up_s: float


@dataclass
class Outcome:
    """What a stage has found."""

    stage: Stage
    findings: list[Finding] = field(default_factory=list)
    seconds: float = 0.0

    @property
    def verdict(self) -> Verdict:
        return worst(finding.verdict for finding in self.findings)

    def to_dict(self) -> dict[str, Any]:
        """For `--json`."""
        return {
            "name": self.stage.name,
            "title": self.stage.title,
            "verdict": self.verdict.value,
            "seconds": round(self.seconds, 3),
            "findings": [finding.to_dict() for finding in self.findings],
        }


class Interrupted(Exception):
    """The person has seen enough; `outcome` is what the stage that ran had found."""

    def __init__(self, outcome: Outcome) -> None:
        super().__init__()
        self.outcome = outcome


def run_stages(stages: tuple[Stage, ...], situation: Situation) -> Iterator[Outcome]:
    """The stages' outcomes as they come. Raises Interrupted."""
    end = time.monotonic() + MOST_TIME_S
    for stage in stages:
        left = end - time.monotonic()
        if left <= 0:
            yield Outcome(stage, [not_tried(f"All stages together may take {MOST_TIME_S:.0f} s, which are over")])
        else:
            yield _run(stage, situation, min(situation.wishes.timeout_s, left))


def exit_status(outcomes: list[Outcome]) -> ExitStatus:
    """The status that fits the first failure."""
    found = [finding for outcome in outcomes for finding in outcome.findings if finding.verdict is Verdict.FAILED]
    return found[0].status if found else ExitStatus.OK


def _run(stage: Stage, situation: Situation, limit_s: float) -> Outcome:
    outcome = Outcome(stage)
    begin = time.monotonic()
    situation.deadline = begin + limit_s
    found: queue.SimpleQueue[Finding | None] = queue.SimpleQueue()
    thread = threading.Thread(target=_check, args=(stage, situation, found), daemon=True, name=f"doctor-{stage.name}")
    try:
        thread.start()
        if not _collect(outcome, found, situation.deadline):
            _ask_to_end(situation, outcome, found)
            outcome.findings.append(_too_slow(limit_s))
            situation.stopping = threading.Event()  # the thread that hangs keeps the old one
    except KeyboardInterrupt:
        with contextlib.suppress(KeyboardInterrupt):  # whoever is impatient needn't wait for the cleaning up
            _ask_to_end(situation, outcome, found)
        outcome.findings.append(not_tried("It was interrupted here"))
        outcome.seconds = time.monotonic() - begin
        raise Interrupted(outcome) from None
    outcome.seconds = time.monotonic() - begin
    return outcome


def _check(stage: Stage, situation: Situation, found: queue.SimpleQueue[Finding | None]) -> None:
    try:
        for finding in stage.check(situation):
            found.put(finding)
    except NotTried as reason:
        found.put(not_tried(f"Not tried: {reason.reason}", reason.next_step))
    except EndpointError as error:
        found.put(failure(error))
    except Exception as error:  # noqa: BLE001 - a check that is wrong must not hide what the others see
        found.put(_crash(error))
    finally:
        found.put(None)


def _collect(outcome: Outcome, found: queue.SimpleQueue[Finding | None], deadline: float) -> bool:
    """Take the findings until the stage has ended; False where the time is over before."""
    while True:
        left = deadline - time.monotonic()
        try:
            # Short waits: a signal must be seen soon.
            finding = found.get(timeout=max(0.0, min(LOOK_S, left)))
        except queue.Empty:
            if left <= 0:
                return False
            continue
        if finding is None:
            return True
        outcome.findings.append(finding)


def _ask_to_end(situation: Situation, outcome: Outcome, found: queue.SimpleQueue[Finding | None]) -> None:
    situation.stopping.set()
    _collect(outcome, found, time.monotonic() + outcome.stage.clean_up_s)


def _too_slow(limit_s: float) -> Finding:
    return failed(
        f"This stage was not finished within {limit_s:g} s",
        "Look at what hangs here, or give it more time with --timeout",
        code="TOO_SLOW",
        limit_s=limit_s,
    )


def _crash(error: Exception) -> Finding:
    return failed(
        f"This check itself is at fault ({type(error).__name__}: {error}); it says nothing of the endpoint",
        "Report it with the lines below",
        code="INTERNAL_ERROR",
        status=ExitStatus.UNEXPECTED_ANSWER,
        mender=Mender.DEVELOPER,
        detail="".join(traceback.format_exception(error)[-6:]),
    )
