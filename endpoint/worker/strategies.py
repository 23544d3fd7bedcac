"""The ways to write a function or a value as text.

Each is known by the name of the class that the SDK has for it, and by the three characters that its text starts with.
The SDK itself need not be installed: `globus_compute_sdk.serialize.JSONData` is here a name to recognise.
Source: docs/protocol.md, section 2.
"""

from __future__ import annotations

import binascii
import contextlib
import functools
import io
import json
import pickle
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from endpoint.worker.bytecode import refuse_foreign

IDENTIFIER_LENGTH = 3


@dataclass(frozen=True)
class Strategy:
    """`dump` and `load` work on the text behind the identifier; both may raise whatever the value's own code raises.

    `members` are the names of the strategies that a combined one combines, in the order in which it writes them.
    """

    name: str
    identifier: str
    for_code: bool
    dump: Callable[[Any], str] | None = None
    load: Callable[[str], Any] | None = None
    members: tuple[str, ...] = ()
    selectable: bool = True

    @property
    def kind(self) -> str:
        return "code" if self.for_code else "data"


# From so many bytes on, reading and writing base64 with the standard library takes longer than loading a faster one.
_LARGE = 128 * 1024


def _to_text(raw: bytes) -> str:
    # One line, where others write many: every reader of base64 takes it, and nobody has to escape the newlines.
    if len(raw) >= _LARGE and (fast := _fast_base64()) is not None:
        return f"{fast.b64encode_as_string(raw)}\n"
    return binascii.b2a_base64(raw).decode("ascii")


def _from_text(text: str) -> bytes:
    if len(text) >= _LARGE and (fast := _fast_base64()) is not None:
        decoded: bytes = fast.b64decode(text)
        return decoded
    return binascii.a2b_base64(text)


@functools.cache
def _fast_base64() -> Any:
    """pybase64, where the worker's environment has it: it takes a tenth of the time."""
    try:
        import pybase64
    except ImportError:
        return None
    return pybase64


# What pickle alone writes as dill would: nothing of these can hold a function, or a class of the user's.
_PLAIN = frozenset({type(None), bool, int, float, complex, str, bytes})


def _dump_dill(value: Any) -> str:
    if type(value) in _PLAIN:
        return _to_text(pickle.dumps(value))
    import dill

    return _to_text(dill.dumps(value))


@functools.cache
def _unpickler() -> type[Any]:
    import dill

    class Unpickler(dill.Unpickler):  # type: ignore[misc]
        """dill's, which looks at every function's bytecode before Python makes a code object of it."""

        def find_class(self, module: str, name: str) -> Any:
            found = super().find_class(module, name)
            return functools.partial(_checked, found) if name == "_create_code" else found

    return Unpickler


def _checked(create_code: Callable[..., Any], *fields: Any) -> Any:
    # The bytecode is the seventh number or text of a code object, and a line table may come before all of them.
    bytecode = fields[6 if isinstance(fields[0], int) else 7]
    if isinstance(bytecode, bytes):
        refuse_foreign(bytecode)
    return create_code(*fields)


class _PlainUnpickler(pickle.Unpickler):
    """Reads what is made of Python's own values alone, ten times as fast as dill's, which is written in Python."""

    def find_class(self, module: str, name: str) -> Any:
        raise pickle.UnpicklingError(f"{module}.{name} is to be imported")


def _load_dill(text: str) -> Any:
    raw = _from_text(text)
    with contextlib.suppress(Exception):  # it names something, or it is damaged: dill does, or says, what is right
        return _PlainUnpickler(io.BytesIO(raw)).load()
    return _unpickler()(io.BytesIO(raw)).load()


def _load_pickle(text: str) -> Any:
    return pickle.loads(_from_text(text))


def _source_by_dill(function: Any) -> tuple[str, str]:
    import dill.source

    return function.__name__, dill.source.getsource(function, lstrip=True)


def _source_by_inspect(function: Any) -> tuple[str, str]:
    import inspect

    return function.__name__, inspect.getsource(function)


def _from_source(name: str, source: str) -> Any:
    names: dict[str, Any] = {"__name__": "__main__"}  # else classes that the function makes have no module
    exec(_compiled(name, source), names)
    return names[name]


@functools.lru_cache(maxsize=64)
def _compiled(name: str, source: str) -> Any:
    """The same function comes again and again; what it makes when it is executed is new each time."""
    return compile(source, f"<source of {name}>", "exec", dont_inherit=True)


def _load_source(text: str) -> Any:
    name, colon, source = text.partition(":")
    if not colon:
        raise ValueError("no colon between the function's name and its source")
    return _from_source(name, source)


def _load_pickled_source(text: str) -> Any:
    name, source = _load_dill(text)
    return _from_source(name, source)


STRATEGIES = (
    Strategy("DillDataBase64", "00\n", False, _dump_dill, _load_dill),
    Strategy("DillCode", "01\n", True, _dump_dill, _load_dill),
    Strategy("PickleCode", "02\n", True, None, _load_pickle, selectable=False),
    Strategy("DillCodeTextInspect", "03\n", True, lambda f: _dump_dill(_source_by_inspect(f)), _load_pickled_source),
    Strategy("DillCodeSource", "04\n", True, lambda f: _dump_dill(_source_by_dill(f)), _load_pickled_source),
    Strategy(
        "CombinedCode",
        "10\n",
        True,
        members=("DillCodeSource", "DillCode", "DillCodeTextInspect", "PureSourceDill", "PureSourceTextInspect"),
    ),
    Strategy("JSONData", "11\n", False, json.dumps, json.loads),
    Strategy("AllCodeStrategies", "12\n", True, members=("PureSourceTextInspect", "PureSourceDill", "DillCode")),
    Strategy("AllDataStrategies", "13\n", False, members=("JSONData", "DillDataBase64")),
    Strategy("PureSourceTextInspect", "st\n", True, lambda f: ":".join(_source_by_inspect(f)), _load_source),
    Strategy("PureSourceDill", "sd\n", True, lambda f: ":".join(_source_by_dill(f)), _load_source),
)
BY_IDENTIFIER = {strategy.identifier: strategy for strategy in STRATEGIES}
BY_NAME = {strategy.name: strategy for strategy in STRATEGIES}
DEFAULT_CODE = BY_NAME["DillCode"]
DEFAULT_DATA = BY_NAME["DillDataBase64"]
