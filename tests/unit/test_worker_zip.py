"""The zip that a node gets, and its program, in every Python of this machine."""

from __future__ import annotations

import ast
import json
import os
import socket
import stat
import subprocess
import sys
import uuid
import zipfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from endpoint.engines import worker_zip
from endpoint.engines.user_python import UserPython
from endpoint.worker.stream import FrameReader, send_frame
from tests.support.engine_tasks import source_task, value_of
from tests.support.pythons import pythons

PACKAGE = Path(worker_zip.__file__).parents[1]
# What a pool in a Python with Parsl may need beyond the standard library.
WITH_PARSL = {"parsl", "psutil", "zmq"}
OLDER = [version for version in pythons() if tuple(map(int, version.split("."))) < (3, 10)]
GOOD = [version for version in pythons() if version not in OLDER]


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return worker_zip.write(tmp_path_factory.mktemp("run"))


def test_it_is_written_once_and_replaces_older_ones(tmp_path: Path) -> None:
    folder = tmp_path / "worker"
    folder.mkdir(mode=0o700)
    for name in ("endpoint-0.zip", "endpoint-0.sh", "environment-0.json"):
        (folder / name).touch()

    path = worker_zip.write(tmp_path)
    first = path.stat()

    assert worker_zip.write(tmp_path) == path
    assert path.stat() == first
    assert {one.name for one in folder.iterdir()} == {path.name, worker_zip.script_of(path).name, "environment-0.json"}
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700


def test_the_same_modules_make_the_same_zip_wherever_it_is(tmp_path: Path, made: Path) -> None:
    other = worker_zip.write(tmp_path)

    assert (other.name, other.read_bytes()) == (made.name, made.read_bytes())


def test_it_holds_all_that_its_modules_import_of_ours(made: Path) -> None:
    """A module that a pool imports and that is missing here would fail on nodes only."""
    held = set(zipfile.ZipFile(made).namelist())
    for name in held:
        if name.startswith("endpoint/"):
            missing = {other for other in imported(name) if other.startswith("endpoint") and not is_in(held, other)}
            assert not missing, f"{name} imports {missing}: add it to worker_zip.ENGINES"


def test_what_serves_tasks_needs_the_standard_library_alone(made: Path) -> None:
    for name in zipfile.ZipFile(made).namelist():
        others = {other.partition(".")[0] for other in imported(name)} - {"endpoint", *sys.stdlib_module_names}
        allowed = {"dill", "pybase64"} if name.startswith("endpoint/worker/") else WITH_PARSL
        assert others <= allowed, name


@pytest.mark.parametrize("version", GOOD)
def test_a_python_that_knows_nothing_of_us_runs_tasks_from_it(version: str, made: Path) -> None:
    with serving(pythons()[version], made) as ask:
        task = source_task("f", SEES, 3)
        first = value_of(ask(task.task_id, task.body, {"A_VARIABLE": "one"}))
        second = value_of(ask(task.task_id, task.body, {"A_VARIABLE": None}))

    assert first["python"] == version
    assert (first["doubled"], first["variable"], second["variable"]) == (6, "one", None)
    assert first["pid"] == second["pid"]
    assert first["task"] == task.task_id


