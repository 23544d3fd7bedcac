"""Whatever is done to an audit log is found, and called by its name."""

from __future__ import annotations

import io

import pytest
from hypothesis import given
from hypothesis import strategies as st

from endpoint.privileged.audit_chain import Flaw, Verdict, lines_of, verify
from endpoint.privileged.audit_lines import NOTHING_BEFORE, OPENED, TORN, hash_of, json_line

LENGTH = 12
middles = st.integers(1, LENGTH - 2)  # neither the first line nor the last one


def log_of(*events: str, number: int = 0, previous: str = NOTHING_BEFORE) -> list[bytes]:
    lines = []
    for event in events:
        number += 1
        lines.append(json_line(number, {"event": event, "uid": 1001}, previous))
        previous = hash_of(lines[-1])
    return lines


@pytest.fixture(scope="module")
def log() -> list[bytes]:
    return log_of(OPENED, *(f"event{n}" for n in range(1, LENGTH)))


def verdict_on(*files: list[bytes], end: bytes = b"\n", holds: str | None = None) -> Verdict:
    contents = [b"\n".join(lines) + end for lines in files]
    streams = [(f"file{n}", io.BytesIO(content), len(content)) for n, content in enumerate(contents)]
    return verify((line for stream in streams for line in lines_of(*stream)), holds=holds)


def flaw_of(lines: list[bytes]) -> Flaw:
    flaw = verdict_on(lines).flaw
    assert flaw is not None
    return flaw


def test_a_log_as_it_was_written_has_no_flaw(log):
    verdict = verdict_on(log)

    assert verdict == Verdict(LENGTH, NOTHING_BEFORE, hash_of(log[-1]), 0)


def test_an_empty_file_is_a_log_of_nothing():
    assert verdict_on([], end=b"") == Verdict(0, NOTHING_BEFORE, "", 0)


@given(at=middles, place=st.integers(0, 200), byte=st.integers(0, 255))
def test_a_changed_byte_is_found(log, at, place, byte):
    line = log[at]
    place %= len(line)
    changed = line[:place] + bytes([byte]) + line[place + 1 :]
    if changed == line:
        return
    flaw = flaw_of([*log[:at], changed, *log[at + 1 :]])

    assert flaw.line in (at, at + 1, at + 2)  # where the hash was changed, the line before seems to be the wrong one


@given(at=middles, uid=st.integers(0, 99_999).filter(lambda uid: uid != 1001))
def test_a_line_with_another_content_is_called_changed(log, at, uid):
    changed = log[at].replace(b'"uid":1001', f'"uid":{uid}'.encode())

    flaw = flaw_of([*log[:at], changed, *log[at + 1 :]])

    assert (flaw.what, flaw.line) == ("changed", at + 1)


@given(at=st.integers(0, LENGTH - 2), many=st.integers(1, LENGTH))
def test_missing_lines_are_called_removed_and_counted(log, at, many):
    left = [*log[:at], *log[at + many :]]
    if at + many >= LENGTH:
        return  # the end: see below
    flaw = flaw_of(left)

    assert (flaw.what, flaw.line) == ("removed", at + 1)
    assert at == 0 or f"{many} lines" in flaw.reason


@given(at=middles, forged=st.sampled_from(["text", "copy", "follows", "own chain"]))
def test_a_line_that_was_put_in_is_found(log, at, forged):
    line = {
        "text": b"nothing to see here",
        "copy": log[at - 1],
        "follows": json_line(at + 1, {"event": "forged"}, hash_of(log[at - 1])),
        "own chain": json_line(1, {"event": OPENED}, NOTHING_BEFORE),
    }[forged]

    flaw = flaw_of([*log[:at], line, *log[at:]])

    assert (flaw.what, flaw.line) in [("inserted", at), ("inserted", at + 1)]


@given(first=middles, second=middles)
def test_lines_that_changed_places_are_found(log, first, second):
    if first == second:
        return
    swapped = list(log)
    swapped[first], swapped[second] = swapped[second], swapped[first]

    assert flaw_of(swapped).line == min(first, second) + 1


@given(at=middles)
def test_a_forged_rest_of_the_chain_is_found_by_whoever_knows_a_hash_of_the_true_one(log, at):
    forged = log_of(*(["forged"] * (LENGTH - at)), number=at, previous=hash_of(log[at - 1]))

    assert verdict_on([*log[:at], *forged]).flaw is None
    found = verdict_on([*log[:at], *forged], holds=hash_of(log[-1])).flaw
    assert found is not None and found.what == "removed"


def test_lines_missing_at_the_end_are_found_by_whoever_knows_the_last_hash(log):
    assert verdict_on(log, holds=hash_of(log[-1])).flaw is None
    flaw = verdict_on(log[:-1], holds=hash_of(log[-1])).flaw
    assert flaw is not None and (flaw.what, flaw.line) == ("removed", LENGTH - 1)


def test_a_last_line_that_is_cut_off_is_called_torn(log):
    flaw = verdict_on([*log, b'{"number":13,"ti'], end=b"").flaw

    assert flaw is not None and (flaw.what, flaw.line) == ("torn", LENGTH + 1)


def test_a_torn_line_that_the_log_tells_of_is_counted_and_no_flaw(log):
    half = b'{"number":13,"ti'
    told = log_of(TORN, "event", number=LENGTH, previous=hash_of(half))

    verdict = verdict_on([*log, half, *told])

    assert (verdict.flaw, verdict.torn) == (None, 1)


def test_the_chain_goes_on_in_the_next_file(log):
    second = log_of(OPENED, "event", number=LENGTH, previous=hash_of(log[-1]))

    verdict = verdict_on(log, second)

    assert (verdict.flaw, verdict.lines) == (None, LENGTH + 2)


def test_a_rotated_file_may_end_with_a_torn_line(log):
    half = b'{"number":13,"ti'
    second = log_of(OPENED, number=LENGTH, previous=hash_of(half))
    streams = [(b"\n".join([*log, half]), "a"), (second[0] + b"\n", "b")]

    verdict = verify(line for data, name in streams for line in lines_of(name, io.BytesIO(data), len(data)))

    assert (verdict.flaw, verdict.torn) == (None, 1)


def test_a_file_that_is_missing_between_two_is_noticed(log):
    third = log_of(OPENED, number=LENGTH + 5, previous=hash_of(b"of the second file"))

    flaw = verdict_on(log, third).flaw

    assert flaw == Flaw("file1", 1, "removed", "5 lines before it are missing")


def test_a_log_may_be_checked_from_a_later_file_on(log):
    second = log_of(OPENED, "event", number=LENGTH, previous=hash_of(log[-1]))

    verdict = verdict_on(second)

    assert (verdict.flaw, verdict.before) == (None, hash_of(log[-1]))
