"""The steps from a start request to a user endpoint, by name: each has an exit status, and words for the user.

A process that fails in a step ends with the step's status, and whoever waits for it knows from this table what that
means. The admin's log gets everything; the user gets `told`, one sentence without names of files or programs.
"""

from __future__ import annotations

import enum
import json
from collections.abc import Mapping
from typing import Any, Final

from endpoint.errors import EndpointError, Failure, Mender, Stage


class Step(str, enum.Enum):
    """Where a start can fail, in order."""

    POLICY = "policy"
    PAM_START = "pam-start"
    PAM_ACCOUNT = "pam-account"
    PAM_CREDENTIALS = "pam-credentials"
    PAM_SESSION = "pam-session"
    SCOPE = "scope"
    FORK = "fork"
    GROUPS = "groups"
    GID = "gid"
    UID = "uid"
    VERIFY = "verify"
    SESSION = "session"
    LIMITS = "limits"
    DIRECTORY = "directory"
    DESCRIPTORS = "descriptors"
    EXEC = "exec"
    PREPARE = "prepare"

    @property
    def status(self) -> int:
        """The exit status of a process that failed in this step."""
        return STATUS[self]


STATUS: Final[Mapping[Step, int]] = {
    Step.POLICY: 100,
    Step.PAM_START: 101,
    Step.PAM_ACCOUNT: 102,
    Step.PAM_CREDENTIALS: 103,
    Step.PAM_SESSION: 104,
    Step.SCOPE: 105,
    Step.FORK: 106,
    Step.GROUPS: 107,
    Step.GID: 108,
    Step.UID: 109,
    Step.VERIFY: 110,
    Step.SESSION: 111,
    Step.LIMITS: 112,
    Step.DIRECTORY: 113,
    Step.DESCRIPTORS: 114,
    Step.EXEC: 115,
    Step.PREPARE: 116,
}

# What the user reads, where the step's own error has no better words.
TOLD: Final[Mapping[Step, str]] = {
    Step.POLICY: "Your local account may not use this endpoint",
    Step.PAM_START: "This machine could not check your local account",
    Step.PAM_ACCOUNT: "Your local account may not be used on this machine now",
    Step.PAM_CREDENTIALS: "This machine could not set up the credentials of your local account",
    Step.PAM_SESSION: "This machine could not open a session for your local account",
    Step.SCOPE: "This machine could not open a session for your local account",
    Step.FORK: "This machine could not start a process for your local account",
    Step.GROUPS: "This machine could not start a process for your local account",
    Step.GID: "This machine could not start a process for your local account",
    Step.UID: "This machine could not start a process for your local account",
    Step.VERIFY: "This machine could not start a process for your local account",
    Step.SESSION: "This machine could not start a process for your local account",
    Step.LIMITS: "This machine could not set the limits of your local account",
    Step.DIRECTORY: "This machine could not start a process for your local account",
    Step.DESCRIPTORS: "This machine could not start a process for your local account",
    Step.EXEC: "This machine could not start a process for your local account",
    Step.PREPARE: "The user endpoint ended before it ran",
}

# Where on the road each is, for whoever reads of it: all others are `exec`.
STAGES: Final[Mapping[Step, Stage]] = {
    Step.POLICY: Stage.POLICY,
    Step.PAM_START: Stage.PAM,
    Step.PAM_ACCOUNT: Stage.PAM,
    Step.PAM_CREDENTIALS: Stage.PAM,
    Step.PAM_SESSION: Stage.PAM,
}

LONGEST_TEXT = 4000  # characters of a failure's reason and hint
LONGEST_DETAIL = 24_000  # characters of its detail: all of it must fit into a packet


class StepFailed(EndpointError):
    """A step that failed: `reason` is for the user, `detail` for the admin."""

    mender = Mender.ADMIN
    stage = Stage.EXEC
    code = "CANNOT_START"

    def __init__(self, step: Step, detail: str, *, reason: str = "", hint: str = "") -> None:
        super().__init__(
            reason or TOLD[step],
            hint=hint,
            detail=f"Step {step.value}: {detail}"[:LONGEST_DETAIL],
            stage=STAGES.get(step),
            code=f"CANNOT_START_{step.name}",
        )
        self.step = step


def step_of(status: int) -> Step | None:
    """The step that a process with this exit status failed in."""
    return next((step for step, its in STATUS.items() if its == status), None)


def failure_from(data: Any) -> Failure | None:
    """The failure in `data`, what a user's process told about itself; None for what is none.

    Nothing of it is believed but its form: the texts are cut, and the words for the stages are ours.
    """
    if not isinstance(data, dict):
        return None
    try:
        stage, mender = Stage(data["stage"]), Mender(data["mender"])
    except (KeyError, ValueError, TypeError):
        return None
    texts = {key: data.get(key, "") for key in ("code", "reason", "hint", "detail")}
    if not all(isinstance(value, str) for value in texts.values()) or not texts["reason"]:
        return None
    return Failure(
        stage=stage,
        code=_printable(texts["code"], 64),
        reason=_printable(texts["reason"], LONGEST_TEXT),
        mender=mender,
        hint=_printable(texts["hint"], LONGEST_TEXT),
        retry=data.get("retry") is True,
        detail=_printable(texts["detail"], LONGEST_DETAIL),
    )


def fitting(failure: Failure, largest: int) -> dict[str, Any]:
    """A failure as an object whose texts take at most about `largest` bytes as JSON; its detail is cut first."""
    fields = failure.to_dict()
    for name in ("detail", "hint", "reason"):
        room = largest - sum(_size(value) for key, value in fields.items() if key != name)
        text = fields[name]
        while text and _size(text) > room:
            text = text[: len(text) // 2]
        fields[name] = text
    return fields


def _size(value: Any) -> int:
    """How many bytes a value takes in a packet, where everything but ASCII is escaped."""
    return len(json.dumps(value))


def _printable(text: str, longest: int) -> str:
    """A text for logs: nothing that moves a terminal's cursor."""
    return "".join(letter if letter.isprintable() or letter in "\n\t" else "?" for letter in text[:longest])
