"""Where a worker runs a task; in a process of its own, since the directory belongs to the whole process."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from endpoint.wire.codec import decode, encode
from endpoint.wire.messages import Result, Task
from endpoint.worker.packing import pack

TASK = "5f6a7c1e-95a2-4a3e-8e5b-6d8d5c7f0a11"
SCRIPT = """
import json, sys
from endpoint.worker.run import run_task
sys.stdout.buffer.write(run_task(sys.stdin.buffer.read(), json.loads(sys.argv[1])))
"""
WHERE = "st\nf:def f():\n    import os\n    return [os.getcwd(), os.environ.get('GC_TASK_SANDBOX_DIR')]"
SLEEP = "st\nf:def f():\n    import time\n    time.sleep(600)"


def run(source: str, directory: Path, environment: dict[str, str] | None = None, **options: Any) -> Result:
    known = {
        "task_id": TASK,
        "run_dir": str(directory / "tasks"),
        "sandbox": False,
        "result_serializers": ["globus_compute_sdk.serialize.JSONData"],
    }
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT, json.dumps({**known, **options})],
        input=encode(Task(TASK, pack([source, "11\n[]", "11\n{}"]))),
        stdout=subprocess.PIPE,
        cwd=directory,
        env={"GC_TASK_SANDBOX_DIR": "/left/by/another/task", **(environment or {})},
        check=True,
        timeout=60,
    )
    result = decode(done.stdout)
    assert isinstance(result, Result)
    return result


@pytest.mark.parametrize("sandbox", [False, True])
def test_a_task_runs_in_its_directory_which_is_made(tmp_path: Path, sandbox: bool) -> None:
    expected = tmp_path / "tasks" / TASK if sandbox else tmp_path / "tasks"
    said = json.loads(run(WHERE, tmp_path, sandbox=sandbox).data[3:])
    assert said == [str(expected.resolve()), str(expected.resolve()) if sandbox else None]


def test_without_a_directory_a_task_runs_where_the_worker_is(tmp_path: Path) -> None:
    assert json.loads(run(WHERE, tmp_path, run_dir=None).data[3:]) == [str(tmp_path.resolve()), None]


@pytest.mark.parametrize(("place", "said"), [("file/tasks", "Not a directory"), ("relative", "not an absolute path")])
def test_a_directory_that_can_not_be_used_is_an_error_result(tmp_path: Path, place: str, said: str) -> None:
    (tmp_path / "file").touch()
    directory = str(tmp_path / place) if "/" in place else place
    result = run(WHERE, tmp_path, run_dir=directory)
    assert result.error_details is not None
    assert result.error_details.code == "CouldNotExecuteUserTaskError"
    assert said in result.data


def test_a_task_that_sleeps_too_long_is_stopped_in_its_sleep(tmp_path: Path) -> None:
    result = run(SLEEP, tmp_path, {"GC_TASK_TIMEOUT": "0.2"})
    assert result.error_details is not None
    assert result.error_details.code == "TaskTimeout"
    assert "0.2 seconds" in result.data
