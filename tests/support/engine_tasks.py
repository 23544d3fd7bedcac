"""Tasks as engines get them, and what comes back; written without the code under test."""

from __future__ import annotations

import json
import uuid
from typing import Any

from endpoint.engines.base import EngineTask


def source_task(name: str, source: str, *args: Any, **kwargs: Any) -> EngineTask:
    """A task that runs the function `name` of `source` with JSON arguments."""
    buffers = [f"st\n{name}:{source}", f"11\n{json.dumps(args)}", f"11\n{json.dumps(kwargs)}"]
    task_id = str(uuid.uuid4())
    data = {"task_id": task_id, "task_buffer": "".join(f"{len(buffer)}\n{buffer}" for buffer in buffers)}
    body = b"\x01" + json.dumps({"message_type": "task", "data": data}).encode()
    return EngineTask(task_id, str(uuid.uuid4()), body, {}, ("globus_compute_sdk.serialize.JSONData",))


def value_of(raw: bytes) -> Any:
    """The value in a result message; an error result raises AssertionError with its text."""
    data = json.loads(raw[1:])["data"]
    assert not data.get("error_details"), data
    assert data["data"].startswith("11\n"), data["data"][:80]
    return json.loads(data["data"][3:])


DOUBLE = "def double(text):\n    return text * 2\n"
WHERE = "def where():\n    import os\n    return [os.getpid(), os.getcwd(), os.environ.get('GC_TASK_SANDBOX_DIR')]\n"
DIE = "def die(how):\n    import os\n    os._exit(3) if how == 'exit' else os.kill(os.getpid(), 9)\n"
# A child of its own, a file that says who is there, and then no end.
LINGER = """
def linger(note):
    import json, os, subprocess, threading
    child = subprocess.Popen(["sleep", "600"])
    with open(note + ".part", "w") as file:
        json.dump([os.getpid(), child.pid], file)
    os.rename(note + ".part", note)
    threading.Event().wait()
"""
# Nobody here listens to SIGTERM: not the function, not its child, not the one in a session of its own.
STUBBORN = """
def stubborn(note):
    import json, os, signal, subprocess, threading
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    child = subprocess.Popen(["sleep", "600"])
    apart = subprocess.Popen(["sleep", "600"], start_new_session=True)
    with open(note + ".part", "w") as file:
        json.dump([os.getpid(), child.pid, apart.pid], file)
    os.rename(note + ".part", note)
    threading.Event().wait()
"""
# Runs until somebody removes the file that it makes.
HOLD = """
def hold(note):
    import pathlib, time
    path = pathlib.Path(note)
    path.touch()
    while path.exists():
        time.sleep(0.01)
"""
# Both threads have to be here at the same time, each in a directory of its own, to go on.
MEET = """
import threading
def meet(mark):
    import os, pathlib, time
    here = pathlib.Path.cwd()
    (here.parent / ("mark-" + mark)).touch()
    while len(list(here.parent.glob("mark-*"))) < 2:
        time.sleep(0.01)
    return [str(here), os.getcwd()]
"""

# Runs until somebody removes the file that it makes, if it shall make one; says what its nodes and its command were.
MPI = """
def mpi(command, note):
    import os, pathlib, subprocess, time
    if note:
        path = pathlib.Path(note)
        path.touch()
        while path.exists():
            time.sleep(0.01)
    line = "$PARSL_MPI_PREFIX " + command
    done = subprocess.run(line, shell=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    assert done.returncode == 0, os.environ["PARSL_MPI_PREFIX"] + done.stdout
    return {"nodes": os.environ["PARSL_MPI_NODELIST"].split(","), "out": done.stdout.splitlines()}
"""


def double(text: str) -> EngineTask:
    return source_task("double", DOUBLE, text)


def where() -> EngineTask:
    return source_task("where", WHERE)


def die(how: str = "exit") -> EngineTask:
    return source_task("die", DIE, how)


def linger(note: str) -> EngineTask:
    return source_task("linger", LINGER, note)


def stubborn(note: str) -> EngineTask:
    return source_task("stubborn", STUBBORN, note)


def hold(note: str) -> EngineTask:
    return source_task("hold", HOLD, note)


def meet(mark: str) -> EngineTask:
    return source_task("meet", MEET, mark)


def mpi_task(command: str, hold_in: str = "", name: str = "", **resources: Any) -> EngineTask:
    """An MPI application, started as the SDK's MPIFunction starts it; see `MPI` for what comes back."""
    task = source_task("mpi", MPI, command, hold_in and f"{hold_in}/{name}")
    task.resource_specification.update(resources)
    return task
