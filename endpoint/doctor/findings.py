"""What a check says: findings, in one form for people and for programs."""

from __future__ import annotations

import enum
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from endpoint.errors import EndpointError, ExitStatus, Mender, redact


class Verdict(str, enum.Enum):
    """How a finding, a stage or all of it is, from good to bad."""

    OK = "ok"
    NOT_TRIED = "not tried"
    WARNING = "warning"
    FAILED = "failed"


_ORDER = list(Verdict)


@dataclass(frozen=True)
class Finding:
    """One thing that was seen.

    words: one sentence. facts: plain values; the names of figures end with their unit (`_ms`, `_s`, `_days`, `_bytes`).
    mender, next_step: who can mend it, and how, where it is not as it should be. detail: lines, for the admin.
    code, status: what a failure is for programs, and the exit status that fits it.
    """

    verdict: Verdict
    words: str
    facts: Mapping[str, Any] = field(default_factory=dict)
    mender: Mender | None = None
    next_step: str = ""
    detail: str = ""
    code: str = ""
    status: ExitStatus = ExitStatus.OK

    def __post_init__(self) -> None:
        for name in ("words", "next_step", "detail"):
            object.__setattr__(self, name, redact(getattr(self, name)))

    def to_dict(self) -> dict[str, Any]:
        """For `--json`; `facts`, and what is said of anything but an "ok", may be empty."""
        return {
            "verdict": self.verdict.value,
            "words": self.words,
            "facts": dict(self.facts),
            "mender": self.mender.value if self.mender else None,
            "next_step": self.next_step,
            "detail": self.detail,
            "code": self.code,
        }


def ok(words: str, **facts: Any) -> Finding:
    """All is as it should be."""
    return Finding(Verdict.OK, words, facts)


def not_tried(words: str, next_step: str = "", **facts: Any) -> Finding:
    """Why something could not be looked at, or was left out."""
    return Finding(Verdict.NOT_TRIED, words, facts, next_step=next_step)


def warning(
    words: str, next_step: str = "", *, mender: Mender = Mender.ADMIN, detail: str = "", code: str = "", **facts: Any
) -> Finding:
    """It works, or may work, and somebody should know."""
    return Finding(Verdict.WARNING, words, facts, mender, next_step, detail, code)


def failed(
    words: str,
    next_step: str = "",
    *,
    code: str,
    status: ExitStatus = ExitStatus.FAILED,
    mender: Mender = Mender.ADMIN,
    detail: str = "",
    **facts: Any,
) -> Finding:
    """The endpoint, or a task, would fail of it."""
    return Finding(Verdict.FAILED, words, facts, mender, next_step, detail, code, status)


def failure(error: EndpointError, **facts: Any) -> Finding:
    """The finding that an error of ours is."""
    said = error.failure
    return Finding(
        Verdict.FAILED, said.reason, facts, said.mender, said.hint, said.detail, said.code, error.exit_status
    )


def worst(verdicts: Iterable[Verdict]) -> Verdict:
    """The verdict on all of them; "not tried" where there are none."""
    return max(verdicts, key=_ORDER.index, default=Verdict.NOT_TRIED)
