from __future__ import annotations

import base64
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from endpoint.worker.allowed import Allowed
from endpoint.worker.failures import DeserializationError, SerializationError
from endpoint.worker.packing import pack
from endpoint.worker.serializer import dump_result, dump_with, load, load_task
from endpoint.worker.strategies import BY_NAME, STRATEGIES

SDK = "globus_compute_sdk.serialize."
EVERYTHING = Allowed(None)
SOURCE = "st\nanswer:def answer():\n    return {'a': 42, 'b': [x for x in 'st\\n:']}\n"
OTHER = "sd\nanswer:def answer():\n    return 'other'\n"


def code(buffer: str, allowed: Allowed = EVERYTHING) -> Any:
    return load(buffer, allowed, "the function", True)


def data(buffer: str, allowed: Allowed = EVERYTHING) -> Any:
    return load(buffer, allowed, "the arguments", False)


def a_function(number: int) -> int:
    return number + 1


@pytest.mark.parametrize("strategy", [one.name for one in STRATEGIES if one.for_code and one.selectable])
def test_a_function_survives_every_strategy(strategy: str) -> None:
    assert code(dump_with(strategy, a_function))(41) == 42


@pytest.mark.parametrize("strategy", [one.name for one in STRATEGIES if not one.for_code])
@given(value=st.recursive(st.none() | st.booleans() | st.integers() | st.text(), lambda v: st.lists(v, max_size=3)))
def test_a_value_survives_every_strategy(strategy: str, value: Any) -> None:
    assert data(dump_with(strategy, value)) == value


def test_a_result_is_pickled_where_nothing_else_is_asked_for() -> None:
    assert dump_result((1, 2), [])[:3] == "00\n"
    assert dump_result(len, [])[:3] == "01\n"


def test_a_result_is_in_the_first_strategy_that_can_write_it() -> None:
    paths = [SDK + "JSONData", SDK + "DillDataBase64"]
    assert dump_result([1], paths)[:3] == "11\n"
    assert dump_result({1, 2}, paths)[:3] == "00\n"


def test_a_result_that_no_strategy_can_write_is_refused_with_each_reason() -> None:
    with pytest.raises(SerializationError) as refusal:
        dump_result({1}, [SDK + "JSONData", SDK + "DillCode", SDK + "PickleCode", "no.such"])
    for reason in (
        "JSONData can't serialize a set: TypeError",
        "DillCode: it is for code",
        "PickleCode' is not a serialization strategy",
        "'no.such' is not a serialization strategy",
    ):
        assert reason in str(refusal.value)


def test_the_first_loadable_member_of_a_combined_strategy_wins() -> None:
    assert code("12\n" + pack(["st\nbroken", "zz\n", "00\ngA==", SOURCE, OTHER]))()["a"] == 42


def test_source_with_colons_inside_combined_code_is_read_whole() -> None:
    assert code("10\n04\n:no base64!:" + SOURCE.replace("st\n", "st\n:", 1) + ":sd\n:x")()["b"] == ["s", "t", "\n", ":"]


def test_a_combined_strategy_says_why_nothing_in_it_could_be_read() -> None:
    with pytest.raises(DeserializationError) as refusal:
        code("12\n" + pack(["zz\n1", "st\nno colon", "11\n[]"]))
    said = str(refusal.value)
    assert "the text starts with 'zz\\n'" in said
    assert "no colon between the function's name and its source" in said
    assert "JSONData has no place in AllCodeStrategies" in said


@pytest.mark.parametrize("body", ["", "5\nab", "x\n", "10\n"])
def test_a_damaged_combined_strategy_is_refused(body: str) -> None:
    for identifier in ("10\n", "12\n", "13\n"):
        with pytest.raises(DeserializationError):
            load(identifier + body, EVERYTHING, "the value", identifier != "13\n")


def test_combined_strategies_can_not_be_nested_without_end() -> None:
    buffer = SOURCE
    for _ in range(50):
        buffer = "12\n" + pack([buffer])
    with pytest.raises(DeserializationError, match="nested too deeply"):
        code(buffer)


def test_a_strategy_that_is_not_allowed_is_refused_and_the_allowed_ones_are_named() -> None:
    allowed = Allowed([SDK + "JSONData", SDK + "PureSourceDill", SDK + "PureSourceTextInspect"])
    with pytest.raises(DeserializationError) as refusal:
        code(dump_with("DillCode", a_function), allowed)
    assert "strategy DillCode, in which the function came" in str(refusal.value)
    assert "Allowed code strategies: PureSourceDill, PureSourceTextInspect" in str(refusal.value)


