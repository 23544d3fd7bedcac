"""Functions in a Python that `worker_init` has chosen, and that knows nothing of this package."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import sysconfig
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest

from endpoint.engines import worker_zip
from endpoint.engines.base import Engine, EngineTask
from endpoint.errors import EndpointError, TaskLost
from tests.support.engine_tasks import die, double, linger, mpi_task, source_task, value_of
from tests.support.pythons import another_python, python
from tests.support.running_engines import FIRST_RESULT, running_engine
from tests.support.waiting import wait_for

OWN = f"{sys.version_info.major}.{sys.version_info.minor}"
WHERE = """
def where(*names):
    import os, sys
    return {
        "version": "%d.%d" % sys.version_info[:2],
        "prefix": sys.prefix,
        "pid": os.getpid(),
        "variables": {name: os.environ.get(name) for name in names},
    }
"""
USES = "def uses(module):\n    import importlib\n    return importlib.import_module(module).__name__\n"


def where(*names: str) -> EngineTask:
    return source_task("where", WHERE, *names)


def answer(engine: Engine, task: EngineTask) -> Any:
    return value_of(engine.submit(task).result(FIRST_RESULT))


def refusal(engine: Engine, task: EngineTask) -> str:
    """The text of an error result."""
    data = json.loads(engine.submit(task).result(FIRST_RESULT)[1:])["data"]
    assert data["error_details"], data
    text: str = data["error_details"]["user_message"]
    return text


@pytest.fixture(scope="module")
def bare(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An environment of another minor version, with nothing in it."""
    place = tmp_path_factory.mktemp("bare") / "environment"
    subprocess.run([another_python()[1], "-m", "venv", "--without-pip", place], check=True)
    return place


@pytest.fixture(scope="module")
def theirs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A directory of modules, as `worker_init` puts them on the path of its Python; they would break another one."""
    folder = tmp_path_factory.mktemp("theirs")
    (folder / "of_theirs.py").write_text("")
    for module in ("zmq", "parsl", "psutil"):
        (folder / f"{module}.py").write_text("raise ImportError('this is for another Python')\n")
    return folder


@pytest.fixture(scope="module")
def shared(bare: Path, theirs: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Engine]:
    """One engine, whose workers activate that environment, for the tests that leave it able to work."""
    init = f". {bare}/bin/activate\nexport LD_LIBRARY_PATH={theirs} PYTHONPATH={theirs}"
    with running_engine(
        tmp_path_factory.mktemp("shared"),
        init,
        working_dir="work",
        run_in_sandbox=True,
        available_accelerators=["gpu7"],
    ) as engine:
        yield engine


@pytest.fixture(scope="module")
def with_dill(tmp_path_factory: pytest.TempPathFactory, peer_sdk_newer_python: Path, peer_sdk_python: Path) -> Path:
    """A Python of another minor version that has dill."""
    looked = [peer_sdk_newer_python, peer_sdk_python]
    return next(path for path in looked if version_of(path) != OWN)


def version_of(path: Path) -> str:
    question = "import sys; print('%d.%d' % sys.version_info[:2])"
    return subprocess.run([path, "-c", question], capture_output=True, text=True, check=True).stdout.strip()


def test_functions_run_in_the_environment_that_worker_init_activates(shared, bare):
    seen = [answer(shared, where()) for _ in range(2)]

    assert (seen[0]["version"], seen[0]["prefix"]) == (another_python()[0], str(bare))
    assert seen[0]["pid"] == seen[1]["pid"], "one process serves all tasks of a worker"


def test_a_function_sees_the_variables_of_worker_init_and_of_its_worker_and_none_of_our_own(shared, theirs):
    names = ("LD_LIBRARY_PATH", "PYTHONPATH", "CUDA_VISIBLE_DEVICES", "PARSL_WORKER_BLOCK_ID")
    ours = ("GC_USER_PYTHON", "GC_WORKER_ZIP", "GC_BEFORE", "GC_LIBRARIES_BEFORE", "GC_USER_LIBRARIES")
    task = where(*names, *ours, "GC_TASK_UUID", "GC_TASK_SANDBOX_DIR")

    seen = answer(shared, task)["variables"]

    assert [seen[name] for name in names] == [str(theirs), str(theirs), "gpu7", "0"]
    assert [seen[name] for name in ours] == [None] * len(ours)
    assert seen["GC_TASK_UUID"] == task.task_id
    assert Path(seen["GC_TASK_SANDBOX_DIR"]).name == task.task_id


def test_many_tasks_and_big_ones_go_through(shared):
    big = "0123456789" * 100_000

    futures = [shared.submit(double(str(number))) for number in range(200)] + [shared.submit(double(big))]

    assert [value_of(future.result(FIRST_RESULT)) for future in futures] == [str(n) * 2 for n in range(200)] + [big * 2]


def test_what_worker_init_has_set_for_its_python_reaches_functions_and_not_the_pool(shared):
    assert answer(shared, source_task("uses", USES, "of_theirs")) == "of_theirs"
    worker = psutil.Process(answer(shared, where())["pid"]).parent()

    assert "LD_LIBRARY_PATH" not in worker.environ()


def test_a_package_of_the_endpoint_is_not_there_for_functions(shared):
    assert "No module named 'dill'" in refusal(shared, source_task("uses", USES, "dill"))


def test_a_dill_that_is_missing_is_told_with_the_python_and_the_way_out(shared, bare, with_dill):
    said = refusal(shared, pickled(with_dill))

    assert f"its Python {another_python()[0]}." in said
    assert f"({bare}/bin/python3) has no module dill" in said
    assert "Install dill in the worker environment, or send source and JSON" in said


@pytest.mark.parametrize(("how", "words"), [("exit", "ended with status 3"), ("kill", "was killed by SIGKILL")])
def test_a_function_that_ends_its_python_loses_its_own_task_and_no_other(shared, bare, how, words):
    with pytest.raises(TaskLost, match=f"{bare}/bin/python3, which ran the task, {words}"):
        shared.submit(die(how)).result(FIRST_RESULT)

    assert answer(shared, double("x")) == "xx"


def test_a_python_that_ends_between_two_tasks_loses_none(shared):
    process = psutil.Process(answer(shared, where())["pid"])
    process.kill()
    assert wait_for(lambda: process.status() == psutil.STATUS_ZOMBIE)

    assert answer(shared, double("x")) == "xx"


def test_a_worker_that_dies_takes_its_python_along(shared, tmp_path):
    lost = shared.submit(linger(str(tmp_path / "note")))
    assert wait_for((tmp_path / "note").exists, FIRST_RESULT)
    process = psutil.Process(json.loads((tmp_path / "note").read_text())[0])

    process.parent().kill()

    with pytest.raises(TaskLost):
        lost.result(FIRST_RESULT)
    assert psutil.wait_procs([process], 10)[1] == []
    assert answer(shared, double("x")) == "xx"


ONCE = """
def once(note):
    import os, pathlib
    path = pathlib.Path(note)
    if not path.exists():
        path.touch()
        os.abort()
    return "the second time"
