"""Audit records as lines: bounded, one line each, and in the official layout where that is wanted."""

from __future__ import annotations

import json
import re

from hypothesis import given
from hypothesis import strategies as st

from endpoint.privileged.audit_lines import (
    ESSENTIAL,
    LONGEST_LINE,
    NOTHING_BEFORE,
    SESSION_BEGIN,
    SESSION_END,
    hash_of,
    json_line,
    official_line,
    read_line,
)

TIME = r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{6}[+-]\d\d:\d\d"
TASK = {"event": "RECEIVED", "function": "f-1", "task": "t-1", "uid": 1001, "pid": 7, "user_endpoint": "u-1"}

values = st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5000)
records = st.dictionaries(st.text(max_size=100), values, max_size=80)


@given(records)
def test_whatever_a_record_holds_its_line_is_short_and_one_line(record):
    line = json_line(7, {"event": "start", **record}, NOTHING_BEFORE)

    assert len(line) <= LONGEST_LINE
    assert not set(line) & set(range(0x20))
    assert line.isascii()


@given(records)
def test_every_line_can_be_read_again(record):
    found = read_line(json_line(7, {**record, "event": "start"}, NOTHING_BEFORE))

    assert found is not None
    assert (found["number"], found["event"], found["previous"]) == (7, "start", NOTHING_BEFORE)


def test_a_record_can_not_set_its_number_time_or_hash():
    forged = {"event": "start", "number": 1, "time": "1970", "previous": "f" * 64}

    found = read_line(json_line(7, forged, NOTHING_BEFORE))

    assert found is not None
    assert (found["number"], found["previous"]) == (7, NOTHING_BEFORE)
    assert re.fullmatch(r"20\d\d-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z", found["time"])


def test_unknown_fields_are_kept_as_they_are():
    found = read_line(json_line(1, {"event": "limits", "nofile": 256, "soft": True, "note": "é\n"}, NOTHING_BEFORE))

    assert found is not None
    assert (found["nofile"], found["soft"], found["note"]) == (256, True, "é\n")


def test_a_record_that_is_much_too_large_keeps_what_matters_and_says_that_it_is_cut():
    matters = {"event": "refused", "uid": 1001, "user": "alice", "code": "NO_SHELL"}
    found = read_line(json_line(1, {**{f"key{i}": "\u2028" * 2000 for i in range(64)}, **matters}, NOTHING_BEFORE))

    assert found is not None
    assert found["cut"] is True
    assert {key: found[key] for key in ESSENTIAL if key in found} == matters


def test_the_first_field_is_the_number_and_the_last_the_hash():
    assert list(json.loads(json_line(1, {"event": "start"}, NOTHING_BEFORE))) == ["number", "time", "event", "previous"]


def test_what_is_no_record_reads_as_none():
    hashed = hash_of(b"")
    for line in (b"", b"\xff", b"{}", b"[1]", b"7", b'{"event":"x"}', b"[" * 10_000):
        assert read_line(line) is None
    for number, previous in ((True, hashed), (1.0, hashed), (1, "x"), (1, None)):
        assert read_line(json.dumps({"event": "x", "number": number, "previous": previous}).encode()) is None


def test_a_tasks_line_has_the_official_layout():
    assert re.fullmatch(rf"{TIME} uid=1001 pid=7 uep=u-1 fid=f-1 tid=t-1 bid= RECEIVED", official_line(TASK).decode())


def test_block_job_and_message_stand_where_the_official_log_has_them():
    more = {**TASK, "event": "RUNNING", "block": "0", "job": "4711", "message": "on n1"}

    assert official_line(more).endswith(b" fid=f-1 tid=t-1 bid=0 jid=4711 RUNNING - on n1")


def test_a_managers_session_is_told_in_the_official_words():
    who = {"uid": 0, "pid": 7, "endpoint": "e-1"}

    assert official_line({"event": SESSION_BEGIN, **who}).endswith(b" uid=0 pid=7 eid=e-1 Begin CEP session =====")
    assert official_line({"event": SESSION_END, **who}).endswith(b" uid=0 pid=7 eid=e-1 End CEP session -----")


def test_what_the_official_log_does_not_have_is_told_in_its_manner():
    line = official_line({"event": "refused", "uid": 1001, "user_endpoint": "u-1", "code": "NO_SHELL", "detail": None})

    assert line.endswith(b" uid=1001 pid= uep=u-1 refused - code=NO_SHELL")


@given(records)
def test_an_official_line_is_one_line_too(record):
    line = official_line({"event": "EXEC_END", **record})

    assert len(line) <= LONGEST_LINE
    assert len(line.decode().splitlines()) == 1
