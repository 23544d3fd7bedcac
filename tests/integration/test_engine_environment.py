"""What a task finds around it on each engine, and how many workers there are for tasks, as the options say."""

from __future__ import annotations

import os
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest
import zmq
import zmq.auth
from zmq.utils.monitor import parse_monitor_message

from endpoint.engines.base import Engine
from endpoint.engines.build import build_engine
from endpoint.errors import EngineFailure, TaskLost
from tests.support.engine_blocks import engine_block
from tests.support.engine_tasks import source_task, value_of
from tests.support.waiting import wait_for

FIRST_RESULT = 60  # seconds, on a machine that has other things to do
ENGINES = ["ThreadPoolEngine", "ProcessPoolEngine", "GlobusComputeEngine"]


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Callable[..., Engine]]:
    started: list[Engine] = []

    def make(kind: str = "GlobusComputeEngine", **options: Any) -> Engine:
        if kind == "GlobusComputeEngine":
            options = {"heartbeat_period": 1, **options}
        started.append(build_engine(engine_block(type=kind, **options)))
        started[-1].start(endpoint_id=str(uuid.uuid4()), run_dir=tmp_path, on_failure=print)
        return started[-1]

    yield make
    for engine in started:
        engine.shutdown()


# Waits until as many workers as there shall be run this at the same time, and tells what each has got.
TOGETHER = """
def together(folder, number):
    import os, pathlib, time
    place = pathlib.Path(folder)
    (place / str(os.getpid())).touch()
    while len(list(place.iterdir())) < number:
        time.sleep(0.01)
    names = ["CUDA_VISIBLE_DEVICES", "ROCR_VISIBLE_DEVICES", "ZE_AFFINITY_MASK"]
    return [os.environ.get(name) for name in names], sorted(os.sched_getaffinity(0))
"""


def on_all_workers(engine: Engine, folder: Path, number: int) -> list[tuple[list[str | None], list[int]]]:
    folder.mkdir()
    futures = [engine.submit(source_task("together", TOGETHER, str(folder), number)) for _ in range(number)]
    return [tuple(value_of(future.result(FIRST_RESULT))) for future in futures]


@pytest.mark.parametrize(
    ("given", "names"), [(2, ["0", "1"]), (["GPU-8a3f:0", 7, "a name's"], ["GPU-8a3f:0", "7", "a name's"])]
)
def test_each_worker_is_bound_to_an_accelerator_of_its_own_by_all_three_makers_variables(start, tmp_path, given, names):
    engine = start(available_accelerators=given, cores_per_worker=0.1)

    found = [variables for variables, _ in on_all_workers(engine, tmp_path / "together", len(names))]

    assert sorted(found) == sorted([[name] * 3 for name in names])
    assert wait_for(lambda: engine.status()["total_workers"] == len(names)), "the keeper looks once a second"


def test_without_accelerators_a_worker_keeps_what_the_node_says_of_them(start, tmp_path, monkeypatch):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "3")

    [(variables, _)] = on_all_workers(start(max_workers_per_node=1), tmp_path / "together", 1)

    assert variables[0] == "3"


CORES = sorted(os.sched_getaffinity(0))
SHARE = len(CORES) // 2


@pytest.mark.parametrize(
    ("affinity", "shares"),
    [
        ("block", [CORES[:SHARE], CORES[SHARE : 2 * SHARE]]),
        ("alternating", [CORES[0::2], CORES[1::2]]),
        (f"list:{CORES[0]},{CORES[1]}:{CORES[1]}", [CORES[:2], CORES[1:2]]),
    ],
)
def test_workers_are_bound_to_the_cores_that_cpu_affinity_gives_them(start, tmp_path, affinity, shares):
    engine = start(cpu_affinity=affinity, max_workers_per_node=2)

    assert sorted(cores for _, cores in on_all_workers(engine, tmp_path / "together", 2)) == sorted(shares)


# As Parsl counts: the cores that this process may use, and the memory that is free.
@pytest.mark.parametrize(
    ("option", "worth", "workers"),
    [
        ("cores_per_worker", lambda: len(CORES) / 3, 3),
        ("cores_per_worker", lambda: len(CORES), 1),
        ("mem_per_worker", lambda: psutil.virtual_memory().available / 2**30 / 1.5, 1),
    ],
)
def test_a_node_has_as_many_workers_as_its_cores_and_its_memory_hold(start, tmp_path, option, worth, workers):
    engine = start(**{option: worth()})

    on_all_workers(engine, tmp_path / "together", 1)

    assert [manager["worker_count"] for manager in engine._executor.connected_managers()] == [workers]


AROUND = """
def around():
    import os
    return [os.getcwd(), os.environ["GC_TASK_UUID"], os.environ.get("GC_TASK_SANDBOX_DIR")]
"""
SPIN = "def spin():\n    while True:\n        pass\n"


