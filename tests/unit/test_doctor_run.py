"""How doctor's stages are run: none hides another, none takes longer than it may, and the first failure counts."""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from endpoint.doctor.findings import Finding, Verdict, failed, ok, warning, worst
from endpoint.doctor.run import Check, Interrupted, Outcome, Stage, exit_status, run_stages
from endpoint.doctor.situation import NotTried, Situation, Wishes
from endpoint.errors import ConfigError, ExitStatus


def situation(timeout_s: float = 10.0) -> Situation:
    return Situation(Path("/nowhere/lab"), Path("/nowhere"), {}, lambda: None, Wishes(timeout_s=timeout_s))  # type: ignore[arg-type, return-value]


def stage(check: Check, name: str = "one", clean_up_s: float = 5.0) -> Stage:
    return Stage(name, name.title(), check, clean_up_s)


def well(_: Situation) -> Iterator[Finding]:
    yield ok("all is well")


def test_a_check_that_crashes_is_one_failure_with_its_traceback_and_hides_no_other() -> None:
    def crash(_: Situation) -> Iterator[Finding]:
        yield ok("so far, so good")
        raise KeyError("nobody thought of that")

    first, second = run_stages((stage(crash), stage(well, "two")), situation())
    assert [finding.verdict for finding in first.findings] == [Verdict.OK, Verdict.FAILED]
    assert "this check itself is at fault" in first.findings[1].words.lower()
    assert "nobody thought of that" in first.findings[1].detail
    assert first.findings[1].status is ExitStatus.UNEXPECTED_ANSWER
    assert second.verdict is Verdict.OK


def test_our_errors_become_failures_and_what_could_not_be_tried_says_why() -> None:
    def refused(_: Situation) -> Iterator[Finding]:
        yield ok("here")
        raise ConfigError("a line is wrong", hint="mend it")

    def left_out(_: Situation) -> Iterator[Finding]:
        raise NotTried("the one before failed")
        yield ok("never")

    first, second = run_stages((stage(refused), stage(left_out, "two")), situation())
    assert (first.findings[1].words, first.findings[1].next_step) == ("a line is wrong", "mend it")
    assert (second.verdict, second.findings[0].words) == (Verdict.NOT_TRIED, "Not tried: the one before failed")


def test_a_stage_that_takes_too_long_is_left_with_what_it_found_and_asked_to_clean_up() -> None:
    cleaned = threading.Event()

    def slow(seen: Situation) -> Iterator[Finding]:
        yield ok("something was found")
        seen.stopping.wait(60)
        cleaned.set()

    begin = time.monotonic()
    first, second = run_stages((stage(slow), stage(well, "two")), situation(1.0))
    assert time.monotonic() - begin < 10
    assert cleaned.is_set()
    assert [finding.code for finding in first.findings] == ["", "TOO_SLOW"]
    assert second.verdict is Verdict.OK


def test_a_stage_that_hangs_for_good_keeps_nobody() -> None:
    hanging = threading.Event()

    def hang(_: Situation) -> Iterator[Finding]:
        hanging.wait(60)
        yield ok("too late")

    first, second = run_stages((stage(hang, clean_up_s=0.1), stage(well, "two")), situation(1.0))
    hanging.set()
    assert [finding.code for finding in first.findings] == ["TOO_SLOW"]
    assert second.verdict is Verdict.OK


def test_ctrl_c_ends_the_stage_after_it_has_cleaned_up_and_keeps_its_findings() -> None:
    def waiting(seen: Situation) -> Iterator[Finding]:
        yield ok("found before")
        os.kill(os.getpid(), signal.SIGINT)
        seen.stopping.wait(60)
        yield ok("cleaned up")

    with pytest.raises(Interrupted) as caught:
        list(run_stages((stage(waiting), stage(well, "two")), situation()))
    assert [finding.words for finding in caught.value.outcome.findings] == [
        "found before",
        "cleaned up",
        "It was interrupted here",
    ]


def test_the_first_failure_gives_the_exit_status_and_warnings_none() -> None:
    mapping = failed("a", code="A", status=ExitStatus.MAPPING_UNREADABLE)
    network = failed("b", code="B", status=ExitStatus.NETWORK)
    one, two = Outcome(stage(well), [warning("w"), mapping]), Outcome(stage(well), [network])
    assert exit_status([one, two]) is ExitStatus.MAPPING_UNREADABLE
    assert exit_status([two, one]) is ExitStatus.NETWORK
    assert exit_status([Outcome(stage(well), [warning("w")])]) is ExitStatus.OK


def test_the_worst_finding_is_a_stages_verdict() -> None:
    assert worst([Verdict.OK, Verdict.NOT_TRIED]) is Verdict.NOT_TRIED
    assert worst([Verdict.WARNING, Verdict.NOT_TRIED]) is Verdict.WARNING
    assert worst([Verdict.FAILED, Verdict.WARNING, Verdict.OK]) is Verdict.FAILED


def test_findings_never_carry_passwords() -> None:
    found = failed(
        "amqp://user:hunter2@host is away", "try amqp://user:hunter2@host", code="X", detail="password=hunter2"
    )
    assert "hunter2" not in str(found.to_dict())