def test_a_combined_strategy_can_not_smuggle_what_is_not_allowed() -> None:
    # Given a list that allows a combined strategy, but of its members only source
    allowed = Allowed([SDK + "AllCodeStrategies", SDK + "PureSourceTextInspect", SDK + "JSONData"])
    pickled = dump_with("DillCode", a_function)
    # Then the pickle in it is left aside, also behind another combined strategy
    assert code("12\n" + pack([pickled, SOURCE]), allowed)()["a"] == 42
    for smuggling in (pack([pickled]), pack(["12\n" + pack([pickled])]), pack(["10\n01\n:" + pickled[3:]])):
        with pytest.raises(DeserializationError, match=r"Allowed code strategies: .*PureSourceTextInspect"):
            code("12\n" + smuggling, allowed)


def test_arguments_can_not_come_in_an_allowed_code_strategy() -> None:
    allowed = Allowed([SDK + "JSONData", SDK + "DillCode"])
    with pytest.raises(DeserializationError, match="The arguments came in DillCode, which is no data strategy"):
        data(dump_with("DillCode", (1, 2)), allowed)


@pytest.mark.parametrize(
    ("buffer", "said"),
    [
        ("", "the text starts with ''"),
        ("01", "the text starts with '01'"),
        ("99\nabc", "the text starts with '99"),
        ("01\n???", "can't be deserialized with DillCode"),
        ("01\né", "can't be deserialized with DillCode"),
        ("st\nname", "no colon"),
        ("st\nname:def other(): pass", "KeyError: 'name'"),
        ("st\nname:def name(: pass", "SyntaxError"),
        ("st\nname:raise SystemExit(3)", "SystemExit: 3"),
    ],
)
def test_a_function_that_can_not_be_read_is_refused_with_the_reason(buffer: str, said: str) -> None:
    with pytest.raises(DeserializationError, match=said):
        code(buffer)


def pickled_name(module: str, name: str) -> str:
    return base64.b64encode(f"c{module}\n{name}\n.".encode()).decode()


@pytest.mark.parametrize("identifier", ["01\n", "02\n"])
def test_a_function_of_the_sdk_asks_for_the_sdk_where_it_is_missing(identifier: str) -> None:
    with pytest.raises(DeserializationError, match="Install globus-compute-sdk in the worker environment"):
        code(identifier + pickled_name("globus_compute_sdk.no_such_module", "ShellFunction"))


def test_a_missing_module_is_named() -> None:
    with pytest.raises(DeserializationError, match="Install no_such_package in the worker environment"):
        code("01\n" + pickled_name("no_such_package.part", "f"))


def test_a_failure_to_unpickle_names_the_versions_of_the_worker() -> None:
    with pytest.raises(DeserializationError, match=r"The worker has Python 3\.\d+\.\d+\S* and dill \d"):
        data("00\n" + base64.b64encode(b"\x80\xff.").decode())


@pytest.mark.parametrize(
    ("packed", "said"),
    [
        ("", "has 0 of these 3 buffers"),
        (pack([SOURCE, "11\n[]"]), "has 2 of these 3 buffers"),
        (pack([SOURCE, "11\n[]", "11\n{}", "11\n{}"]), "more than 3 buffers"),
        (pack([SOURCE, "11\n[]"]) + "9\n11\n{}", "buffer 3 is cut off"),
        (pack(["11\n1", "11\n[]", "11\n{}"]), "its function is not callable but int"),
        (pack([SOURCE, "11\n1", "11\n{}"]), "arguments are not a tuple or list but int"),
        (pack([SOURCE, "11\n[]", "11\n[]"]), "keyword arguments are not a dictionary"),
    ],
)
def test_a_task_that_can_not_be_read_is_refused_with_the_reason(packed: str, said: str) -> None:
    with pytest.raises(DeserializationError, match=said):
        load_task(packed, EVERYTHING)


# Of pickles only damaged ones are tried: random bytes can ask the unpickler for all the memory that there is.
NOT_PICKLED = sorted(one.identifier for one in STRATEGIES if one.members or one.name == "JSONData")
COMBINED_TEXTS = st.lists(
    st.sampled_from(["12\n", "13\n", "10\n", "11\n", "st\n", ":", "3\n", "0\n", "1", "[]", "x:y=1", "\n", "é"])
).map("".join)


@given(st.sampled_from(NOT_PICKLED), st.text(st.characters(exclude_characters="0")) | COMBINED_TEXTS)
def test_any_text_loads_or_is_refused(identifier: str, body: str) -> None:
    try:
        load(identifier + body, EVERYTHING, "the value", BY_NAME["DillCode"].for_code)
    except DeserializationError as error:
        assert str(error)


@given(st.integers(0, 200), st.sampled_from(["00\n", "01\n", "02\n", "03\n", "04\n"]))
def test_a_pickle_that_is_cut_off_is_refused(length: int, identifier: str) -> None:
    whole = dump_with("DillDataBase64", ("name", "source " * 100))[3:]
    with pytest.raises(DeserializationError, match="can't be deserialized with"):
        load(identifier + whole[:length], EVERYTHING, "the value", True)
