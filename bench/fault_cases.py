"""The faults: what each one makes ready, and what it does to an endpoint that is at work."""

from __future__ import annotations

import contextlib
import os
import signal
import time
from collections.abc import Iterator
from pathlib import Path

from bench import fault_work
from bench.fault_endpoint import Memory, command_line
from bench.fault_places import JumpingClock, OwnNetwork, PlaceMissing, fill, small_disk
from bench.fault_run import Fault, Inject, Prepare, Run, Setting
from tests.support.proxy import Proxy

TERMINATE_S = 60.0  # then an endpoint that was asked to end is killed
AWAY_S = 5.0  # how long a broker, a disk or new credentials are waited for
BUSY_S = 10.0
CUTS = (0.0, 0.3, 0.3, 0.5, 0.7)  # seconds before each cut
SILENCE_S = 75.0
HOUR_S = 3600
JUMP_S = 1.0  # how long the clock is wrong each time
DISK = 16 * 2**20  # bytes; Parsl's logs are a few of them, and an endpoint may want room for tasks before it starts
CONSUMER_TIMEOUT_MS = 2000


def plain(inject: Inject) -> Prepare:
    """A fault that needs nothing made ready."""

    @contextlib.contextmanager
    def prepare(_setting: Setting) -> Iterator[Inject]:
        yield inject

    return prepare


def kill_endpoint(run: Run) -> None:
    run.about_to_end()
    run.endpoint.kill()
    run.ended()
    run.restart()


def kill_manager(run: Run) -> None:
    run.about_to_end()
    run.endpoint.kill_manager()
    run.ended()
    run.restart()


def terminate(run: Run) -> None:
    run.about_to_end()
    run.terminate_s = run.endpoint.terminate(TERMINATE_S)
    run.ended()
    run.restart()


def kill_worker(run: Run) -> None:
    """Kill a process that runs a task now; a task may end between the look and the kill, so several looks."""
    deadline = time.monotonic() + BUSY_S
    while time.monotonic() < deadline:
        for pid in reversed(list(run.notes.running.values())):
            if pid != run.endpoint.pid and pid in run.endpoint.processes():
                os.kill(pid, signal.SIGKILL)
                run.restored()
                return
    raise RuntimeError("No process of the engine was seen running a task")


def kill_interchange(run: Run) -> None:
    named = [pid for pid in run.endpoint.processes() if "interchange" in command_line(pid)]
    if not named:
        raise RuntimeError("No interchange was found among the endpoint's processes")
    os.kill(max(named), signal.SIGKILL)  # one that only watches another was started before it
    run.restored()


def stop_broker(run: Run) -> None:
    run.setting.broker.stop()
    time.sleep(AWAY_S)
    run.setting.broker.start()
    run.restored()


def restart_broker(run: Run) -> None:
    run.setting.broker.stop()
    run.setting.broker.start()
    run.restored()


def kill_broker(run: Run) -> None:
    run.setting.broker.kill()
    run.setting.broker.start()
    run.restored()


def nothing(run: Run) -> None:
    """The tasks themselves, or the broker's options, are the fault."""
    run.restored()


@contextlib.contextmanager
def cut_connection(setting: Setting) -> Iterator[Inject]:
    with Proxy(setting.broker.port) as proxy:
        setting.endpoint_url = _moved(setting, "127.0.0.1", proxy.port)

        def inject(run: Run) -> None:
            for pause in CUTS:
                time.sleep(pause)
                proxy.cut()
            run.restored()

        yield inject


def silent_loss(seconds: float) -> Prepare:
    """The network is dead for so long, and tells nobody."""

    @contextlib.contextmanager
    def prepare(setting: Setting) -> Iterator[Inject]:
        with OwnNetwork(setting.broker.port) as network:
            setting.prefix = network.prefix
            setting.endpoint_url = _moved(setting, network.address, network.port)

            def inject(run: Run) -> None:
                network.down()
                time.sleep(seconds)
                network.up()
                run.restored()

            yield inject

    return prepare


@contextlib.contextmanager
def revoke_credentials(setting: Setting) -> Iterator[Inject]:
    """The endpoint's broker user is deleted; a moment later there is another one in the memory file."""
    broker = setting.broker
    users = [broker.add_user()]
    setting.endpoint_url = broker.url(*users[0])

    def inject(run: Run) -> None:
        broker.revoke(users[0][0])
        time.sleep(AWAY_S)
        users.append(broker.add_user())
        run.client.endpoint_url = broker.url(*users[1])
        memory.store(run.client.registration())
        run.restored()

    try:
        with Memory() as memory:
            setting.memory = memory
            yield inject
    finally:
        for name, _password in users:
            broker.delete_user(name)


