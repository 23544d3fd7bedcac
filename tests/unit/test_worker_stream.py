"""Frames between an engine and its worker processes; and how far ahead a process may be given tasks."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from endpoint.engines.pace import MOST, Pace
from endpoint.worker.starts import PAGE_LINES
from endpoint.worker.stream import FrameReader, header


@given(st.lists(st.binary(max_size=300), max_size=30), st.integers(1, 400))
def test_frames_come_out_as_they_went_in_however_the_stream_is_cut(frames, size):
    stream = b"".join(header(len(frame)) + frame for frame in frames)
    reader = FrameReader()

    pieces = [stream[begin : begin + size] for begin in range(0, len(stream), size)]

    assert [frame for piece in pieces for frame in reader.feed(piece)] == frames


def test_a_process_that_nothing_is_known_of_gets_one_task_at_a_time():
    assert (Pace().soon, Pace().depth) == (0, 1)


def test_a_process_that_answers_quickly_gets_many_tasks_ahead_and_a_slow_one_none():
    pace = Pace()
    pace.took(0.0005)
    assert (pace.soon, pace.depth) == (2, 20)
    pace.took(0.000001)
    assert pace.depth < 32

    for _ in range(50):
        pace.took(0.000001)
    assert (pace.soon, pace.depth) == (MOST, MOST)

    pace.took(1.0)
    assert (pace.soon, pace.depth) == (0, 1)


def test_a_page_has_more_places_than_a_process_can_have_tasks_whose_answers_were_not_seen():
    assert PAGE_LINES >= 4 * MOST