@pytest.mark.parametrize("kind", ENGINES)
@pytest.mark.parametrize("sandbox", [True, False])
def test_a_task_finds_its_id_and_its_directory_on_every_engine(start, tmp_path, kind, sandbox):
    engine = start(kind, working_dir="tasks/here", run_in_sandbox=sandbox)
    task = source_task("around", AROUND)

    directory, task_id, box = value_of(engine.submit(task).result(FIRST_RESULT))

    assert task_id == task.task_id
    place = tmp_path / "tasks" / "here"
    assert (directory, box) == ((str(place / task_id),) * 2 if sandbox else (str(place), None))


@pytest.mark.parametrize("kind", ENGINES)
def test_a_task_that_takes_longer_than_the_environments_limit_is_told_so_on_every_engine(start, kind, monkeypatch):
    monkeypatch.setenv("GC_TASK_TIMEOUT", "0.3")
    engine = start(kind)

    result = engine.submit(source_task("spin", SPIN)).result(FIRST_RESULT)

    assert b"did not end within 0.3 seconds" in result


@pytest.mark.parametrize("kind", ENGINES)
def test_a_strategy_that_is_not_allowed_is_refused_on_every_engine(start, kind):
    allowed = ["globus_compute_sdk.serialize.DillCode", "globus_compute_sdk.*Data"]
    engine = start(kind, allowed_serializers=allowed)

    result = engine.submit(source_task("around", AROUND)).result(FIRST_RESULT)

    assert b"error_details" in result
    assert b"DillCode" in result


ONCE = """
def once(note):
    import os, pathlib
    tries = pathlib.Path(note)
    tries.write_text((tries.read_text() if tries.exists() else "") + "x")
    if len(tries.read_text()) < 2:
        os.kill(os.getpid(), 9)
    return tries.read_text()
"""


def test_a_task_whose_worker_was_lost_runs_again_as_often_as_configured(start, tmp_path):
    engine = start(max_retries_on_system_failure=1, max_workers_per_node=1, heartbeat_threshold=5)
    assert value_of(engine.submit(source_task("once", ONCE, str(tmp_path / "a"))).result(FIRST_RESULT)) == "xx"

    never = ONCE.replace("< 2", "< 9")
    with pytest.raises(TaskLost):
        engine.submit(source_task("once", never, str(tmp_path / "b"))).result(FIRST_RESULT)
    assert (tmp_path / "b").read_text() == "xx"


def handshake(address: str, keys: tuple[bytes, tuple[bytes, bytes]] | None) -> str:
    """How a client's first words to `address` end; `keys` are the server's public one, and a pair of its own."""
    context = zmq.Context()
    client = context.socket(zmq.DEALER)
    try:
        if keys is not None:
            client.curve_serverkey, (client.curve_publickey, client.curve_secretkey) = keys
        watch = client.get_monitor_socket()
        client.connect(address)
        ends = {
            zmq.EVENT_HANDSHAKE_SUCCEEDED: "welcome",
            zmq.EVENT_HANDSHAKE_FAILED_PROTOCOL: "refused",
            zmq.EVENT_HANDSHAKE_FAILED_AUTH: "refused",
            zmq.EVENT_HANDSHAKE_FAILED_NO_DETAIL: "refused",
            zmq.EVENT_DISCONNECTED: "refused",
        }
        while watch.poll(20_000):
            event = parse_monitor_message(watch.recv_multipart())["event"]
            if event in ends:
                return ends[event]
        return "nothing"
    finally:
        context.destroy(linger=0)


def test_only_who_has_the_engines_keys_can_speak_to_it(start, tmp_path):
    engine = start(provider={"type": "LocalProvider", "init_blocks": 0})
    executor = engine._executor
    address = f"tcp://127.0.0.1:{executor.worker_port}"
    place = tmp_path / executor.label / "certificates"
    server, _ = zmq.auth.load_certificate(place / "server.key")
    mine = zmq.auth.load_certificate(place / "client.key_secret")

    assert place.stat().st_mode & 0o777 == 0o700
    assert handshake(address, (server, mine)) == "welcome"
    assert handshake(address, None) == "refused"
    assert handshake(address, (server, zmq.curve_keypair())) == "refused"


def test_an_engine_that_shall_not_encrypt_speaks_to_everybody(start):
    engine = start(encrypted=False, provider={"type": "LocalProvider", "init_blocks": 0})

    assert handshake(f"tcp://127.0.0.1:{engine._executor.worker_port}", None) == "welcome"


def test_keys_that_others_could_read_are_not_used(start, tmp_path):
    place = tmp_path / "GlobusComputeEngine-HighThroughputExecutor" / "certificates"
    place.mkdir(parents=True)
    place.chmod(0o755)

    with pytest.raises(EngineFailure, match="certificates, which has mode 0755"):
        start()
    assert list(place.iterdir()) == []
