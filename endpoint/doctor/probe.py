"""The program of doctor's batch job: the standard library alone, sent as text with the job, which calls `main` with
`{"token", "port", "addresses": [str], "timeout_s", "modules": [str]}`.

It tries each address, says what it sees around it, and tells that to doctor, and on its standard output, after `MARK`:

    {"token", "host", "python": {"path", "version", "modules": {name: version, "", or "error: " and words}},
     "functions": the same of the Python that runs functions, where that is another one; or {"path", "error"},
     "addresses": [{"address", "latency_ms", "ahead_s"} or {"address", "error"}],
     "disk": {path: {"free_bytes", "free_inodes"}},
     "limits": {"open_files", "processes", "memory_bytes", "cores", "system"}}

`ahead_s` is doctor's clock minus this machine's.
"""

from __future__ import annotations

import contextlib
import json
import os
import platform
import resource
import socket
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

MARK = "doctor-report: "
ZIP_VARIABLE, PYTHON_VARIABLE = "GC_WORKER_ZIP", "GC_USER_PYTHON"  # as worker_pool.sh sets them
PARSL = "parsl"  # only the pool needs it
LONGEST = 300  # characters of an error's words
LARGEST = 1000  # bytes of an answer
PATIENCE_S = 60  # for a Python on a busy file system
PLACES = ("/tmp", "/dev/shm")  # noqa: S108 - only looked at

# Run in each Python in question, with the modules' names and perhaps our zip behind it.
LOOK = """
import importlib, json, sys
mark, names, zips = sys.argv[1], sys.argv[2].split(","), sys.argv[3:]
sys.path += zips
found = {}
for name in names:
    try:
        module = importlib.import_module(name)
        found[name] = str(getattr(module, "__version__", getattr(module, "VERSION", "")))
    except BaseException as error:
        found[name] = "error: " + type(error).__name__ + ": " + str(error)
version = ".".join(map(str, sys.version_info[:3]))
print(mark + json.dumps({"path": sys.executable, "version": version, "modules": found}))
"""


def main(asked: dict[str, Any]) -> None:
    """Look, try, tell."""
    names: list[str] = asked["modules"]
    report = {
        "token": asked["token"],
        "host": socket.gethostname(),
        "python": look(sys.executable, names, []),
        "functions": None,
        "addresses": [attempt(asked, address) for address in asked["addresses"]],
        "disk": {path: space(path) for path in (str(Path.cwd()), *PLACES) if Path(path).is_dir()},
        "limits": limits(),
    }
    if other := os.environ.get(PYTHON_VARIABLE):
        zips = [os.environ[ZIP_VARIABLE]] if ZIP_VARIABLE in os.environ else []
        report["functions"] = look(other, [name for name in names if name != PARSL], zips)
    line = json.dumps(report)
    reached = [entry["address"] for entry in report["addresses"] if "error" not in entry]
    if reached:
        with contextlib.suppress(OSError, ValueError):
            converse(asked, reached[0], "report " + line)
    sys.stdout.write(MARK + line + "\n")
    sys.stdout.flush()


def look(python: str, names: list[str], zips: list[str]) -> dict[str, Any]:
    """What the other Python can import."""
    command = [python, "-c", LOOK, MARK, ",".join(names), *zips]
    try:
        done = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, timeout=PATIENCE_S, check=False)
        found: dict[str, Any] = json.loads(done.stdout.decode("utf-8", "replace").rpartition(MARK)[2])
    except (OSError, subprocess.TimeoutExpired) as error:
        return {"path": python, "error": short(f"{type(error).__name__}: {error}")}
    except ValueError:
        return {"path": python, "error": short(done.stderr.decode("utf-8", "replace"))}
    return found


def attempt(asked: dict[str, Any], address: str) -> dict[str, Any]:
    """Ask for the time there."""
    begin = time.time()
    try:
        there = float(converse(asked, address, "time"))
    except (OSError, ValueError) as error:
        return {"address": address, "error": short(str(error) or type(error).__name__)}
    end = time.time()
    ahead = there - (begin + end) / 2
    return {"address": address, "latency_ms": round((end - begin) * 1000, 2), "ahead_s": round(ahead, 3)}


def converse(asked: dict[str, Any], address: str, words: str) -> str:
    """One line there, one line back; raises OSError, and ValueError for somebody else's answer."""
    with socket.create_connection((address, asked["port"]), asked["timeout_s"]) as peer:
        peer.sendall(f"doctor {asked['token']} {words}\n".encode())
        answer = b""
        while not answer.endswith(b"\n") and len(answer) < LARGEST:
            piece = peer.recv(LARGEST)
            if not piece:
                break
            answer += piece
    greeting, _, rest = answer.decode("utf-8", "replace").partition(" ")
    if greeting != "doctor":
        raise ValueError("somebody else answers there")
    return rest


def space(path: str) -> dict[str, Any]:
    """What is free there."""
    try:
        found = os.statvfs(path)
    except OSError as error:
        return {"error": short(str(error))}
    return {"free_bytes": found.f_bavail * found.f_frsize, "free_inodes": found.f_favail}


def limits() -> dict[str, Any]:
    """Of this process; None: there is none."""
    return {
        "open_files": soft(resource.RLIMIT_NOFILE),
        "processes": soft(resource.RLIMIT_NPROC),
        "memory_bytes": os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE"),
        "cores": len(os.sched_getaffinity(0)),
        "system": platform.platform(),
    }


def soft(number: int) -> int | None:
    value = resource.getrlimit(number)[0]
    return None if value == resource.RLIM_INFINITY else value


def short(text: str) -> str:
    return " ".join(text.split())[-LONGEST:]
