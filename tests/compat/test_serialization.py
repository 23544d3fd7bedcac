"""For every strategy, what one writes the other reads; and what users of the SDK see of our workers' results."""

from __future__ import annotations

import json
from pathlib import Path
from types import FunctionType
from typing import Any

import pytest
from official_peer import Peer, PeerError

from endpoint.worker.allowed import Allowed, check_allowed
from endpoint.worker.packing import pack, unpack
from endpoint.worker.run import run_task
from endpoint.worker.serializer import dump_with, load
from endpoint.worker.strategies import STRATEGIES

pytestmark = pytest.mark.compat

TASK = "5f6a7c1e-95a2-4a3e-8e5b-6d8d5c7f0a11"
ENDPOINT = "9f4fdd32-66ce-4e0b-b2a2-0f4c7a63f3b0"
SDK = "globus_compute_sdk.serialize."
CODE = [one.name for one in STRATEGIES if one.for_code and one.selectable]
DATA = [one.name for one in STRATEGIES if not one.for_code]
VALUES = ["None", "[1, 2.5, 'é\\u2028', {'a': [True, None]}]", "{'big': 'x' * 100000}", "''"]
PICKLED_VALUES = ["(1, {2, 3})", "b'\\x00\\xff'", "2 + 3j", "[float('nan')].__len__()"]


def twice_and_more(number: int, more: int = 0) -> list[int]:
    return [number * 2, more]


# As in a user's script: dill writes what is in __main__ whole, and of an importable module's functions the name only.
twice_and_more_in_main = FunctionType(twice_and_more.__code__, {"__name__": "__main__"}, None, (0,))


def task_body(task_buffer: str) -> bytes:
    message = {"message_type": "task", "data": {"task_id": TASK, "task_buffer": task_buffer}}
    return b"\x01" + json.dumps(message).encode()


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """Runs a task as a worker does; returns the raw result."""
    monkeypatch.chdir(tmp_path)

    def run(packed: str, **options: Any) -> bytes:
        known = {"task_id": TASK, "endpoint_id": ENDPOINT, "run_dir": str(tmp_path), "sandbox": False}
        return run_task(task_body(packed), {**known, **options})

    return run


def test_our_strategies_are_those_of_the_official_package(peer: Peer) -> None:
    assert {one.name: one.identifier for one in STRATEGIES} == peer("identifiers")
    assert sorted(CODE + DATA) == sorted(peer("selectable"))


@pytest.mark.parametrize("strategy", CODE)
def test_we_run_what_the_official_package_wrote_of_a_function(peer: Peer, strategy: str) -> None:
    function = load(peer("serialize_callable", strategy, "add_and_multiply"), Allowed(None), "the function", True)
    assert function(3, second=4) == {"sum": 7, "product": 12}


@pytest.mark.parametrize("strategy", CODE)
def test_the_official_package_runs_what_we_wrote_of_a_function(peer: Peer, strategy: str) -> None:
    function = twice_and_more_in_main if strategy == "DillCode" else twice_and_more
    assert peer("call", dump_with(strategy, function), [4], {"more": 1}) == "[8, 1]"


@pytest.mark.parametrize("value", VALUES)
@pytest.mark.parametrize("strategy", DATA)
def test_a_value_is_the_same_on_both_sides(peer: Peer, strategy: str, value: str) -> None:
    assert load(peer("serialize_value", strategy, value), Allowed(None), "the value", False) == eval(value)
    assert peer("repr_of", dump_with(strategy, eval(value))) == repr(eval(value))


@pytest.mark.parametrize("value", PICKLED_VALUES)
@pytest.mark.parametrize("strategy", ["DillDataBase64"])
def test_a_value_beyond_json_is_the_same_on_both_sides(peer: Peer, strategy: str, value: str) -> None:
    assert load(peer("serialize_value", strategy, value), Allowed(None), "the value", False) == eval(value)
    assert peer("repr_of", dump_with(strategy, eval(value))) == repr(eval(value))


