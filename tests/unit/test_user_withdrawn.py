"""How long, and how many, cancellations are remembered without their tasks."""

from __future__ import annotations

import asyncio

from endpoint.user.withdrawn import Withdrawn


def test_it_is_forgotten_after_its_time_and_not_when_its_task_has_come():
    async def play() -> list[str]:
        gone: list[str] = []
        all_gone = asyncio.Event()
        withdrawn = Withdrawn(lambda task: (gone.append(task), all_gone.set()), seconds=0.05)
        for task in ("came", "never"):
            withdrawn.add(task)
        withdrawn.discard("came")
        await asyncio.wait_for(all_gone.wait(), 10)
        withdrawn.add("later")
        all_gone.clear()
        await asyncio.wait_for(all_gone.wait(), 10)
        return gone

    assert asyncio.run(play()) == ["never", "later"]


def test_the_oldest_is_forgotten_when_there_are_too_many():
    async def play() -> list[str]:
        gone: list[str] = []
        withdrawn = Withdrawn(gone.append, most=2)
        for task in ("a", "b", "c", "d"):
            withdrawn.add(task)
        withdrawn.close()
        return gone

    assert asyncio.run(play()) == ["a", "b"]


def test_nothing_is_forgotten_any_more_after_the_end():
    async def play() -> list[str]:
        gone: list[str] = []
        withdrawn = Withdrawn(gone.append, seconds=0)
        withdrawn.add("a")
        withdrawn.close()
        await asyncio.sleep(0.01)
        return gone

    assert asyncio.run(play()) == []