"""


def test_a_lost_task_is_tried_again_and_the_time_limit_holds(bare, tmp_path):
    init = f"export GC_WORKER_PYTHON={bare}/bin/python3 GC_TASK_TIMEOUT=1"
    with running_engine(tmp_path, init, max_retries_on_system_failure=1) as engine:
        assert answer(engine, source_task("once", ONCE, str(tmp_path / "note"))) == "the second time"
        assert "TaskTimeout" in refused_code(
            engine, source_task("f", "def f():\n    import time\n    time.sleep(60)\n")
        )


def refused_code(engine: Engine, task: EngineTask) -> str:
    return str(json.loads(engine.submit(task).result(FIRST_RESULT)[1:])["data"]["error_details"]["code"])


def test_an_mpi_function_in_it_gets_the_nodes_of_its_own_task(bare, tmp_path):
    (tmp_path / "nodes").write_text("localhost\n127.0.0.1\n")
    job = f"PBS_JOBID=1.here PBS_NODEFILE={tmp_path}/nodes OMPI_ALLOW_RUN_AS_ROOT=1 OMPI_ALLOW_RUN_AS_ROOT_CONFIRM=1"
    provider = {
        "type": "LocalProvider",
        "nodes_per_block": 2,
        "worker_init": f"export {job} GC_WORKER_PYTHON={bare}/bin/python3",
        "launcher": {"type": "SimpleLauncher"},
    }
    with running_engine(tmp_path, type="GlobusMPIEngine", max_workers_per_node=None, provider=provider) as engine:
        tasks = [mpi_task("true", num_nodes=nodes) for nodes in (1, 2, 1)]
        answers = [value_of(engine.submit(task).result(FIRST_RESULT)) for task in tasks]

    assert [len(one["nodes"]) for one in answers] == [1, 2, 1]


def test_a_worker_init_that_leaves_python_alone_keeps_the_endpoints_own(tmp_path):
    programs = tmp_path / "cuda" / "bin"
    programs.mkdir(parents=True)
    with running_engine(tmp_path, f"export PATH={programs}:$PATH LD_LIBRARY_PATH={programs}") as engine:
        seen = answer(engine, where("LD_LIBRARY_PATH"))

    assert (seen["prefix"], seen["variables"]["LD_LIBRARY_PATH"]) == (sys.prefix, str(programs))


def test_a_program_of_our_name_that_is_not_ours_does_not_run_the_pool(peer_endpoint_python, tmp_path):
    """An environment of the official endpoint has one, which can't start ours."""
    folder = peer_endpoint_python.parent
    init = f"cd {tmp_path}\nexport PATH={folder}:$PATH"  # away from the checkout, where ours could be imported
    with running_engine(tmp_path, init) as engine:
        assert answer(engine, where())["prefix"] == str(folder.parent)


