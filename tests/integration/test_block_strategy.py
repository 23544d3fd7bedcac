"""Blocks come with tasks and go when idle, as the provider's and the strategy's options say; on this machine."""

from __future__ import annotations

import time
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest

from endpoint.engines.base import Engine
from endpoint.engines.build import build_engine
from endpoint.errors import TaskLost
from tests.support.engine_blocks import engine_block
from tests.support.engine_tasks import double, hold, linger, value_of
from tests.support.waiting import wait_for

PATIENCE_S = 60


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Callable[..., Engine]]:
    started: list[Engine] = []

    def make(provider: dict[str, Any], *, strategy: str = "simple", **options: Any) -> Engine:
        block = engine_block(
            max_workers_per_node=1,
            heartbeat_period=1,
            provider={"type": "LocalProvider", **provider},
            job_status_kwargs={"strategy": strategy, "max_idletime": 0.5, "strategy_period": 0.2},
            **options,
        )
        started.append(build_engine(block))
        started[-1].start(endpoint_id=str(uuid.uuid4()), run_dir=tmp_path, on_failure=print)
        return started[-1]

    yield make
    for engine in started:
        engine.shutdown()


def blocks(engine: Engine) -> int:
    """Those that run or wait to, as the provider tells."""
    return len(engine._keeper._active_blocks())


def wait_for_blocks(engine: Engine, number: int) -> None:
    assert wait_for(lambda: blocks(engine) == number, PATIENCE_S), f"{blocks(engine)} blocks, not {number}"


def test_blocks_come_with_tasks_up_to_max_blocks_and_all_go_when_idle(start, tmp_path):
    engine = start({"init_blocks": 0, "min_blocks": 0, "max_blocks": 2})
    notes = [tmp_path / str(number) for number in range(4)]

    futures = [engine.submit(hold(str(note))) for note in notes]
    assert wait_for(lambda: sum(note.exists() for note in notes) == 2, PATIENCE_S)
    assert blocks(engine) == 2

    while not all(future.done() for future in futures):
        for note in notes:
            note.unlink(missing_ok=True)
        assert blocks(engine) <= 2
        time.sleep(0.02)
    wait_for_blocks(engine, 0)
    assert value_of(engine.submit(double("x")).result(PATIENCE_S)) == "xx"


def test_min_blocks_stay_when_idle(start):
    engine = start({"init_blocks": 2, "min_blocks": 1, "max_blocks": 2}, strategy="htex_auto_scale")

    assert wait_for(lambda: len(engine._executor.blocks_to_job_id) == 2, PATIENCE_S)
    wait_for_blocks(engine, 1)
    assert value_of(engine.submit(double("x")).result(PATIENCE_S)) == "xx"
    idle_until = time.monotonic() + 2
    while time.monotonic() < idle_until:
        assert blocks(engine) == 1
        time.sleep(0.05)


def test_htex_auto_scale_gives_up_the_idle_block_while_another_works(start, tmp_path):
    engine = start({"init_blocks": 0, "min_blocks": 0, "max_blocks": 2}, strategy="htex_auto_scale")
    first, second = tmp_path / "first", tmp_path / "second"
    futures = [engine.submit(hold(str(note))) for note in (first, second)]
    assert wait_for(lambda: first.exists() and second.exists(), PATIENCE_S)

    first.unlink()

    wait_for_blocks(engine, 1)
    assert second.exists()
    second.unlink()
    for future in futures:
        future.result(PATIENCE_S)
    wait_for_blocks(engine, 0)


def test_the_strategy_none_keeps_the_blocks_that_it_began_with(start):
    engine = start({"init_blocks": 1, "min_blocks": 0, "max_blocks": 3}, strategy="none")

    futures = [engine.submit(double(str(number))) for number in range(50)]
    while not all(future.done() for future in futures):
        assert blocks(engine) <= 1
        time.sleep(0.02)
    idle_until = time.monotonic() + 2
    while time.monotonic() < idle_until:
        assert blocks(engine) == 1
        time.sleep(0.05)


def test_workers_that_give_no_sign_of_life_for_the_heartbeat_threshold_are_lost(start, tmp_path):
    engine = start({"init_blocks": 1, "max_blocks": 1}, heartbeat_threshold=3)
    lost = engine.submit(linger(str(tmp_path / "note")))
    assert wait_for((tmp_path / "note").exists, PATIENCE_S)
    [pool] = [process for process in psutil.process_iter() if is_pool(process, tmp_path)]

    pool.suspend()
    try:
        with pytest.raises(TaskLost):
            lost.result(PATIENCE_S)
    finally:
        pool.resume()


def is_pool(process: psutil.Process, run_dir: Path) -> bool:
    """Whether it is the process that speaks for a block: the one with its options whose children are the workers."""
    try:
        words = process.cmdline()
        return f"--logdir={run_dir}" in " ".join(words) and any(
            "multiprocessing" in " ".join(child.cmdline()) for child in process.children()
        )
    except psutil.NoSuchProcess:
        return False