def test_a_worker_hands_on_what_changes_in_its_variables(made: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    task = source_task("f", "def f():\n    import os\n    return [os.environ.get(name) for name in ('A', 'B', 'C')]\n")
    options = {"task_id": task.task_id, "result_serializers": task.result_serializers}
    monkeypatch.setenv("A", "from the start")
    monkeypatch.setenv("B", "from the start")
    worker = UserPython(sys.executable, str(made))

    first = value_of(worker.run_task(task.body, options))
    monkeypatch.delenv("A")
    monkeypatch.setenv("C", "new")
    second = value_of(worker.run_task(task.body, options))
    worker.close()

    assert first == ["from the start", "from the start", None]
    assert second == [None, "from the start", "new"]


@pytest.mark.parametrize(
    ("program", "words"),
    [
        (
            "#!/bin/sh\necho cannot load libpython >&2\nexit 127\n",
            "ended with status 127 before it took a task: cannot",
        ),
        ("#!/bin/sh\nkill -SEGV $$\n", "was killed by SIGSEGV before it took a task"),
        ("no program\n", "can't be started: Exec format error"),
        (None, "can't be started: No such file or directory"),
    ],
)
def test_a_python_that_does_not_start_is_an_answer_to_the_task(
    program: str | None, words: str, made: Path, tmp_path: Path
) -> None:
    path = tmp_path / "python3"
    if program is not None:
        path.write_text(program)
        path.chmod(0o755)
    task = source_task("f", "def f(): pass\n")

    answer = json.loads(UserPython(str(path), str(made)).run_task(task.body, {"task_id": task.task_id})[1:])["data"]

    assert answer["task_id"] == task.task_id
    assert f"The worker's Python {path} {words}" in answer["error_details"]["user_message"]


def test_a_failing_function_shows_none_of_our_frames(made: Path) -> None:
    task = source_task("f", "def f():\n    return {}['lost key']\n")

    with serving(Path(sys.executable), made) as ask:
        data = json.loads(ask(task.task_id, task.body, {})[1:])["data"]

    assert "KeyError: 'lost key'" in data["data"]
    assert made.name not in data["data"]


def test_a_function_may_start_processes_of_its_own_from_the_zip(made: Path) -> None:
    task = source_task("f", STARTS)

    with serving(Path(sys.executable), made) as ask:
        assert value_of(ask(task.task_id, task.body, {})) == [4, 9, "fork", 4, 9, "spawn"]


def test_the_time_limit_of_the_workers_environment_holds(made: Path) -> None:
    task = source_task("f", "def f():\n    import time\n    time.sleep(60)\n")

    with serving(Path(sys.executable), made) as ask:
        data = json.loads(ask(task.task_id, task.body, {"GC_TASK_TIMEOUT": "0.1"})[1:])["data"]

    assert data["error_details"]["code"] == "TaskTimeout"


def test_a_python_that_is_too_old_says_so_in_one_sentence(made: Path) -> None:
    for version in OLDER:
        done = subprocess.run([pythons()[version], made, "check"], capture_output=True, text=True)

        assert done.returncode == 69
        assert f"is version {version}." in done.stderr
        assert "3.10 is the oldest that can run tasks" in done.stderr
        assert len(done.stderr.splitlines()) == 1


SEES = """
def f(number):
    import os, sys
    return {
        "doubled": number * 2,
        "python": "%d.%d" % sys.version_info[:2],
        "pid": os.getpid(),
        "variable": os.environ.get("A_VARIABLE"),
        "task": os.environ["GC_TASK_UUID"],
    }
"""
STARTS = """
def f():
    import math, multiprocessing
    found = []
    for how in ("fork", "spawn"):
        with multiprocessing.get_context(how).Pool(1) as pool:
            found += [int(number) for number in pool.map(math.exp2, [2])] + [pool.apply(pow, (3, 2)), how]
    return found
"""


class serving:
    """A process of that Python that serves tasks from the zip. A context manager: a function that asks it."""

    def __init__(self, python: Path, program: Path) -> None:
        self.ours, theirs = socket.socketpair()
        self.ours.settimeout(60)
        with theirs:
            descriptors = (theirs.fileno(), os.dup(2))
            self.process = subprocess.Popen(
                [python, program, "serve", *map(str, descriptors)], pass_fds=descriptors, stdin=subprocess.DEVNULL
            )
            os.close(descriptors[1])
        self.frames = self._received()

    def __enter__(self):
        assert json.loads(next(self.frames))["python"]
        return self.ask

    def __exit__(self, *_: object) -> None:
        self.ours.close()
        assert self.process.wait(60) == 0

    def ask(self, task_id: str, body: bytes, changes: dict[str, str | None]) -> bytes:
        options = {
            "task_id": task_id,
            "endpoint_id": str(uuid.uuid4()),
            "run_dir": None,
            "sandbox": False,
            "result_serializers": ["globus_compute_sdk.serialize.JSONData"],
        }
        send_frame(self.ours, json.dumps([options, changes]).encode())
        send_frame(self.ours, body)
        return next(self.frames)

    def _received(self) -> Iterator[bytes]:
        reader = FrameReader()
        while piece := self.ours.recv(65536):
            yield from reader.feed(piece)


def imported(name: str) -> set[str]:
    """The modules that a file of the zip imports, anywhere in it."""
    path = PACKAGE / "engines" / worker_zip.MAIN if name == "__main__.py" else PACKAGE.parent / name
    found: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            found |= (
                {f"{node.module}.{alias.name}" for alias in node.names} if node.module == "endpoint" else {node.module}
            )
            found |= {
                f"{node.module}.{alias.name}"
                for alias in node.names
                if (PACKAGE.parent / f"{node.module}.{alias.name}".replace(".", "/")).with_suffix(".py").exists()
            }
    return found


def is_in(held: set[str], module: str) -> bool:
    path = module.replace(".", "/")
    return bool({f"{path}.py", f"{path}/__init__.py"} & held)