def test_bytecode_of_another_version_is_refused_in_one_sentence_and_runs_in_that_version(with_dill, tmp_path):
    task, other = pickled(with_dill), version_of(with_dill)
    with running_engine(tmp_path / "own", max_workers_per_node=1) as engine:
        said = refusal(engine, task)
    with running_engine(tmp_path / "theirs", f"export PATH={with_dill.parent}:$PATH") as engine:
        value = answer(engine, pickled(with_dill))

    assert f"bytecode of Python {other}, and the worker has Python {OWN}." in said
    assert "\n" not in said
    assert ". " not in said
    assert value == {"version": other, "sum": 42}


def pickled(python: Path) -> EngineTask:
    """A task whose function that Python has pickled."""
    done = subprocess.run([python, "-c", PICKLE], capture_output=True, text=True, check=True)
    task = source_task("unused", "def unused(): pass\n")
    message = json.loads(task.body[1:])
    buffers = [f"01\n{done.stdout}", "11\n[40, 2]", "11\n{}"]
    message["data"]["task_buffer"] = "".join(f"{len(buffer)}\n{buffer}" for buffer in buffers)
    body = b"\x01" + json.dumps(message).encode()
    return EngineTask(task.task_id, task.function_id, body, {}, task.result_serializers)


PICKLE = """
import base64, dill
def add(one, other):
    import sys
    def inner():
        return int(one) + other
    return {"version": "%d.%d" % sys.version_info[:2], "sum": inner()}
print(base64.b64encode(dill.dumps(add)).decode())
"""


@pytest.mark.parametrize(
    ("init", "words"),
    [
        ("export GC_WORKER_PYTHON=/nowhere/python3", "GC_WORKER_PYTHON is /nowhere/python3, which is not there."),
        ("export PATH={broken}:$PATH", "{broken}/python3, doesn't run: no libpython here"),
        ("export GC_WORKER_PYTHON={old}", "3.10 is the oldest that can run tasks"),
    ],
)
def test_a_python_that_can_not_be_used_is_told_to_who_waits_for_a_task(init, words, tmp_path):
    broken = tmp_path / "broken"
    broken.mkdir()
    (broken / "python3").write_text("#!/bin/sh\necho no libpython here >&2\nexit 127\n")
    (broken / "python3").chmod(0o755)
    names = {"broken": str(broken)}
    if "{old}" in init:
        names["old"] = str(python("3.9", "3.8", "3.7"))

    with running_engine(tmp_path / "run", init.format(**names)) as engine:
        failure = engine.submit(double("x")).exception(FIRST_RESULT)

    assert isinstance(failure, EndpointError)
    assert words.format(**names) in f"{failure} {failure.failure.detail}"


class Node:
    """A shell on a node that sees the run directory, and not the endpoint's own Python."""

    def __init__(self, directory: Path, path: str) -> None:
        self._script = worker_zip.script_of(worker_zip.write(directory))
        self._path = path

    def start_pool(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        command = ["/bin/sh", self._script, "pool", "-", "endpoint.engines.worker_pool", *arguments]
        environment = {"PATH": self._path, "HOME": os.environ.get("HOME", "/")}
        return subprocess.run(command, env=environment, capture_output=True, text=True, timeout=FIRST_RESULT)


@pytest.fixture
def with_parsl(tmp_path: Path) -> Path:
    """An environment that has Parsl, and not this package."""
    place = tmp_path / "parsl"
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", place], check=True)
    (folder,) = place.glob("lib/python3*/site-packages")
    (folder / "parsl.pth").write_text(sysconfig.get_path("purelib") + "\n")
    lacks = [place / "bin" / "python3", "-I", "-c", "import parsl.version, endpoint.engines"]
    assert "No module named 'endpoint" in subprocess.run(lacks, capture_output=True, text=True).stderr
    return place


def test_a_python_with_parsl_runs_the_pool_from_the_zip(with_parsl, tmp_path):
    started = Node(tmp_path, f"{with_parsl}/bin:/usr/bin:/bin").start_pool("--help")

    assert started.returncode == 0, started.stderr
    assert "--max_workers_per_node" in started.stdout


def test_a_node_without_parsl_says_in_one_sentence_what_it_lacks(bare, tmp_path):
    started = Node(tmp_path, f"{bare}/bin:/usr/bin:/bin").start_pool()

    assert started.returncode == 69
    assert "can run the pool of workers: not the endpoint's own Python" in started.stderr
    assert "has parsl" in started.stderr
    assert len(started.stderr.splitlines()) == 1
