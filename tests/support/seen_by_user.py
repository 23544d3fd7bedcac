"""What a keeper starts in tests: reports what it sees, then does what its document asks for.

The document is JSON: `report` (a file to write), and `do`: "run" (until SIGTERM), "fail", "garbage", "die", "leave"
(a process of its own that hears no SIGTERM), "flood", "stop", "bomb" (what somebody does
who means harm), "audit" (a line of audit, then as "run"). Run as a program by the user, so
it needs nothing but Python.
"""

from __future__ import annotations

import json
import os
import resource
import signal
import sys
import time
from pathlib import Path


def main() -> None:
    document = json.loads(os.read(0, 1_000_000))
    if "report" in document:
        Path(document["report"]).write_text(json.dumps(seen()))
    do = document.get("do", "run")
    if do == "fail":
        failure = {"stage": "render", "code": "BAD", "mender": "user", "retry": False}
        os.write(
            3, json.dumps({**failure, "reason": "It does not fit", "hint": "", "detail": "for the admin"}).encode()
        )
        sys.exit(116)
    if do == "garbage":
        os.write(3, b"\xff{" + b"x" * 100_000)
        sys.exit(116)
    if do == "leave":
        leave()
    if do == "flood":
        flood()
    if do == "stop":
        os.kill(os.getpid(), signal.SIGSTOP)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    os.close(3)  # from here on it runs
    if do == "die":
        sys.exit(7)
    if do == "bomb":
        bomb(document["processes"])
    if do == "audit":
        os.write(5, document["line"].encode())
    while True:
        signal.pause()


def leave() -> None:
    """A grandchild in a session of its own, as a program that goes into the background has it."""
    if os.fork() == 0:
        os.setsid()
        if os.fork() == 0:
            signal.signal(signal.SIGTERM, signal.SIG_IGN)
            os.close(3)
            time.sleep(600)
        os._exit(0)


def flood() -> None:
    """Tell a failure without end."""
    while True:
        try:
            os.write(3, b"{" * 65536)
        except OSError:
            time.sleep(600)


def bomb(processes: int) -> None:
    """As many processes as may be, each of which makes others for as long as it lives."""
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_NPROC, (processes, processes))
    while True:
        try:
            os.fork()
        except OSError:
            time.sleep(0.001)


def seen() -> dict[str, object]:
    """Everything about this process that the tests ask for."""
    os.umask(mask := os.umask(0))
    status = dict(line.split(":\t", 1) for line in Path("/proc/self/status").read_text().splitlines() if ":\t" in line)
    limits = {name: resource.getrlimit(getattr(resource, name)) for name in dir(resource) if name.startswith("RLIMIT_")}
    return {
        "pid": os.getpid(),
        "uids": os.getresuid(),
        "gids": os.getresgid(),
        "groups": sorted(os.getgroups()),
        "limits": limits,
        "environment": dict(os.environ),
        "directory": os.getcwd(),
        "umask": mask,
        "session": os.getsid(0),
        "capabilities": {name: status[name] for name in status if name.startswith("Cap")},
        "no_new_privileges": status["NoNewPrivs"],
        "blocked": status["SigBlk"],
        "ignored": status["SigIgn"],
        "descriptors": {name: target(name) for name in sorted(os.listdir("/proc/self/fd"), key=int)},
        "arguments": sys.argv[1:],
        "credentials": os.pread(4, 1000, 0).decode(),
    }


def target(name: str) -> str:
    try:
        return os.readlink(f"/proc/self/fd/{name}")
    except OSError:
        return ""  # the listing's own


main()
