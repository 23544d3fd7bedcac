"""Several buffers in one string: each as `LEN\\nBUFFER`, where LEN counts characters."""

from __future__ import annotations

from collections.abc import Sequence

_DIGITS = 12  # no buffer is longer than a message, and a message is far below a terabyte


def pack(buffers: Sequence[str]) -> str:
    return "".join(f"{len(buffer)}\n{buffer}" for buffer in buffers)


def unpack(packed: str, *, at_most: int) -> list[str]:
    """The buffers in `packed`; ValueError, saying which of them is wrong and how, where it holds anything else."""
    buffers: list[str] = []
    position, end = 0, len(packed)
    while position < end:
        which = f"buffer {len(buffers) + 1}"
        if len(buffers) == at_most:
            raise ValueError(f"there are more than {at_most} buffers")
        newline = packed.find("\n", position, position + _DIGITS + 1)
        if newline < 0:
            raise ValueError(f"{which} does not start with a length and a newline: {_shown(packed, position)}")
        digits = packed[position:newline]
        if not (digits.isascii() and digits.isdigit()):
            raise ValueError(f"the length of {which} is not a number: {digits!a}")
        position = newline + 1
        length = int(digits)
        if length > end - position:
            raise ValueError(f"{which} is cut off: it should have {length} characters, and {end - position} are there")
        buffers.append(packed[position : position + length])
        position += length
    return buffers


def _shown(text: str, position: int) -> str:
    return ascii(text[position : position + _DIGITS])
