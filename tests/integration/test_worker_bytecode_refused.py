"""Pickled functions that no worker could run are refused before a worker is asked."""

from __future__ import annotations

import base64
import json
import subprocess
import sys
from pathlib import Path

import pytest

from endpoint.engines.base import EngineTask
from endpoint.engines.foreign import ForeignFunctions, function_writers
from endpoint.errors import TaskRefused
from tests.support.engine_tasks import source_task

HERE = f"{sys.version_info.major}.{sys.version_info.minor}"
PICKLE = """
import base64, dill
def f(one, other):
    import sys
    def inner():
        return int(one) + other
    return sys.version, [inner() for _ in range(2)]
print(base64.b64encode(dill.dumps(f)).decode())
"""


def pickled(python: Path) -> EngineTask:
    done = subprocess.run([python, "-c", PICKLE], capture_output=True, text=True, check=True)
    return task_of(f"01\n{done.stdout}")


def task_of(function: str) -> EngineTask:
    task = source_task("unused", "def unused(): pass\n")
    message = json.loads(task.body[1:])
    buffers = [function, "11\n[]", "11\n{}"]
    message["data"]["task_buffer"] = "".join(f"{len(buffer)}\n{buffer}" for buffer in buffers)
    return EngineTask(task.task_id, task.function_id, b"\x01" + json.dumps(message).encode(), {}, ())


@pytest.fixture(scope="module")
def others(peer_sdk_python: Path, peer_sdk_newer_python: Path) -> tuple[str, EngineTask]:
    """Another version of Python, and a function that it has pickled."""
    for path in (peer_sdk_python, peer_sdk_newer_python):
        question = "import sys; print('%d.%d.%d' % sys.version_info[:3])"
        version = subprocess.run([path, "-c", question], capture_output=True, text=True, check=True).stdout.strip()
        if version.rpartition(".")[0] != HERE:
            return version, pickled(path)
    raise AssertionError("both environments have our own version")


def local(init: str = "", environment: dict[str, object] | None = None, **more: bool) -> ForeignFunctions:
    return ForeignFunctions(init, environment, **{"local": True, "image": False, **more})


def test_a_function_of_a_submitter_with_another_python_is_refused_with_both_versions(others, monkeypatch):
    version, task = others
    monkeypatch.setenv("GC_USER_PYTHON_VERSION", version)

    with pytest.raises(TaskRefused) as refused:
        local().refuse(task, [])

    said = refused.value.failure.reason
    assert f"it holds bytecode of Python {version}, and the worker has Python {HERE}." in said
    assert ". " not in said


def test_the_pools_of_a_batch_system_say_which_python_they_have(others, monkeypatch):
    version, task = others
    monkeypatch.setenv("GC_USER_PYTHON_VERSION", version)
    remote = local(local=False)

    remote.refuse(task, [])
    remote.refuse(task, [{"python_version": version}])
    remote.refuse(task, [{"python_version": version}, {"python_version": f"{HERE}.1"}])
    with pytest.raises(TaskRefused, match=HERE):
        remote.refuse(task, [{"python_version": f"{HERE}.1"}, {"python_version": f"{HERE}.1"}])


@pytest.mark.parametrize(
    ("init", "environment", "more"),
    [
        ("module load python", None, {}),
        ("", {"path": "/opt/env"}, {}),
        ("", None, {"image": True}),
        ("", {"python": "3.99.1"}, {}),
    ],
    ids=["worker_init", "an environment that is there", "an image", "a version that nobody knows yet"],
)
def test_where_the_workers_python_is_not_known_the_worker_has_the_word(others, monkeypatch, init, environment, more):
    monkeypatch.setenv("GC_USER_PYTHON_VERSION", others[0])

    local(init, environment, **more).refuse(others[1], [{"python_version": f"{HERE}.1"}])


def test_an_environment_that_is_made_has_the_python_that_it_is_made_for(others, monkeypatch):
    version, task = others
    monkeypatch.setenv("GC_USER_PYTHON_VERSION", "3.9.1")  # and so were other functions registered from elsewhere

    local("", {"python": version}).refuse(task, [])
    with pytest.raises(TaskRefused, match=r"the worker has Python 3\.10"):
        local("", {"python": "3.10"}).refuse(task, [])


def test_a_submitter_that_is_not_known_or_has_our_python_is_let_through(others, monkeypatch):
    monkeypatch.delenv("GC_USER_PYTHON_VERSION", raising=False)
    local().refuse(others[1], [])
    monkeypatch.setenv("GC_USER_PYTHON_VERSION", f"{HERE}.99")
    local().refuse(others[1], [])


@pytest.mark.parametrize(
    "function",
    ["st\nf:def f(): pass\n", "01\n", "01\n?", f"01\n{base64.b64encode(bytes(range(256))).decode()}", "x", ""],
)
def test_anything_else_is_for_the_worker_to_say(function, monkeypatch):
    monkeypatch.setenv("GC_USER_PYTHON_VERSION", "3.9.1")

    assert function_writers(task_of(function)) == ()
    local().refuse(task_of(function), [])
    local().refuse(EngineTask("0", "0", b"no message", {}, ()), [])


def test_a_function_of_our_own_python_is_known_as_such():
    import dill

    def f(one):
        return [int(number) for number in one.split()]

    task = task_of(f"01\n{base64.b64encode(dill.dumps(f)).decode()}")
    assert function_writers(task) == (HERE,)
