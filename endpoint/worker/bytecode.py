"""Which Python wrote a function's bytecode.

A pickled function carries bytecode, which another minor version of Python takes without complaint and then crashes on,
while it makes the code object or when it runs it, and the worker with it. The bytes themselves say enough to tell
beforehand: since 3.11 a function starts with RESUME, behind a few instructions that set up its cells, and the numbers
of all of these change between versions.
"""

from __future__ import annotations

import opcode
import sys

# What a function starts with: RESUME, and what may come before it (COPY_FREE_VARS, MAKE_CELL, RETURN_GENERATOR,
# POP_TOP). 3.11 and 3.12 have these in common. A version that is not here, or not in full, asks its own `opcode`.
_STARTS = {
    ("3.11", "3.12"): (151, frozenset({149, 135, 75, 1})),
    ("3.13",): (149, frozenset({62, 94, 35, 32})),
    ("3.14",): (128, frozenset[int]()),
}
KNOWN = frozenset({"3.10", *(version for versions in _STARTS for version in versions)})
_HIGHEST_310, _PRECALL_311, _CALL_312, _RETURN_CONST_312, _LOAD_ATTR = 165, 166, 171, 121, 106
_LOAD_ATTR_CACHE_312 = bytes(18)
_HERE = f"{sys.version_info.major}.{sys.version_info.minor}"


class ForeignBytecode(ValueError):
    """A code object can't be made here. versions: of Python, that may have written it, as `writers` has them."""

    def __init__(self, versions: tuple[str, ...]) -> None:
        self.versions = versions
        super().__init__(f"it holds bytecode of {in_words(versions)}")


def refuse_foreign(bytecode: bytes) -> None:
    """Raises ForeignBytecode where this Python must not run `bytecode`."""
    if foreign_writer(bytecode) is not None:
        raise ForeignBytecode(writers(bytecode))


def foreign_writer(bytecode: bytes) -> str | None:
    """Who wrote `bytecode`, in words, where this Python must not run it; None where it may."""
    versions = writers(bytecode)
    return None if _HERE in versions or _is_own(bytecode) else in_words(versions)


def writers(bytecode: bytes) -> tuple[str, ...]:
    """The versions of Python that may have written `bytecode`; empty where it is like none that we know."""
    for versions, (resume, before) in _STARTS.items():
        if _starts_with(bytecode, resume, before):
            return _one_of_two(bytecode) if len(versions) == 2 else versions
    return ("3.10",) if max(bytecode[::2], default=0) <= _HIGHEST_310 else ()


def _is_own(bytecode: bytes) -> bool:
    """Whether this Python, of which the table may know too little, starts a function as `bytecode` does."""
    known_in_full = any(_HERE in versions and before for versions, (_, before) in _STARTS.items())
    if known_in_full or "RESUME" not in opcode.opmap:
        return False
    names = ("COPY_FREE_VARS", "MAKE_CELL", "RETURN_GENERATOR", "POP_TOP")
    before = frozenset(opcode.opmap[name] for name in names if name in opcode.opmap)
    return _starts_with(bytecode, opcode.opmap["RESUME"], before)


def _starts_with(bytecode: bytes, resume: int, before: frozenset[int]) -> bool:
    for number in bytecode[::2]:
        if number == resume:
            return True
        if number not in before:
            return False
    return False


def _one_of_two(bytecode: bytes) -> tuple[str, ...]:
    used = set(bytecode[::2])
    if _PRECALL_311 in used:
        return ("3.11",)
    if used & {_CALL_312, _RETURN_CONST_312}:
        return ("3.12",)
    for position in range(0, len(bytecode), 2):
        if bytecode[position] == _LOAD_ATTR:
            return ("3.12",) if bytecode[position + 2 : position + 20] == _LOAD_ATTR_CACHE_312 else ("3.11",)
    return ("3.11", "3.12")  # and either can run it


def in_words(versions: tuple[str, ...]) -> str:
    """Who wrote it, as part of a sentence."""
    if versions == ("3.10",):
        return "Python 3.10 or older"
    return f"Python {' or '.join(versions)}" if versions else "another version of Python"
