from __future__ import annotations

import os
import platform
from typing import Any

import dill
import pytest
from hypothesis import given
from hypothesis import strategies as st

from endpoint.wire.codec import decode, encode
from endpoint.wire.messages import Result, Task
from endpoint.worker.allowed import Allowed
from endpoint.worker.packing import pack
from endpoint.worker.run import run_task
from endpoint.worker.serializer import dump_with, load

TASK = "5f6a7c1e-95a2-4a3e-8e5b-6d8d5c7f0a11"
ENDPOINT = "9f4fdd32-66ce-4e0b-b2a2-0f4c7a63f3b0"
OPTIONS = {"task_id": TASK, "endpoint_id": ENDPOINT, "run_dir": None, "sandbox": False}
SDK = "globus_compute_sdk.serialize."


def body_of(source: str, args: str = "[]", kwargs: str = "{}") -> bytes:
    """A task that calls the function `f` of `source`."""
    return encode(Task(TASK, pack([f"st\nf:{source}", f"11\n{args}", f"11\n{kwargs}"])))


def run(body: bytes, **options: Any) -> Result:
    result = decode(run_task(body, {**OPTIONS, **options}))
    assert isinstance(result, Result)
    assert result.task_id == TASK
    return result


def value_of(result: Result) -> Any:
    assert result.error_details is None, result.data
    return load(result.data, Allowed(None), "the value", False)


def test_a_function_runs_with_its_arguments() -> None:
    assert value_of(run(body_of("def f(a, b=1): return [a, b]", '["x"]', '{"b": 2}'))) == ["x", 2]


def test_a_result_says_where_and_when_it_came_from() -> None:
    result = run(body_of("def f(): return 1"))
    assert result.details is not None
    assert result.details["endpoint_id"] == ENDPOINT
    assert result.details["python_version"] == platform.python_version()
    assert result.details["dill_version"] == dill.__version__
    assert result.details["os"]
    assert result.task_statuses is not None
    started, ended = result.task_statuses
    assert (started.state, ended.state) == ("execution-start", "execution-end")
    assert started.timestamp <= ended.timestamp


def test_a_task_finds_its_id_in_the_environment() -> None:
    source = "def f():\n    import os\n    return [os.environ['GC_TASK_UUID'], os.environ.get('GC_TASK_SANDBOX_DIR')]"
    assert value_of(run(body_of(source))) == [TASK, None]


def test_an_exception_of_the_function_is_its_traceback_without_our_frames() -> None:
    result = run(body_of("def g(x):\n    return 1 / x\ndef f(x):\n    return g(x)", "[0]"))
    assert result.error_details is not None
    assert result.error_details.code == "RemoteExecutionError"
    assert result.error_details.user_message == "The function raised ZeroDivisionError: division by zero"
    lines = result.data.splitlines()
    assert lines[0] == "Traceback (most recent call last):"
    assert lines[-1] == "ZeroDivisionError: division by zero"
    assert [line for line in lines if " in " in line] == [
        '  File "<source of f>", line 4, in f',
        '  File "<source of f>", line 2, in g',
    ]
    assert "endpoint" not in result.data


@pytest.mark.parametrize(
    ("statement", "last"),
    [
        ("raise SystemExit(3)", "SystemExit: 3"),
        ("import sys; sys.exit('bye')", "SystemExit: bye"),
        ("raise KeyboardInterrupt", "KeyboardInterrupt"),
        ("raise BaseException('base')", "BaseException: base"),
        ("return f()", "RecursionError: maximum recursion depth exceeded"),
        ("raise type('Odd', (Exception,), {'__str__': lambda self: 1 / 0})()", "str() failed>"),
        ("raise type('Odd', (Exception,), {'__str__': lambda self: exit(3)})()", "Odd"),
        ("raise ValueError('half a pair: \\ud800')", "ValueError: half a pair: \\ud800"),
    ],
)
def test_whatever_the_function_raises_is_an_error_result(statement: str, last: str) -> None:
    result = run(body_of(f"def f():\n    {statement}"))
    assert result.error_details is not None
    assert result.error_details.code == "RemoteExecutionError"
    assert last in result.data.splitlines()[-1]


def test_a_very_long_error_text_is_cut_in_the_middle() -> None:
    result = run(body_of("def f(): raise ValueError('a' * 5_000_000 + 'the end')"))
    assert len(result.data) < 1024 * 1024 + 100
    assert "characters left out" in result.data
    assert result.data.rstrip().endswith("the end")
    assert result.error_details is not None
    assert len(result.error_details.user_message) < 1100


