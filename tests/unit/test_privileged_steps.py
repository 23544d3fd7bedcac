"""The steps of a start, and what becomes of what a user's process tells about itself."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from endpoint.errors import Failure, Mender, Stage
from endpoint.privileged.become import Identity
from endpoint.privileged.steps import STATUS, TOLD, Step, StepFailed, failure_from, fitting, step_of

TOLD_BY_USER = {
    "stage": "render",
    "code": "BAD",
    "reason": "No",
    "hint": "",
    "mender": "user",
    "retry": False,
    "detail": "",
}
SPEC = Path(__file__).resolve().parents[2] / "docs" / "privileges.md"


def test_each_step_has_a_status_of_its_own_and_words() -> None:
    assert list(STATUS) == list(TOLD) == list(Step)
    assert sorted(STATUS.values()) == list(range(100, 117))
    assert [step_of(step.status) for step in Step] == list(Step)
    assert step_of(0) is None


def test_each_step_stands_in_the_document() -> None:
    text = SPEC.read_text()

    assert [step for step in Step if f"`{step.value}`" not in text] == []


def test_the_user_reads_one_sentence_and_the_admin_all() -> None:
    failure = StepFailed(Step.PAM_SESSION, "pam_open_session (user her): 14").failure

    assert "pam_open_session" in failure.for_admin()
    assert failure.for_user().endswith("[pam: CANNOT_START_PAM_SESSION]")
    assert "pam_open_session" not in failure.for_user()


def test_a_failure_of_a_user_s_process_is_taken_as_it_is() -> None:
    assert failure_from(TOLD_BY_USER) == Failure(Stage.RENDER, "BAD", "No", Mender.USER)


@pytest.mark.parametrize(
    "change",
    [{"stage": "x"}, {"mender": None}, {"reason": ""}, {"reason": 1}, {"detail": []}, {"stage": []}, {"mender": {}}],
)
def test_what_is_no_failure_is_none(change: dict[str, object]) -> None:
    assert failure_from({**TOLD_BY_USER, **change}) is None


def test_a_text_can_t_move_the_cursor_of_who_reads_the_log() -> None:
    failure = failure_from({**TOLD_BY_USER, "reason": "\x1b[2Jgone", "detail": "a\nb\r"})

    assert failure.reason == "?[2Jgone"
    assert failure.detail == "a\nb?"


@pytest.mark.parametrize("letter", ["x", "é", '"', "\n", "\U0001f600"])
def test_a_failure_is_cut_until_it_fits_into_a_packet(letter: str) -> None:
    huge = Failure(Stage.RUN, "C", letter * 4000, Mender.USER, letter * 4000, detail=letter * 24_000)

    fields = fitting(huge, 48 * 1024)

    assert len(json.dumps(fields)) <= 48 * 1024 + 500
    assert failure_from(fields) is not None


@pytest.mark.parametrize(("uid", "gid"), [(0, 1), (-1, 1), (2**32 - 1, 1), (1, -1), (1, 2**32 - 1)])
def test_nobody_can_become_root_or_nobody_in_particular(uid: int, gid: int) -> None:
    with pytest.raises(StepFailed):
        Identity(uid, gid, ())
