"""What no endpoint can be faster than: an echo over the same broker, and the library under the parsl engine alone."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

from bench.cases import Settings, big, latencies, throughput
from bench.figures import ECHO, NO_ENGINE, RAW_PARSL, Results
from bench.processes import MARK, Tree
from bench.sides import REPOSITORY, STOP_PATIENCE_S, client_url
from tests.support.user_endpoint import Queues

RAW_PARSL_TIMEOUT_S = 600.0


def measure_echo(results: Results, url: str, settings: Settings, round_number: int) -> None:
    """A process that sends each message back, through the cases that an endpoint goes through."""

    def lose(count: int) -> None:
        results.lose(ECHO, count)

    with (
        Queues(client_url(url)) as queues,
        _child("bench.echo", _echo_document(url, queues), Path(sys.executable)) as (_, tree),
    ):
        found = [latencies(queues, settings.latency, settings.paused)] if "latency" in settings.cases else []
        if "throughput" in settings.cases:
            found += throughput(queues, tree, settings, lose)
        if "big" in settings.cases:
            found.append(big(queues, tree, settings.big, lose))
    for values in found:
        results.add(NO_ENGINE, ECHO, round_number, values)


def measure_raw_parsl(results: Results, settings: Settings, round_number: int, side: str, python: Path) -> None:
    """The executor in a process of its own, which measures itself.

    side: RAW_PARSL or RAW_PARSL_PLAIN; python: the interpreter of our endpoint's environment.
    """
    wanted = {
        "encrypted": side == RAW_PARSL,
        "latency": settings.latency if "latency" in settings.cases else 0,
        "burst": settings.burst if "throughput" in settings.cases else 0,
        "bursts": settings.bursts,
        "big": settings.big if "big" in settings.cases else 0,
        "idle": "idle" in settings.cases,
    }
    with _child("bench.raw_parsl", wanted, python) as (process, _):
        answer, _ = process.communicate(timeout=RAW_PARSL_TIMEOUT_S)
        if process.returncode:
            raise RuntimeError(f"raw Parsl ended with status {process.returncode}")
    for values in json.loads(answer):
        results.add(NO_ENGINE, side, round_number, values)


def _echo_document(url: str, queues: Queues) -> list[str]:
    """What `echo` reads; the URL has the broker's password, so it does not stand on a command line."""
    return [url, queues.task, queues.exchange, queues.result]


@contextlib.contextmanager
def _child(module: str, document: object, python: Path) -> Iterator[tuple[subprocess.Popen[bytes], Tree]]:
    """A module of ours as a process with `document` as JSON on its standard input, in a directory of its own."""
    directory = Path(tempfile.mkdtemp(prefix="bench-floor-"))
    environment = {
        **os.environ,
        MARK: str(directory),
        "PYTHONPATH": str(REPOSITORY),
        "PATH": f"{python.parent}:{os.environ['PATH']}",  # the executor starts its helpers by name
    }
    process = subprocess.Popen(
        [str(python), "-m", module],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        cwd=directory,
        env=environment,
        start_new_session=True,
    )
    tree = Tree(process.pid, directory)
    try:
        assert process.stdin is not None
        process.stdin.write(json.dumps(document).encode())
        process.stdin.close()
        process.stdin = None  # or communicate() would close it once more
        yield process, tree
    finally:
        if process.poll() is None:
            process.terminate()
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(STOP_PATIENCE_S)
        tree.end(patience=2.0)
        process.wait()
        if process.stdout is not None:
            process.stdout.close()
        shutil.rmtree(directory, ignore_errors=True)