def test_packed_buffers_are_the_same_on_both_sides(peer: Peer) -> None:
    buffers = ["", "11\né", "3\nabc", "x" * 5000]
    packed = pack(buffers)
    assert packed == peer("pack_buffers", buffers)
    assert unpack(packed, at_most=4) == peer("unpack_buffers", packed) == buffers


@pytest.mark.parametrize("data", DATA)
@pytest.mark.parametrize("code", CODE)
def test_a_whole_task_of_the_sdk_runs_in_our_worker(peer: Peer, run: Any, code: str, data: str) -> None:
    # Given a function, arguments and keyword arguments that the SDK wrote
    buffers = [
        peer("serialize_callable", code, "add_and_multiply"),
        peer("serialize_value", data, "(3,)"),
        peer("serialize_value", data, "{'second': 5}"),
    ]
    # When our worker runs them, writing the result as the SDK asked
    body = run(peer("pack_buffers", buffers), result_serializers=[SDK + data])
    # Then the SDK reads the value, and that it is no error
    result = peer("unpack_message", body.decode("latin-1"))["data"]
    assert result["error_details"] is None
    assert peer("repr_of", result["data"]) == "{'sum': 8, 'product': 15}"
    assert [one["state"] for one in result["task_statuses"]] == ["execution-start", "execution-end"]
    assert {one["actor"] for one in result["task_statuses"]} == {"worker"}


def test_our_result_describes_the_environment_as_the_official_worker_does(peer: Peer, run: Any, tmp_path: Path) -> None:
    packed = peer(
        "pack_buffers",
        [
            peer("serialize_callable", "DillCode", "add_and_multiply"),
            peer("serialize_value", "JSONData", "[1]"),
            peer("serialize_value", "JSONData", "{}"),
        ],
    )
    ours = json.loads(run(packed)[1:])["data"]
    official_body = peer("run_official_worker", task_body(packed).decode(), TASK, str(tmp_path / "official"))
    official = json.loads(official_body[1:])["data"]
    assert ours["details"].keys() - {"globus_compute_sdk_version"} == official["details"].keys() - {
        "globus_compute_sdk_version"
    }
    assert ours["data"] == official["data"]


def test_the_sdk_warns_of_our_worker_only_where_versions_differ(peer: Peer, run: Any) -> None:
    details = json.loads(run("")[1:])["data"]["details"]
    official = peer("environment")
    same = all(details[name] == official[name] for name in ("python_version", "dill_version"))
    assert (peer("version_warning", details) is None) == same
    assert ENDPOINT in peer("version_warning", {**details, "python_version": "3.9.1"})


def test_a_user_of_the_sdk_reads_the_traceback_of_their_own_function(peer: Peer, run: Any) -> None:
    packed = peer(
        "pack_buffers",
        [
            peer("serialize_callable", "PureSourceTextInspect", "divide"),
            peer("serialize_value", "JSONData", "[1]"),
            peer("serialize_value", "JSONData", "{}"),
        ],
    )
    shown = peer("shown_failure", run(packed).decode("latin-1"))
    assert shown.strip().startswith("Traceback (most recent call last):")
    assert shown.strip().endswith("ZeroDivisionError: division by zero")
    assert "endpoint/worker" not in shown
    assert "serializ" not in shown  # else the SDK would take it for a failure to deserialize, and say so


def test_a_user_of_the_sdk_gets_its_hint_on_serialization_only_where_that_failed(peer: Peer, run: Any) -> None:
    shown = peer("shown_failure", run(pack(["zz\n1", "11\n[]", "11\n{}"])).decode("latin-1"))
    assert "using a different" in shown
    big = pack([dump_with("PureSourceTextInspect", twice_and_more), '11\n["' + "x" * 200 + '"]', "11\n{}"])
    shown = peer("shown_failure", run(big, result_size_limit=128).decode("latin-1"))
    assert "MaxResultSizeExceeded" in shown
    assert "using a different" not in shown


