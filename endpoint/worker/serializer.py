"""From text to the function, the arguments, and back from the value to text.

What a buffer holds is somebody else's code: anything may be raised while it is read, `SystemExit` too. All of it
becomes a `DeserializationError` or `SerializationError`, whose sentence says what to do.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from typing import Any

from endpoint.worker.allowed import Allowed, by_path, check_allowed
from endpoint.worker.bytecode import ForeignBytecode
from endpoint.worker.explain import missing_module, said, why_not_loaded
from endpoint.worker.failures import DeserializationError, SerializationError
from endpoint.worker.packing import pack, unpack
from endpoint.worker.strategies import (
    BY_IDENTIFIER,
    BY_NAME,
    DEFAULT_CODE,
    DEFAULT_DATA,
    IDENTIFIER_LENGTH,
    Strategy,
)

__all__ = ["check_allowed", "dump_result", "dump_with", "load", "load_task"]

_MOST_MEMBERS = 16
_DEEPEST = 3
_TASK_BUFFERS = (("the function", True), ("the arguments", False), ("the keyword arguments", False))
# In CombinedCode a body may hold colons itself, so only a colon before a known identifier ends it.
_COMBINED_PART = re.compile(r"(?:\A|:)(04\n|01\n|03\n|sd\n|st\n):")


def load_task(packed: str, allowed: Allowed) -> tuple[Any, Sequence[Any], dict[str, Any]]:
    """The function, args and kwargs in a `task_buffer`; DeserializationError where one of them can't be had."""
    try:
        buffers = unpack(packed, at_most=len(_TASK_BUFFERS))
    except ValueError as error:
        raise DeserializationError(f"The task's payload is damaged: {error}") from None
    if len(buffers) != len(_TASK_BUFFERS):
        raise DeserializationError(
            f"The task's payload is damaged: it should have a function, arguments and keyword arguments, "
            f"and has {len(buffers)} of these 3 buffers"
        )
    function, args, kwargs = (
        load(buffer, allowed, what, for_code) for buffer, (what, for_code) in zip(buffers, _TASK_BUFFERS, strict=True)
    )
    if not callable(function):
        raise DeserializationError(f"What the task has as its function is not callable but {type(function).__name__}")
    if not isinstance(args, list | tuple):
        raise DeserializationError(f"The task's arguments are not a tuple or list but {type(args).__name__}")
    if not isinstance(kwargs, dict) or not all(isinstance(key, str) for key in kwargs):
        raise DeserializationError("The task's keyword arguments are not a dictionary with strings as keys")
    return function, args, kwargs


def load(buffer: str, allowed: Allowed, what: str, for_code: bool) -> Any:
    """What `buffer` holds; `what` names it in a DeserializationError."""
    strategy = _strategy_of(buffer, what)
    if allowed.strategies and strategy.for_code != for_code:
        # Else arguments could come in an allowed code strategy, past a list that allows JSON alone for data.
        kind = "code" if for_code else "data"
        raise DeserializationError(f"{what.capitalize()} came in {strategy.name}, which is no {kind} strategy")
    if not allowed.permits(strategy):
        raise DeserializationError(allowed.refusal(strategy, what))
    return _load_body(strategy, buffer[IDENTIFIER_LENGTH:], allowed, what, 0)


def dump_result(value: Any, paths: Iterable[str]) -> str:
    """`value` in the first strategy of `paths` that can write it, or without any in the default one.

    SerializationError, saying why for each, where none can.
    """
    wanted = list(paths)
    if not wanted:
        return _dump(DEFAULT_CODE if callable(value) else DEFAULT_DATA, value)
    failed = []
    for path in wanted:
        try:
            strategy = by_path(path)
            if strategy.for_code == callable(value):
                return _dump(strategy, value)
            failed.append(f"{strategy.name}: it is for {strategy.kind}, and the value is not")
        except (ValueError, SerializationError) as error:
            failed.append(str(error))
    raise SerializationError("No serialization strategy that was asked for can write the result:" + _lines(failed))


