"""What is measured: our user endpoint and the official one, with the same configuration, as processes."""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any

from bench.figures import OFFICIAL, OURS
from bench.processes import Tree, seconds_until_exit
from endpoint.config.checked import checked_config
from tests.support.user_endpoint import Queues, UserEndpointProcess

REPOSITORY = Path(__file__).resolve().parent.parent
# Neither has more packages than its requirements: Parsl loads many packages for the only reason that they are there,
# and in each of its processes, so the environment of development would be measured instead of the endpoint.
OURS_BIN = REPOSITORY / ".venvs" / "agent" / "bin"
OFFICIAL_BIN = REPOSITORY / ".venvs" / "peer-endpoint" / "bin"
STOP_PATIENCE_S = 20.0
WORKERS = 2
BEGAN = time.monotonic()

ENGINES = {
    "thread": f"engine:\n  type: ThreadPoolEngine\n  max_workers: {WORKERS}\n",
    "process": f"engine:\n  type: ProcessPoolEngine\n  max_workers: {WORKERS}\n",
    "parsl": (
        f"engine:\n  type: GlobusComputeEngine\n  max_workers_per_node: {WORKERS}\n  address: 127.0.0.1\n"
        "  encrypted: true\n"
        "  provider:\n    type: LocalProvider\n    init_blocks: 1\n    min_blocks: 1\n    max_blocks: 1\n"
    ),
}


@dataclass(frozen=True)
class Side:
    """One of the two programs that are compared."""

    name: str
    program: Path

    @property
    def python(self) -> Path:
        """The interpreter of the program's environment."""
        return self.program.parent / "python"


def both_sides(ours: Path = OURS_BIN, official: Path = OFFICIAL_BIN) -> list[Side]:
    """Ours and the official one, from the folders with their programs."""
    return [Side(name, folder / "globus-compute-endpoint") for name, folder in ((OURS, ours), (OFFICIAL, official))]


def client_url(url: str) -> str:
    """The broker's URL for the client, whose connection answers no heartbeats while it waits for something else."""
    return f"{url}?heartbeat=0"


def as_its_manager(side: Side, config: str) -> dict[str, Any]:
    """What each manager adds to the start document: ours hands over the configuration that it has checked, too."""
    return {"checked": checked_config(config, "the benchmark's configuration")} if side.name == OURS else {}


class Endpoint:
    """One user endpoint with queues and a directory of its own. A context manager: nothing is left afterwards.

    It is started by `spawn`, not on entering, as tasks may have to wait in the queue before.
    """

    def __init__(self, url: str, side: Side, engine: str) -> None:
        self.side = side
        self.engine = engine
        self.queues = Queues(client_url(url), endpoint_url=url)
        self._started: UserEndpointProcess | None = None
        self._asked_to_end = False

    def __enter__(self) -> Endpoint:
        self.directory = Path(tempfile.mkdtemp(prefix="bench-"))
        try:
            self.queues.__enter__()
        except BaseException:
            shutil.rmtree(self.directory, ignore_errors=True)
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        try:
            if error is not None and self._started is not None:
                say(f"The end of the log of {self.side.name}, {self.engine}:\n{self._started.log[-2000:]}")
            self.end()
        finally:
            with contextlib.suppress(Exception):  # a broker that is gone has no queues to delete
                self.queues.__exit__()
            shutil.rmtree(self.directory, ignore_errors=True)

    def spawn(self) -> float:
        """Start the process; returns the monotonic time just before."""
        config = ENGINES[self.engine] + "heartbeat_period: 30\n"
        command = [str(self.side.program)]
        self._started = UserEndpointProcess(
            self.queues, self.directory, config=config, command=command, **as_its_manager(self.side, config)
        )
        began = time.monotonic()
        self._started.start()
        return began

    @property
    def tree(self) -> Tree:
        return Tree(self.process.pid, self.directory)

    @property
    def process(self) -> subprocess.Popen[bytes]:
        if self._started is None:
            raise RuntimeError("the endpoint is not started yet")
        return self._started.process

    def ask_to_end(self) -> None:
        """Send SIGTERM, once: a second one may make a program leave its processes behind."""
        if not self._asked_to_end:
            self._asked_to_end = True
            self.process.terminate()

    def terminate(self) -> float | None:
        """Send SIGTERM if that was not done yet; seconds until the process ends, None if it has to be killed."""
        self.ask_to_end()
        seconds = seconds_until_exit(self.process, STOP_PATIENCE_S)
        if seconds is None:
            self.process.kill()
        self.process.wait()
        return seconds

    def end(self) -> None:
        """End what still runs of it."""
        if self._started is None:
            return
        tree = self.tree
        if self.process.poll() is None:
            self.terminate()
        if left := tree.end():
            say(f"{self.side.name}, {self.engine}: {left} processes outlived their endpoint and were killed")


@contextlib.contextmanager
def compiled_modules() -> Iterator[None]:
    """Meanwhile processes keep their compiled modules, in a folder of the run, as installed programs do."""
    before = dict(os.environ)
    with tempfile.TemporaryDirectory(prefix="bench-compiled-", ignore_cleanup_errors=True) as folder:
        os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
        os.environ["PYTHONPYCACHEPREFIX"] = folder
        try:
            yield
        finally:
            os.environ.clear()
            os.environ.update(before)


def say(text: str) -> None:
    """Tell how far the run is, with the seconds since its start; standard output is for the table."""
    print(f"{time.monotonic() - BEGAN:6.1f} s  {text}", file=sys.stderr, flush=True)
