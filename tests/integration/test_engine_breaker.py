"""Blocks that end before a worker comes up: no more than a few are asked for, and whoever waits hears why."""

from __future__ import annotations

import json
import queue
import time
import uuid
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from pathlib import Path
from typing import Any

import pytest

from endpoint.engines.base import Engine
from endpoint.engines.block_limits import NO_LIMITS, BlockLimits
from endpoint.engines.build import build_engine
from endpoint.errors import BlocksFail, EndpointError
from tests.support.engine_blocks import engine_block
from tests.support.engine_tasks import double, value_of

FIRST_RESULT = 40  # seconds, on a machine that has other things to do
BROKEN = "echo begun >> {note}; echo no such module: cuda/99 >&2; exit 3"


class Site:
    """An engine of blocks on this machine, whose `worker_init` notes each block in `note` and fails while `broken`."""

    def __init__(self, directory: Path, limits: BlockLimits, engine: dict[str, Any], provider: dict[str, Any]) -> None:
        self.note, self.mended = directory / "blocks", directory / "mended"
        init = f"test -e {self.mended} || {{ {BROKEN.format(note=self.note)}; }}"
        strategy = provider.pop("strategy", "simple")
        block = engine_block(
            max_workers_per_node=1,
            heartbeat_period=1,
            job_status_kwargs={"strategy": strategy, "strategy_period": 0.5, "max_idletime": 300},
            provider={"type": "LocalProvider", "worker_init": init, **provider},
            **engine,
        )
        self.told: queue.SimpleQueue[EndpointError | None] = queue.SimpleQueue()
        self.failures: queue.SimpleQueue[EndpointError] = queue.SimpleQueue()
        self.engine: Engine = build_engine(block, limits)
        self.engine.on_blocked = self.told.put
        self.engine.start(endpoint_id=str(uuid.uuid4()), run_dir=directory, on_failure=self.failures.put)

    @property
    def blocks(self) -> int:
        return len(self.note.read_text().splitlines()) if self.note.exists() else 0

    @property
    def breaker(self) -> dict[str, Any]:
        shown: dict[str, Any] = json.loads(json.dumps(self.engine.status(), allow_nan=False))["breaker"]
        return shown

    def wait_for_probe(self) -> None:
        """Until the pause is over."""
        time.sleep(max(0.0, self.breaker["probe_at"] - time.time()) + 0.01)

    def submit(self, text: str = "x") -> Future[bytes]:
        return self.engine.submit(double(text))


@pytest.fixture
def site(tmp_path: Path) -> Iterator[Callable[..., Site]]:
    sites: list[Site] = []

    def make(limits: BlockLimits = NO_LIMITS, engine: dict[str, Any] | None = None, **provider: Any) -> Site:
        sites.append(Site(tmp_path, limits, engine or {}, provider))
        return sites[-1]

    yield make
    for one in sites:
        one.engine.shutdown()


@pytest.mark.parametrize("blocks", [{}, {"init_blocks": 0}, {"init_blocks": 8, "max_blocks": 8}])
def test_at_most_three_blocks_are_asked_for_and_every_task_hears_the_shells_words(site, blocks):
    broken = site(**blocks)

    waiting = [broken.submit() for _ in range(20)]

    for future in waiting:
        error = future.exception(20)
        assert isinstance(error, BlocksFail)
        assert "no such module: cuda/99" in error.failure.for_user()
    assert isinstance(broken.told.get(timeout=5), BlocksFail)
    assert broken.breaker["state"] == "open"
    assert "no such module: cuda/99" in broken.breaker["reason"]
    time.sleep(2)  # four more looks
    assert broken.blocks == 3
    assert broken.failures.empty(), "the engine goes on"


def test_a_task_that_comes_while_the_breaker_is_open_is_answered_at_once(site):
    broken = site()
    broken.submit().exception(20)

    assert isinstance(broken.submit().exception(1), BlocksFail)
    assert broken.blocks == 3


def test_after_the_pause_one_block_is_tried_and_when_its_worker_comes_up_all_is_well_again(site):
    broken = site(engine={"failed_blocks_pause": 2})
    broken.submit().exception(20)
    assert isinstance(broken.told.get(timeout=5), BlocksFail)
    broken.mended.touch()
    broken.wait_for_probe()

    assert value_of(broken.submit().result(FIRST_RESULT)) == "xx"
    assert broken.told.get(timeout=5) is None
    assert broken.breaker["state"] == "closed"


@pytest.mark.parametrize("strategy", ["simple", "none", "htex_auto_scale"])
def test_each_strategy_has_its_probe(site, strategy):
    broken = site(engine={"failed_blocks_pause": 1}, strategy=strategy, init_blocks=3, max_blocks=3)
    broken.submit().exception(20)
    broken.mended.touch()
    broken.wait_for_probe()

    assert value_of(broken.submit().result(FIRST_RESULT)) == "xx"


def test_without_a_task_there_is_no_probe_even_where_initial_blocks_are_missing(site):
    broken = site(engine={"failed_blocks_pause": 0.5}, init_blocks=8, max_blocks=8)
    assert isinstance(broken.told.get(timeout=20), BlocksFail)
    broken.wait_for_probe()

    time.sleep(2)  # four more looks
    assert broken.blocks == 3


def test_a_probe_that_fails_answers_what_waited_for_it(site):
    broken = site(engine={"failed_blocks_pause": 1})
    broken.submit().exception(20)
    broken.wait_for_probe()

    assert isinstance(broken.submit().exception(20), BlocksFail)
    assert broken.blocks == 4


def test_all_the_initial_blocks_come_when_the_first_has_a_worker(site):
    good = site(init_blocks=5, max_blocks=5)
    good.mended.touch()

    deadline = time.monotonic() + FIRST_RESULT
    while good.engine.status()["managers"] < 4 and time.monotonic() < deadline:
        time.sleep(0.1)
    assert good.engine.status()["managers"] >= 4


def test_no_template_can_raise_the_administrators_number_of_blocks(site):
    limited = site(BlockLimits(max_blocks=1), init_blocks=4, min_blocks=2, max_blocks=4)
    limited.mended.touch()

    futures = [limited.submit(str(number)) for number in range(20)]
    assert [value_of(future.result(FIRST_RESULT)) for future in futures] == [str(n) * 2 for n in range(20)]
    assert limited.engine.status()["max_blocks"] == 1
    assert len(list((limited.note.parent / "submit_scripts").glob("*.sh"))) == 1


def test_no_more_blocks_are_asked_for_in_a_minute_than_the_administrator_allows(site):
    limited = site(BlockLimits(max_blocks_per_minute=2), engine={"max_failed_blocks": 10})

    limited.submit()
    deadline = time.monotonic() + 20
    while limited.blocks < 2 and time.monotonic() < deadline:
        time.sleep(0.1)
    time.sleep(3)
    assert limited.blocks == 2
    assert limited.breaker == {**limited.breaker, "state": "closed", "failed_blocks": 2}