def full_disk(*, kill: bool) -> Prepare:
    """No byte can be written to the endpoint's directory for a while; then, with `kill`, it is killed as well."""

    @contextlib.contextmanager
    def prepare(setting: Setting) -> Iterator[Inject]:
        with small_disk(setting.home, DISK):

            def inject(run: Run) -> None:
                filler = setting.home / "filler"
                fill(filler)
                time.sleep(AWAY_S)
                filler.unlink()
                run.restored()
                if kill:
                    kill_endpoint(run)

            yield inject

    return prepare


@contextlib.contextmanager
def jumping_clock(setting: Setting) -> Iterator[Inject]:
    clock = JumpingClock(setting.root)
    setting.environment.update(clock.environment)

    def inject(run: Run) -> None:
        for jump in (HOUR_S, -HOUR_S, 0):
            clock.jump(jump)
            time.sleep(JUMP_S)
        run.restored()

    yield inject


def _moved(setting: Setting, host: str, port: int) -> str:
    return setting.endpoint_url.replace(f"127.0.0.1:{setting.broker.port}", f"{host}:{port}")


def garbage(items: list[fault_work.Item], _path: Path, _seconds: float) -> list[fault_work.Item]:
    return fault_work.with_garbage(items)


PROCESSES = ("process", "parsl")


def all_faults(silence_s: float = SILENCE_S) -> dict[str, Fault]:
    """The table of faults, by name, in the order in which they are run."""
    timeout = {"consumer_timeout": CONSUMER_TIMEOUT_MS, "channel_tick_interval": 1000}
    faults = (
        Fault("kill-endpoint", "kill -9 of the endpoint, started again at once", plain(kill_endpoint)),
        Fault("kill-endpoint-retry", "the same, with one retry allowed", plain(kill_endpoint), retries=1),
        Fault("kill-worker", "kill -9 of a process that runs a task", plain(kill_worker), PROCESSES),
        Fault("kill-interchange", "kill -9 of Parsl's interchange", plain(kill_interchange), ("parsl",), limit_s=60),
        Fault("kill-manager", "kill -9 of the manager, another one at once", plain(kill_manager), under_manager=True),
        Fault("terminate", "SIGTERM, then a start", plain(terminate)),
        Fault("broker-away", "the broker stops for five seconds", plain(stop_broker)),
        Fault("broker-restart", "the broker is restarted", plain(restart_broker)),
        Fault("broker-kill", "kill -9 of the broker, started again", plain(kill_broker)),
        Fault("cut", "five connections in a row are cut", cut_connection),
        Fault("silence", "the network is silently dead", silent_loss(silence_s), limit_s=90),
        Fault("credentials", "the broker's user is deleted, another one comes", revoke_credentials, limit_s=60),
        Fault(
            "consumer-timeout",
            "tasks take longer than the broker waits for an acknowledgement",
            plain(nothing),
            seconds=4.0,
            share=0.04,
            broker=timeout,
            limit_s=60,
        ),
        Fault("disk-full", "the endpoint's disk is full for five seconds", full_disk(kill=False), seconds=0.3),
        Fault("disk-full-kill", "the same, and kill -9 after it", full_disk(kill=True), seconds=0.3),
        Fault("clock", "the wall clock jumps an hour on, two back", jumping_clock, seconds=0.1),
        Fault("garbage", "one message in four is garbage", plain(nothing), spoil=garbage),
        Fault("deadly-task", "two tasks end their process", plain(nothing), spoil=fault_work.with_deadly, limit_s=45),
    )
    return {fault.name: fault for fault in faults}


def faults_of(names: list[str] | None, silence_s: float = SILENCE_S) -> list[Fault]:
    """The faults with these names, or all; raises PlaceMissing for a name that there is none of."""
    table = all_faults(silence_s)
    if unknown := set(names or ()) - set(table):
        raise PlaceMissing(f"There is no fault {', '.join(sorted(unknown))}; there are {', '.join(table)}")
    return [fault for name, fault in table.items() if not names or name in names]
