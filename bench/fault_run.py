"""One run: an endpoint with tasks in flight, a fault, and the watch over it until nothing more can come."""

from __future__ import annotations

import contextlib
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from pathlib import Path

from bench import fault_work
from bench.fault_broker import FaultBroker
from bench.fault_client import FaultClient
from bench.fault_endpoint import FaultEndpoint, Memory, Seen, remaining
from bench.fault_work import Item, Notes

HEARTBEAT_S = 5  # the shortest that both endpoints take
ENGINES = {
    "thread": "engine:\n  type: ThreadPoolEngine\n  max_workers: 2\n",
    "process": "engine:\n  type: ProcessPoolEngine\n  max_workers: 2\n",
    "parsl": (
        "engine:\n  type: GlobusComputeEngine\n  max_workers_per_node: 2\n  address: 127.0.0.1\n"
        "  provider:\n    type: LocalProvider\n    init_blocks: 1\n    min_blocks: 1\n    max_blocks: 1\n"
    ),
}
FIRST_HEARTBEAT_S = 60.0
FIRST_ANSWERS_S = 60.0
RESTART_S = 100.0  # how long a start that is refused is tried again
RESTART_PAUSE_S = 2.0
LEFT_S = 10.0  # how long an engine's processes may outlive the endpoint
STOP_S = 60.0
MOST_ENDS = 8  # an endpoint that ends more often by itself is in a loop
DOUBLES_S = 1.5  # how long a second answer to a task is waited for at the end
MAIN_TURN_S = 0.1
FEWEST_TASKS = 8


@dataclass
class Setting:
    """Where the endpoint of a run lives; a fault's preparation may change it before the start.

    root: the run's directory. home: the endpoint's (GLOBUS_COMPUTE_USER_DIR). endpoint_url: its way to the broker.
    """

    root: Path
    home: Path
    engine: str
    broker: FaultBroker
    endpoint_url: str
    prefix: list[str] = field(default_factory=list)
    environment: dict[str, str] = field(default_factory=dict)
    memory: Memory | None = None


@dataclass
class Times:
    """Moments of the monotonic clock in seconds; None for what did not happen.

    fault: when it began. back: when what was taken away was there again (or the endpoint started anew). up: the first
    heartbeat after that. settled: when the last task was answered, or nothing came any more.
    """

    fault: float = 0.0
    back: float | None = None
    up: float | None = None


class Run:
    """What a fault works with: the endpoint, its broker, and how to bring things back."""

    def __init__(self, setting: Setting, client: FaultClient, endpoint: FaultEndpoint, items: list[Item]) -> None:
        self.setting = setting
        self.client = client
        self.endpoint = endpoint
        self.items = items
        self.notes_file = setting.root / "notes"
        self.times = Times()
        self.under_manager = False
        self.starts_refused = 0
        self.ends = 0  # how often it ended by itself after the fault
        self.terminate_s: float | None = None
        self.left_running: Seen = {}
        self.left_after_stop: Seen = {}
        self._before_kill: Seen = {}
        self._killed_at = 0.0

    @property
    def notes(self) -> Notes:
        return Notes.read(self.notes_file)

    @property
    def expected(self) -> set[str]:
        """The ids of all tasks that must be answered."""
        return {item.task_id for item in self.items if item.task_id}

    def start(self) -> bool:
        """Start the endpoint; whether its first heartbeat came before its end."""
        self.endpoint.start(under_manager=self.under_manager)
        deadline = time.monotonic() + FIRST_HEARTBEAT_S
        while self.endpoint.alive and time.monotonic() < deadline:
            if self.client.wait(lambda: self._beat_after(self.endpoint.spawned_at) is not None, MAIN_TURN_S):
                return True
        return False

    def restart(self) -> None:
        """Start the endpoint again, trying for a while where that is refused."""
        self.times.up = None
        deadline = time.monotonic() + RESTART_S
        while True:
            tried_at = time.monotonic()
            self.times.back = tried_at
            if self.start():
                self.times.up = self._beat_after(self.endpoint.spawned_at)
                return
            if self.endpoint.alive:  # it runs, and says nothing
                self.endpoint.kill()
            self.starts_refused += 1
            if time.monotonic() > deadline:
                return
            time.sleep(max(0.0, tried_at + RESTART_PAUSE_S - time.monotonic()))

    def restored(self) -> None:
        """To be called when what the fault took away is there again."""
        self.times.back = time.monotonic()

    def about_to_end(self) -> None:
        """To be called just before the endpoint is made to end: its processes must be gone soon after it."""
        self._before_kill = self.endpoint.processes()

    def ended(self) -> None:
        """To be called just after the endpoint's end."""
        self._killed_at = time.monotonic()

    def settle(self, limit_s: float) -> None:
        """Watch until every task is answered, or none was for `limit_s` seconds while all was up."""
        last_progress = time.monotonic()
        answered = 0
        while missing := self.expected - self.client.answered():
            if not self.endpoint.alive:
                if not self._revive():
                    break
                last_progress = time.monotonic()
            if len(self.expected) - len(missing) > answered:
                answered, last_progress = len(self.expected) - len(missing), time.monotonic()
            if time.monotonic() - last_progress > limit_s:
                break
            self.client.wait(lambda: self.expected <= self.client.answered(), MAIN_TURN_S)
        if self._killed_at:
            patience = self._killed_at + LEFT_S - time.monotonic()
            self.left_running = remaining(self._before_kill, max(0.0, patience))
        self._note_first_heartbeat()
        time.sleep(DOUBLES_S)

    def finish(self) -> None:
        """Stop the endpoint politely, and look what of it runs on."""
        if self.endpoint.alive:
            self.endpoint.terminate(STOP_S)
        self.left_after_stop = remaining(self.endpoint.processes(), LEFT_S)

    def _revive(self) -> bool:
        self.ends += 1
        if self.ends > MOST_ENDS:
            return False
        self.restart()
        return self.times.up is not None

    def _note_first_heartbeat(self) -> None:
        back = self.times.back
        if self.times.up is None and back is not None and self.endpoint.alive:
            self.client.wait(lambda: self._beat_after(back) is not None, 2.0 * HEARTBEAT_S)
            self.times.up = self._beat_after(back)

    def _beat_after(self, moment: float) -> float | None:
        """When the first heartbeat of the process that runs now came, of those after `moment`."""
        for beat in list(self.client.beats):
            of_ours = beat.state.get("posix_pid") in (None, self.endpoint.pid)
            if beat.at > moment and of_ours and beat.state.get("active") is not False and "error" not in beat.state:
                return beat.at
        return None


