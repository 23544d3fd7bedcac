"""Whether an audit log is as it was written: the first line that is not, and what became of it.

The hash of each line stands in the next one, so nothing can be changed, removed or put in without a line that doesn't
fit; the numbers say which of these it was. What is cut off at the very end shows only to somebody who knows the last
hash: `last` is for writing down elsewhere, and `holds` looks for one that was.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any, BinaryIO, Final, Literal

from endpoint.privileged.audit_lines import LONGEST_LINE, NOTHING_BEFORE, OPENED, TORN, hash_of, read_line

What = Literal["changed", "removed", "inserted", "torn"]
LONGEST_READ: Final = 64 * 1024  # bytes of a line; one that is longer is none of ours


@dataclass(frozen=True)
class Line:
    """One line of a file, without its newline. `ended`: whether it had one."""

    file: str
    number: int  # in the file, from 1
    text: bytes
    ended: bool


@dataclass(frozen=True)
class Flaw:
    """The first line that is wrong."""

    file: str
    line: int
    what: What
    reason: str


@dataclass(frozen=True)
class Verdict:
    """What the chain says. `first` and `last`: hashes, `before` is what the first line follows.

    torn: how many lines were cut off when they were written, with a record behind each that says so.
    """

    lines: int
    before: str
    last: str
    torn: int
    flaw: Flaw | None = None


def lines_of(file: str, stream: BinaryIO, size: int) -> Iterator[Line]:
    """The lines of a file's first `size` bytes."""
    number = 0
    while size > 0:
        text = stream.readline(min(size, LONGEST_READ))
        if not text:
            return
        number, size = number + 1, size - len(text)
        yield Line(file, number, text.removesuffix(b"\n"), text.endswith(b"\n"))


def verify(lines: Iterable[Line], *, holds: str | None = None) -> Verdict:
    """Follow the chain through the files of a log, the oldest first. `holds`: a hash that a line must have."""
    chain = _Chain(holds)
    for line in lines:
        flaw = chain.follow(line)
        if flaw is not None:
            return chain.verdict(flaw)
    return chain.verdict(chain.end())


@dataclass
class _Known:
    """A line that was read: its record, if it is one, and its own hash."""

    line: Line
    record: dict[str, Any] | None
    hash: str


class _Chain:
    def __init__(self, holds: str | None) -> None:
        self._holds = holds
        self._lines = 0
        self._torn = 0
        self._number: int | None = None  # of the last record
        self._known: list[_Known] = []  # the last two lines
        self._before = NOTHING_BEFORE

    def follow(self, line: Line) -> Flaw | None:
        """The next line; what is wrong with it, or shows by it to be wrong with the one before."""
        now = _Known(line, read_line(line.text), hash_of(line.text))
        self._lines += 1
        flaw = self._first(now) if not self._known else self._next(now)
        if now.record is not None:
            self._number = now.record["number"]
        if now.hash == self._holds:
            self._holds = None
        self._known = [*self._known[-1:], now]
        return flaw

    def end(self) -> Flaw | None:
        """What is wrong with the last line, or behind it."""
        if not self._known:
            return (
                None if self._holds is None else Flaw("", 0, "removed", "there is no line with the hash that it holds")
            )
        last = self._known[-1]
        if not last.line.ended:
            return _flaw(last, "torn", "the line is cut off; the next record that is appended ends it")
        if last.record is None:
            return _flaw(last, "inserted", "it is not a record")
        if self._holds is not None:
            return _flaw(last, "removed", "no line has the hash that was to be there; the last ones may be missing")
        return None

    def verdict(self, flaw: Flaw | None) -> Verdict:
        """All that is known now."""
        return Verdict(self._lines, self._before, self._known[-1].hash if self._known else "", self._torn, flaw)

    def _first(self, now: _Known) -> Flaw | None:
        if now.record is None:
            return _flaw(now, "inserted", "it is not a record")
        self._before = now.record["previous"]
        if now.record["event"] != OPENED:
            return _flaw(now, "removed", f"the lines before number {now.record['number']} are missing")
        return None

    def _next(self, now: _Known) -> Flaw | None:
        before = self._known[-1]
        if now.record is None:
            # What was cut off when it was written is no record; the next line says whether that was so.
            return _flaw(before, "inserted", "it is not a record") if before.record is None else None
        if before.record is None:
            return self._behind_a_gap(before, now)
        missing = now.record["number"] - before.record["number"] - 1
        if now.record["previous"] == before.hash and missing == 0:
            return _too_long(now)
        if now.record["previous"] == before.hash:
            return _flaw(now, "changed", f"its number is {now.record['number']}, and does not follow the one before")
        if missing > 0:
            return _flaw(now, "removed", f"{missing} lines before it are missing")
        if missing == 0:
            return _flaw(before, "changed", "the hash in the line behind it is another one")
        return _flaw(*self._intruder(before, now))

    def _behind_a_gap(self, before: _Known, now: _Known) -> Flaw | None:
        assert now.record is not None
        # In a file that was rotated away nobody ends a line any more: the next one begins behind it.
        told = now.record["event"] in (TORN, OPENED) and now.record["previous"] == before.hash
        if told and self._number is not None and now.record["number"] == self._number + 1:
            self._torn += 1
            return None
        if self._number is not None and now.record["number"] == self._number + 2:
            return _flaw(before, "changed", "it is not a record any more")
        return _flaw(before, "inserted", "it is not a record")

    def _intruder(self, before: _Known, now: _Known) -> tuple[_Known, What, str]:
        """Which of two lines is too much, where the numbers don't go up."""
        assert now.record is not None
        earlier = self._known[0] if len(self._known) == 2 else None
        if earlier is not None and now.record["previous"] == earlier.hash:
            return before, "inserted", "the line behind it follows the one before it"
        return now, "inserted", f"number {now.record['number']} does not follow the line before it"


def _too_long(now: _Known) -> Flaw | None:
    return None if len(now.line.text) <= LONGEST_LINE else _flaw(now, "changed", "it is longer than any line")


def _flaw(known: _Known, what: What, reason: str) -> Flaw:
    return Flaw(known.line.file, known.line.number, what, reason)