@pytest.mark.parametrize(
    "names",
    [
        [],
        [SDK + "JSONData", SDK + "DillCode"],
        [SDK + "concretes.JSONData", SDK + "AllCodeStrategies"],
        ["globus_compute_sdk.*Code", "globus_compute_sdk.*Data"],
        ["globus_compute_sdk.*Code", SDK + "JSONData", SDK + "DillDataBase64"],
        [SDK + "DEFAULT_STRATEGY_CODE", SDK + "DEFAULT_STRATEGY_DATA"],
    ],
)
def test_an_allow_list_means_the_same_on_both_sides(peer: Peer, names: list[str]) -> None:
    assert sorted(one.name for one in Allowed(names).strategies) == peer("allowlist", names)


@pytest.mark.parametrize(
    "names",
    [
        [SDK + "JSONData"],
        ["globus_compute_sdk.*Code"],
        ["globus_compute_sdk.*Code", SDK + "DillCode", SDK + "JSONData"],
        [SDK + "NoSuch", SDK + "JSONData"],
        [SDK + "concretes.PickleCode", SDK + "JSONData"],
        ["os.path.join", "globus_compute_sdk.*Code", SDK + "JSONData"],
        ["JSONData", "DillCode"],
    ],
)
def test_an_allow_list_that_the_official_package_refuses_we_refuse(peer: Peer, names: list[str]) -> None:
    with pytest.raises(PeerError):
        peer("allowlist", names)
    with pytest.raises(ValueError, match="serializ"):
        check_allowed(names)


def test_a_shell_function_of_the_sdk_runs_where_the_sdk_is_installed(
    peer: Peer, peer_endpoint_python: Path, tmp_path: Path
) -> None:
    # Given a worker environment that has the SDK, and of ours nothing but this package on its path
    packed = peer(
        "pack_buffers",
        [
            peer("serialize_callable", "DillCode", "shell"),
            peer("serialize_value", "DillDataBase64", "()"),
            peer("serialize_value", "DillDataBase64", "{'place': 'afar'}"),
        ],
    )
    result = worker_elsewhere(peer_endpoint_python, packed, tmp_path)
    # Then the SDK reads a ShellResult, whose command ran in the task's sandbox
    assert result["error_details"] is None
    shown = peer("repr_of", result["data"])
    assert "returncode=3" in shown
    assert "stdout='from afar\\n'" in shown
    assert "WARNING" not in shown


def test_an_mpi_function_of_the_sdk_starts_with_the_launcher_prefix(
    peer: Peer, peer_endpoint_python: Path, tmp_path: Path
) -> None:
    packed = peer(
        "pack_buffers",
        [
            peer("serialize_callable", "DillCode", "mpi"),
            peer("serialize_value", "DillDataBase64", "()"),
            peer("serialize_value", "DillDataBase64", "{}"),
        ],
    )
    result = worker_elsewhere(peer_endpoint_python, packed, tmp_path)
    assert "cmd='$PARSL_MPI_PREFIX echo ranks'" in peer("repr_of", result["data"])


def worker_elsewhere(python: Path, packed: str, directory: Path) -> dict[str, Any]:
    """Runs a sandboxed task of ours with another environment's Python; returns the result's data."""
    import subprocess

    import endpoint

    script = (
        "import sys, json\n"
        "from endpoint.worker.run import run_task\n"
        "sys.stdout.buffer.write(run_task(sys.stdin.buffer.read(), json.loads(sys.argv[1])))\n"
    )
    assert endpoint.__file__ is not None
    options = {"task_id": TASK, "endpoint_id": ENDPOINT, "run_dir": str(directory), "sandbox": True}
    done = subprocess.run(
        [str(python), "-c", script, json.dumps(options)],
        input=task_body(packed),
        stdout=subprocess.PIPE,
        env={"PYTHONPATH": str(Path(endpoint.__file__).parents[1]), "PATH": "/usr/bin:/bin"},
        check=True,
        timeout=60,
    )
    return json.loads(done.stdout[1:])["data"]
