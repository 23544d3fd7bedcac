from __future__ import annotations

from types import CodeType, FunctionType

import pytest

from endpoint.worker import allowed, failures, run, serializer
from endpoint.worker.bytecode import foreign_writer, writers
from endpoint.worker.serializer import dump_with, load

# The bytecode of `def plain(a): return a`, `def attr(a): return a.b`, a closure, a generator, and so on,
# as each version of Python compiled them.
SAMPLES = {
    "7c005300": ("3.10",),
    "7c006a005300": ("3.10",),
    "74008201": ("3.10",),
    "81007c005600010064005300": ("3.10",),
    "97007c005300": ("3.11", "3.12"),
    "9501970089005300": ("3.11", "3.12"),
    "97007c006a0000000000000000005300": ("3.11",),
    "97007401000000000000000000007c00a6010000ab0100000000000000005300": ("3.11",),
    "97007c006a000000000000000000000000000000000000005300": ("3.12",),
    "97007900": ("3.12",),
    "4b00010097007c009601970101007900ad037701": ("3.12",),
    "950055002400": ("3.13",),
    "3e01950054002400": ("3.13",),
    "2300200095005500760095052000670037036601": ("3.13",),
    "5e0095005500340153011a006a086e0155012400": ("3.13",),
    "8000": ("3.14",),
    "ff00": (),
    "": ("3.10",),
}


@pytest.mark.parametrize("sample", SAMPLES)
def test_bytecode_tells_who_wrote_it(sample: str) -> None:
    assert writers(bytes.fromhex(sample)) == SAMPLES[sample]


@pytest.mark.parametrize("module", [allowed, failures, run, serializer])
def test_what_this_python_compiled_is_never_foreign(module: object) -> None:
    def look(code: CodeType) -> None:
        assert foreign_writer(code.co_code) is None
        for inner in code.co_consts:
            if isinstance(inner, CodeType):
                look(inner)

    for value in vars(module).values():
        if isinstance(value, FunctionType):
            look(value.__code__)


def test_a_function_of_another_python_is_refused_in_words_that_help() -> None:
    # Given a pickled function, whose bytecode is exchanged for that of a later Python
    names: dict[str, FunctionType] = {}
    exec("def plain(a): return a, 'GUARD'", {"__name__": "__main__"}, names)
    function = names["plain"]
    foreign = "ff00"
    import base64

    written = dump_with("DillCode", function)
    raw = base64.b64decode(written[3:])
    own = function.__code__.co_code
    assert own in raw or own.decode("latin-1").encode() in raw
    raw = raw.replace(own, bytes.fromhex(foreign) * (len(own) // 2))
    # When it is loaded, then the error says what to do
    with pytest.raises(failures.DeserializationError) as refusal:
        load("01\n" + base64.b64encode(raw).decode(), allowed.Allowed(None), "the function", True)
    said = str(refusal.value)
    assert "it holds bytecode of another version of Python" in said
    assert "and the worker has Python 3." in said
    assert "PureSourceTextInspect" in said
