"""Submit a few functions with the official SDK and show what comes back.

    python examples/demo/tasks.py ENDPOINT_ID

The environment says which service to talk to and who asks (see `.demo/env` after `make demo KEEP=1`).
"""

from __future__ import annotations

import argparse
import collections
import sys
import time

import click
from globus_compute_sdk import Executor, ShellFunction
from globus_compute_sdk.errors import TaskExecutionFailed

MEGABYTE = 1_000_000
WAIT_S = 120


def greet(name):
    import os
    import platform

    return f"Hello, {name}! This is process {os.getpid()} on {platform.node()}, Python {platform.python_version()}."


def reverse(data):
    return data[::-1]


def divide(a, b):
    return a / b


def square(number):
    import os

    return number * number, os.getpid()


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("endpoint_id")
    parser.add_argument("--small", type=int, default=500, help="how many small tasks (default: 500)")
    arguments = parser.parse_args()
    # A hub of one's own needs none of the SDK's manners towards the public service.
    with Executor(endpoint_id=arguments.endpoint_id, batch_size=arguments.small, api_burst_limit=20) as executor:
        show_single_tasks(executor)
        show_small_tasks(executor, arguments.small)
    return 0


def show_single_tasks(executor: Executor) -> None:
    started = time.monotonic()
    data = bytes(range(250)) * (MEGABYTE // 250)
    greeting = executor.submit(greet, "world")
    reversed_data = executor.submit(reverse, data)
    failing = executor.submit(divide, 1, 0)
    shell = executor.submit(ShellFunction("echo $(whoami) runs $(uname -s)"))

    print(f"  a plain function    {greeting.result(WAIT_S)} ({since(started)})")
    back = reversed_data.result(WAIT_S)
    assert back == data[::-1], "the megabyte came back changed"
    print(f"  1 MB in and out     {len(data):,} bytes there, {len(back):,} bytes back, as expected ({since(started)})")
    try:
        failing.result(WAIT_S)
    except TaskExecutionFailed as error:
        last_line = str(error).strip().splitlines()[-1].strip()
        print(f"  one that raises     {last_line} ({since(started)})")
    else:
        sys.exit("the function that raises did not raise")
    answer = shell.result(WAIT_S)
    print(f"  a shell function    {answer.stdout.strip()!r}, exit status {answer.returncode} ({since(started)})")


def show_small_tasks(executor: Executor, count: int) -> None:
    started = time.monotonic()
    futures = [executor.submit(square, number) for number in range(count)]
    workers: collections.Counter[int] = collections.Counter()
    with click.progressbar(futures, label=f"  {count} small ones     ", file=sys.stdout) as bar:
        for number, future in enumerate(bar):
            squared, pid = future.result(WAIT_S)
            assert squared == number * number, f"{number} squared is not {squared}"
            workers[pid] += 1
    seconds = time.monotonic() - started
    where = ", ".join(f"{tasks} by process {pid}" for pid, tasks in sorted(workers.items()))
    print(f"                      all right: {where} ({seconds:.1f} s, {count / seconds:.0f} a second)")


def since(started: float) -> str:
    return f"{time.monotonic() - started:.2f} s"


if __name__ == "__main__":
    sys.exit(main())
