from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from endpoint.worker.packing import pack, unpack


@given(st.lists(st.text(), max_size=5))
def test_buffers_survive_being_packed(buffers: list[str]) -> None:
    assert unpack(pack(buffers), at_most=5) == buffers


@given(st.text(st.sampled_from("0123456789\n-+x٣²"), max_size=30))
def test_any_text_is_buffers_or_refused(packed: str) -> None:
    try:
        assert all(isinstance(buffer, str) for buffer in unpack(packed, at_most=3))
    except ValueError as error:
        assert "buffer" in str(error)


@pytest.mark.parametrize(
    ("packed", "said"),
    [
        ("2\nab5\nxyz", "buffer 2 is cut off: it should have 5 characters, and 3 are there"),
        ("1\na-1\nb", "the length of buffer 2 is not a number: '-1'"),
        ("x\na", "the length of buffer 1 is not a number: 'x'"),
        ("\na", "the length of buffer 1 is not a number: ''"),
        ("٣\nabc", "the length of buffer 1 is not a number"),
        ("²\nab", "the length of buffer 1 is not a number"),
        ("5", "buffer 1 does not start with a length and a newline: '5'"),
        ("9" * 5000 + "\n", "buffer 1 does not start with a length and a newline"),
        ("999999999999\n", "buffer 1 is cut off"),
        ("0\n0\n0\n", "there are more than 2 buffers"),
    ],
)
def test_a_refusal_says_which_buffer_is_wrong_and_how(packed: str, said: str) -> None:
    with pytest.raises(ValueError, match=said):
        unpack(packed, at_most=2)
