"""What one user of a multi-user endpoint does, with the official SDK alone; run by the SDK's own interpreter.

    python sdk_user.py SCENARIO ENDPOINT_ID [ARGUMENT...]

Prints one JSON object. The environment says which service to talk to and who asks.
"""

from __future__ import annotations

import json
import sys

from globus_compute_sdk import Client, Executor
from globus_sdk import GlobusAPIError

WAIT_S = 100


def facts_of_the_process():
    import contextlib
    import os
    import resource

    with open("/proc/self/status") as stream:
        status = dict(line.rstrip("\n").split(":\t", 1) for line in stream if ":\t" in line)
    descriptors = {}
    for name in os.listdir("/proc/self/fd"):
        with contextlib.suppress(OSError):
            descriptors[name] = os.readlink(f"/proc/self/fd/{name}")
    mask = os.umask(0)
    os.umask(mask)
    return {
        "pid": os.getpid(),
        "parent": os.getppid(),
        "uid": os.getresuid(),
        "gid": os.getresgid(),
        "groups": sorted(os.getgroups()),
        "limits": {name: resource.getrlimit(getattr(resource, f"RLIMIT_{name}")) for name in ("NOFILE", "CORE")},
        "environment": dict(os.environ),
        "cwd": os.getcwd(),
        "umask": mask,
        "capabilities": [status[f"Cap{name}"] for name in ("Inh", "Prm", "Eff", "Amb")],
        "session": os.getsid(0),
        "descriptors": descriptors,
    }


def held(number, gate, ledger):
    """Says that it began, waits for the gate, says that it ends."""
    import os
    import time

    with open(ledger, "a") as stream:
        stream.write(f"{number} began\n")
    deadline = time.monotonic() + 90
    while not os.path.exists(gate) and time.monotonic() < deadline:
        time.sleep(0.02)
    with open(ledger, "a") as stream:
        stream.write(f"{number} ended\n")
    return number, os.getpid()


def written_into_pipes(lines):
    """Writes into every pipe of its process that takes it, as a user could who wants to appear as another one."""
    import os
    import stat
    import time

    written = 0
    for name in os.listdir("/proc/self/fd"):
        for line in lines:
            for _ in range(100):
                try:
                    if stat.S_ISFIFO(os.fstat(int(name)).st_mode):
                        written += os.write(int(name), line.encode()) > 0
                    break
                except BlockingIOError:
                    time.sleep(0.01)
                except OSError:
                    break
    return os.getpid(), written


def forge(endpoint_id, *lines):
    """A function that writes lines where the audit lines go."""
    with Executor(endpoint_id=endpoint_id) as executor:
        pid, written = executor.submit(written_into_pipes, lines).result(WAIT_S)
        return {"pid": pid, "written": written}


def register(endpoint_id):
    """Functions that may be allowed, by what they are called for."""
    client = Client()
    return {
        "facts": client.register_function(facts_of_the_process),
        "numbers": client.register_function(sum_of_numbers),
        "words": client.register_function(word),
    }


def sum_of_numbers():
    return 1 + 2


def word():
    return "word"


def call(endpoint_id, function_id):
    """Runs a registered function: its result, or what was wrong."""
    try:
        with Executor(endpoint_id=endpoint_id) as executor:
            return {"result": executor.submit_to_registered_function(function_id).result(WAIT_S)}
    except GlobusAPIError as error:
        return {"status": error.http_status, "text": error.text}
    except Exception as error:
        return {"error": str(error)}


def facts(endpoint_id):
    """What a function sees of the process that it runs in."""
    with Executor(endpoint_id=endpoint_id) as executor:
        return executor.submit(facts_of_the_process).result(WAIT_S)


def hold(endpoint_id, first, count, gate, ledger):
    """Many functions at once, which wait for a file."""
    with Executor(endpoint_id=endpoint_id) as executor:
        numbers = range(int(first), int(first) + int(count))
        futures = [executor.submit(held, number, gate, ledger) for number in numbers]
        return {"results": [future.result(WAIT_S) for future in futures]}


def misplaced(endpoint_id):
    """A task that the engine has no place for: its id, and what was wrong."""
    with Executor(endpoint_id=endpoint_id, resource_specification={"num_nodes": 7, "ranks_per_node": 3}) as executor:
        future = executor.submit(word)
        return {"error": str(future.exception(WAIT_S)), "task": str(future.task_id)}


def refused(endpoint_id):
    """A submission that is answered with an error."""
    client = Client()
    batch = client.create_batch()
    batch.add(client.register_function(facts_of_the_process), args=())
    try:
        client.batch_run(endpoint_id, batch)
    except GlobusAPIError as error:
        return {"status": error.http_status, "text": error.text}
    return {"status": 200, "text": ""}


def main():
    _, scenario, *arguments = sys.argv
    print(json.dumps(globals()[scenario](*arguments)))


if __name__ == "__main__":
    main()