Inject = Callable[[Run], None]
Prepare = Callable[[Setting], AbstractContextManager[Inject]]


@dataclass(frozen=True)
class Fault:
    """One thing that can go wrong.

    prepare: makes the place ready and gives what is to be done when a quarter of the results is there.
    seconds: how long each task takes. share: of the tasks asked for, how many this fault is run with.
    broker: options of RabbitMQ's application that this fault needs.
    limit_s: after how long without an answer, with all up, the missing ones are lost.
    spoil: what to mix into the tasks. under_manager: start the endpoint by a process of its own.
    retries: how often the engine may run a task again that was interrupted.
    """

    name: str
    says: str
    prepare: Prepare
    engines: tuple[str, ...] = ("thread", "process", "parsl")
    seconds: float = 0.05
    share: float = 1.0
    broker: Mapping[str, int] = field(default_factory=dict)
    limit_s: float = 30.0
    spoil: Callable[[list[Item], Path, float], list[Item]] | None = None
    under_manager: bool = False
    retries: int = 0

    @property
    def may_run_twice(self) -> bool:
        return self.retries > 0

    def config(self, engine: str) -> str:
        """The endpoint's configuration."""
        retries = f"  max_retries_on_system_failure: {self.retries}\n" if self.retries else ""
        return f"{ENGINES[engine]}{retries}heartbeat_period: {HEARTBEAT_S}\n"


@contextlib.contextmanager
def run_fault(fault: Fault, engine: str, program: Path, broker: FaultBroker, tasks: int) -> Iterator[Run]:
    """Run an endpoint through a fault to the end; what became of it. All is taken down when the context ends."""
    with contextlib.ExitStack() as stack:
        root = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="fault-", ignore_cleanup_errors=True)))
        home = root / "home"
        home.mkdir(mode=0o700)
        setting = Setting(root, home, engine, broker, broker.url())
        inject = stack.enter_context(fault.prepare(setting))
        client = stack.enter_context(FaultClient(broker.url(), setting.endpoint_url))
        if setting.memory:
            setting.memory.store(client.registration())
        endpoint = stack.enter_context(
            FaultEndpoint(
                program,
                client.registration,
                home,
                fault.config(engine),
                prefix=setting.prefix,
                environment=setting.environment,
                memory=setting.memory,
                log=root / "output",
            )
        )
        items = fault_work.tasks(root / "notes", max(FEWEST_TASKS, round(tasks * fault.share)), fault.seconds)
        if fault.spoil:
            items = fault.spoil(items, root / "notes", fault.seconds)
        run = Run(setting, client, endpoint, items)
        _go(run, fault, inject)
        yield run


def _go(run: Run, fault: Fault, inject: Inject) -> None:
    run.under_manager = fault.under_manager
    if not run.start():
        said = log_of(run).strip()
        raise RuntimeError(f"The endpoint did not start: {said.rpartition(chr(10))[2]}\n{said}")
    run.client.publish([item.message for item in run.items])
    quarter = len(run.items) // 4
    run.client.wait(lambda: len(run.client.answers) >= quarter, FIRST_ANSWERS_S)
    run.times.fault = time.monotonic()
    inject(run)
    run.settle(fault.limit_s)
    run.finish()


def log_of(run: Run) -> str:
    """The last words of the endpoint, for a failure's message."""
    files = [run.setting.home / "uep" / "endpoint.log", run.setting.root / "output"]
    return "\n".join(file.read_text(errors="replace")[-4000:] for file in files if file.exists())