def test_a_result_beyond_the_limit_is_an_error_that_says_so() -> None:
    body = body_of("def f(n): return 'x' * n", "[100]")
    length = len("11\n") + 102
    serializers = [SDK + "JSONData"]
    assert value_of(run(body, result_size_limit=length, result_serializers=serializers)) == "x" * 100
    result = run(body, result_size_limit=length - 1, result_serializers=serializers)
    assert result.error_details is not None
    assert result.error_details.code == "MaxResultSizeExceeded"
    assert f"{length} characters" in result.data
    assert f"{length - 1} are the most" in result.data


def test_the_limit_is_ten_mebibytes_where_none_is_given() -> None:
    body = body_of("def f(n): return 'x' * n", f"[{10 * 1024 * 1024}]")
    result = run(body, result_serializers=[SDK + "JSONData"])
    assert result.error_details is not None
    assert result.error_details.code == "MaxResultSizeExceeded"


def test_a_result_that_can_not_be_serialized_is_an_error_that_says_why() -> None:
    result = run(body_of("def f(): return {1, 2}"), result_serializers=[SDK + "JSONData"])
    assert result.error_details is not None
    assert result.error_details.code == "SerializationError"
    assert "JSONData can't serialize a set" in result.data


def test_a_payload_in_another_strategy_is_an_error_that_names_the_allowed_ones() -> None:
    result = run(body_of("def f(): pass"), allowed_serializers=[SDK + "JSONData", SDK + "DillCode"])
    assert result.error_details is not None
    assert result.error_details.code == "DeserializationError"
    assert "Allowed code strategies: DillCode" in result.data


def test_an_allowed_payload_runs() -> None:
    allowed = [SDK + "JSONData", SDK + "PureSourceTextInspect"]
    assert value_of(run(body_of("def f(): return 5"), allowed_serializers=allowed)) == 5


def test_a_wrong_allow_list_is_an_error_result_and_nothing_runs() -> None:
    result = run(body_of("def f(): return 5"), allowed_serializers=["nonsense"])
    assert result.error_details is not None
    assert "The endpoint's configuration is wrong: 'nonsense' is not" in result.data


def test_a_failure_to_unpickle_shows_the_sentence_first_and_then_the_traceback() -> None:
    result = run(encode(Task(TASK, pack(["01\n", "11\n[]", "11\n{}"]))))
    assert result.error_details is not None
    assert result.data.startswith("DeserializationError: The function can't be deserialized with DillCode")
    assert "Traceback (most recent call last):" in result.data
    assert "endpoint/worker" not in result.data


def test_a_callable_is_returned_as_code() -> None:
    result = run(body_of("def f():\n    import os\n    return os.getcwd"))
    assert result.data[:3] == "01\n"
    assert load(result.data, Allowed(None), "the value", True) is os.getcwd


TEXTS = ["", "[]", "{}", "[1]", "null", "f:def f(*a, **k): return 1", "f:f = 1", "2\n[]", "3\n11\n", "-1\n", ":", "é"]
VALID = bytes(body_of("def f(*a, **k): return [a, k]", "[1, 2]", '{"c": 3}'))


@given(st.binary() | st.binary().map(lambda tail: b"\x01" + tail))
def test_any_bytes_give_a_result(body: bytes) -> None:
    assert run(body).is_error


@given(st.lists(st.tuples(st.integers(0, len(VALID)), st.integers(0, 4), st.binary(max_size=4)), max_size=3))
def test_a_damaged_task_gives_a_result(damages: list[tuple[int, int, bytes]]) -> None:
    body = bytearray(VALID)
    for position, length, instead in damages:
        body[position : position + length] = instead
    assert run(bytes(body)).task_statuses


@given(
    st.lists(
        st.tuples(st.sampled_from(["10\n", "11\n", "12\n", "13\n", "xx\n", "st\n", ""]), st.sampled_from(TEXTS)),
        max_size=4,
    )
)
def test_any_buffers_give_a_result(buffers: list[tuple[str, str]]) -> None:
    packed = pack([identifier + body for identifier, body in buffers])
    assert run(encode(Task(TASK, packed))).task_statuses


@given(st.integers(0, 60), st.sampled_from(["00\n", "01\n", "02\n", "03\n", "04\n"]))
def test_a_pickle_that_is_cut_off_gives_an_error_result(length: int, identifier: str) -> None:
    damaged = identifier + dump_with("DillDataBase64", ("one", "two" * 20))[3:][:length]
    assert run(encode(Task(TASK, pack(["st\nf:def f(*a): return 1", damaged, "11\n{}"])))).is_error


def test_dumping_and_loading_agree() -> None:
    assert load(dump_with("AllDataStrategies", [1]), Allowed(None), "the value", False) == [1]
