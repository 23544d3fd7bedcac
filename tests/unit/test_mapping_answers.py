"""Answers that are kept: who asks, who waits, and for how long an answer counts."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

import pytest

from endpoint.manager.mapping_answers import MOST_KEPT, Answers


class Oracle:
    """Answers with a number, after `open` is set; counts how often it was asked."""

    def __init__(self) -> None:
        self.asked = 0
        self.open = asyncio.Event()
        self.open.set()

    async def __call__(self) -> int:
        self.asked += 1
        number = self.asked
        await self.open.wait()
        return number


def with_answers(story: Callable[[Answers[int], Oracle, list[float]], Awaitable[None]], keep_s: float = 10.0) -> None:
    async def play() -> None:
        clock = [0.0]
        answers: Answers[int] = Answers(lambda _answer: keep_s, clock=lambda: clock[0])
        await story(answers, Oracle(), clock)
        await answers.close()

    asyncio.run(play())


def test_an_answer_counts_until_its_time_is_over():
    async def story(answers: Answers[int], ask: Oracle, clock: list[float]) -> None:
        assert await answers.get("a", ask) == 1
        clock[0] = 9.9
        assert await answers.get("a", ask) == 1
        clock[0] = 10.1
        assert await answers.get("a", ask) == 2
        assert await answers.get("b", ask) == 3

    with_answers(story)


def test_those_who_ask_the_same_meanwhile_get_the_same_answer_though_nothing_is_kept():
    async def story(answers: Answers[int], ask: Oracle, _clock: list[float]) -> None:
        ask.open.clear()
        waiting = [asyncio.create_task(answers.get("a", ask)) for _ in range(5)]
        await asyncio.sleep(0)
        ask.open.set()
        assert await asyncio.gather(*waiting) == [1] * 5
        assert await answers.get("a", ask) == 2

    with_answers(story, keep_s=0.0)


def test_one_who_gives_up_disturbs_no_other():
    async def story(answers: Answers[int], ask: Oracle, _clock: list[float]) -> None:
        ask.open.clear()
        first, second = (asyncio.create_task(answers.get("a", ask)) for _ in range(2))
        await asyncio.sleep(0)
        first.cancel()
        await asyncio.sleep(0)
        ask.open.set()
        assert await second == 1

    with_answers(story)


def test_a_question_that_fails_is_asked_again():
    async def story(answers: Answers[int], ask: Oracle, _clock: list[float]) -> None:
        async def fail() -> int:
            raise ValueError("no")

        with pytest.raises(ValueError, match="no"):
            await answers.get("a", fail)
        assert await answers.get("a", ask) == 1

    with_answers(story)


def test_the_oldest_answers_give_way():
    async def story(answers: Answers[int], ask: Oracle, _clock: list[float]) -> None:
        for number in range(MOST_KEPT + 1):
            await answers.get(number, ask)
        assert await answers.get(1, ask) == 2
        assert await answers.get(0, ask) == MOST_KEPT + 2

    with_answers(story)