def dump_with(name: str, value: Any) -> str:
    """`value` in the strategy of that name (`JSONData`), identifier and all; SerializationError where it can't."""
    return _dump(BY_NAME[name], value)


def _strategy_of(buffer: str, what: str) -> Strategy:
    try:
        return BY_IDENTIFIER[buffer[:IDENTIFIER_LENGTH]]
    except KeyError:
        start = buffer[:IDENTIFIER_LENGTH]
        raise DeserializationError(
            f"{what.capitalize()} came in no known serialization strategy: the text starts with {start!a}"
        ) from None


def _load_body(strategy: Strategy, body: str, allowed: Allowed, what: str, depth: int) -> Any:
    if strategy.members:
        return _load_combined(strategy, body, allowed, what, depth)
    if strategy.load is None:
        raise DeserializationError(f"{strategy.name} can't be read")
    try:
        return strategy.load(body)
    except ForeignBytecode as error:  # a sentence says it all
        raise DeserializationError(why_not_loaded(strategy.name, what, error)) from None
    except BaseException as error:
        raise DeserializationError(why_not_loaded(strategy.name, what, error)) from error


def _load_combined(strategy: Strategy, body: str, allowed: Allowed, what: str, depth: int) -> Any:
    if depth == _DEEPEST:
        raise DeserializationError(f"{what.capitalize()}: combined serialization strategies nested too deeply")
    failed = []
    for buffer in _members(strategy, body, what):
        try:
            member = _strategy_of(buffer, what)
            if member.for_code != strategy.for_code:
                raise DeserializationError(f"{member.name} has no place in {strategy.name}")
            if not allowed.permits(member, strategy):
                raise DeserializationError(allowed.refusal(member, what))
            return _load_body(member, buffer[IDENTIFIER_LENGTH:], allowed, what, depth + 1)
        except DeserializationError as error:
            failed.append(str(error))
    raise DeserializationError(
        f"{what.capitalize()} came in {strategy.name}, and nothing in it can be deserialized:"
        + _lines(failed or ["there is nothing in it"])
    )


def _members(strategy: Strategy, body: str, what: str) -> list[str]:
    if strategy.name == "CombinedCode":
        found = list(_COMBINED_PART.finditer(body))[:_MOST_MEMBERS]
        ends = [one.start() for one in found[1:]] + [len(body)]
        return [one[1] + body[one.end() : end] for one, end in zip(found, ends, strict=False)]
    try:
        return unpack(body, at_most=_MOST_MEMBERS)
    except ValueError as error:
        raise DeserializationError(f"{what.capitalize()} came in a damaged {strategy.name}: {error}") from None


def _dump(strategy: Strategy, value: Any) -> str:
    if strategy.members:
        return strategy.identifier + _dump_combined(strategy, value)
    if strategy.dump is None:
        raise SerializationError(f"{strategy.name} is only for reading")
    try:
        return strategy.identifier + strategy.dump(value)
    except ModuleNotFoundError as error:
        raise SerializationError(missing_module(f"{strategy.name} can't serialize the value", error)) from error
    except BaseException as error:
        raise SerializationError(f"{strategy.name} can't serialize a {type(value).__name__}: {said(error)}") from error


def _dump_combined(strategy: Strategy, value: Any) -> str:
    buffers, failed = [], []
    for name in strategy.members:
        try:
            buffers.append(_dump(BY_NAME[name], value))
        except SerializationError as error:
            failed.append(str(error))
    if not buffers:
        raise SerializationError(f"No serialization strategy in {strategy.name} can write the value:" + _lines(failed))
    if strategy.name != "CombinedCode":
        return pack(buffers)
    return ":".join(part for one in buffers for part in (one[:IDENTIFIER_LENGTH], one[IDENTIFIER_LENGTH:]))


def _lines(sentences: Iterable[str]) -> str:
    return "".join(f"\n* {sentence}" for sentence in sentences)
