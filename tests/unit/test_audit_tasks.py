"""What a user endpoint may say of its tasks, and that it speaks for nobody else."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from endpoint.privileged.audit_lines import TASK_EVENTS, task_text
from endpoint.privileged.audit_tasks import LONGEST_PACKET, task_record
from endpoint.user.audit import LAST, TOLD
from endpoint.user.tasks import CLOSED, TRANSITIONS, Action, Event, State

WHO = {"endpoint": "e-1", "user_endpoint": "u-1", "uid": 1001, "user": "alice", "pid": 7}
TASK = {"function": "f-1", "task": "t-1"}
MAY_SAY = {"event", "function", "task", "block", "job", "message"} | set(WHO)


def test_an_event_of_a_task_becomes_a_record_of_who_it_was():
    packet = task_text("RECEIVED", **TASK).encode()

    assert task_record(packet, WHO) == {"event": "RECEIVED", **TASK, **WHO}


def test_block_job_and_message_are_read():
    packet = task_text("RUNNING", **TASK, block="0", job="4711[3].server").encode() + b" - on n1"

    record = task_record(packet, WHO)

    assert record is not None
    assert (record["block"], record["job"], record["message"]) == ("0", "4711[3].server", "on n1")


@pytest.mark.parametrize("end", [b"", b"\n", b" ", b"\r\n", b"\0"])
def test_the_end_of_a_line_is_no_part_of_it(end):
    assert task_record(task_text("EXEC_END", **TASK).encode() + end, WHO) is not None


@pytest.mark.parametrize(
    "packet",
    [
        b"",
        b"EXEC_END",
        b"fid=f tid=t bid= start",
        b"fid=f tid=t bid= pam-session",
        b"fid=f tid=t bid= EXEC_ENDED",
        b"fid=f tid=t bid= jid= RUNNING",
        b"fid=f/../x tid=t bid= RECEIVED",
        b"fid=f tid=t bid=\xff RECEIVED",
        b"fid=" + b"f" * 65 + b" tid=t bid= RECEIVED",
        b"fid=f tid=t bid= FAILED - " + b"x" * LONGEST_PACKET,
        b'{"event":"RECEIVED","uid":0}',
    ],
)
def test_anything_else_is_no_event(packet):
    assert task_record(packet, WHO) is None


@given(
    st.binary(max_size=2000)
    | st.text().map(lambda text: f"fid=f tid=t bid= FAILED - {text}".encode("utf-8", "replace"))
)
def test_whatever_is_written_it_names_the_pipes_owner_and_nothing_beside(packet):
    record = task_record(packet, WHO)

    if record is not None:
        assert {key: record[key] for key in WHO} == WHO
        assert set(record) <= MAY_SAY
        assert record["event"] in TASK_EVENTS
        assert str(record.get("message", "")).isprintable()


@pytest.mark.parametrize("forged", ["uid=0", "user=root", "uep=other", "pid=1"])
def test_another_identity_in_a_packet_is_nonsense_or_a_mere_message(forged):
    for packet in (f"{forged} fid=f tid=t bid= RECEIVED", f"fid=f tid=t bid= {forged} RECEIVED"):
        assert task_record(packet.encode(), WHO) is None
    record = task_record(f"fid=f tid=t bid= FAILED - {forged}".encode(), WHO)
    assert record == {"event": "FAILED", "function": "f", "task": "t", "message": forged, **WHO}


def test_every_event_that_is_told_is_one_that_is_understood():
    assert {word for words in TOLD.values() for word in words} <= TASK_EVENTS


def test_only_what_the_tasks_table_has_is_told():
    assert set(TOLD) <= set(TRANSITIONS)


def test_every_task_that_comes_is_told_of_and_every_answer_to_it():
    for (before, event), (after, actions) in TRANSITIONS.items():
        words = TOLD.get((before, event), ())
        found_by_last_process = before is None and event is not Event.ARRIVED
        answered = (
            not found_by_last_process
            and event is not Event.UNPUBLISHED
            and bool({Action.PUBLISH, Action.TELL, Action.TELL_CANCELLED} & set(actions))
        )
        assert ("EXEC_END" in words) == answered, (before, event)
        comes = event is Event.ARRIVED and before in (None, State.INTERRUPTED, State.WITHDRAWN)
        assert ("RECEIVED" in words) == comes, (before, event)
        leaves = answered or (after in CLOSED and before is State.HELD)
        assert ((before, event) in LAST) == leaves, (before, event)
