"""Commands that are followed beside each other: order, bound, end."""

from __future__ import annotations

import asyncio

from endpoint.manager.following import Following


def test_a_slow_command_delays_nobody_elses():
    async def history() -> list[str]:
        following, done, slow = Following(), [], asyncio.Event()

        async def work(name: str, wait: bool) -> None:
            if wait:
                await slow.wait()
            done.append(name)

        following.begin("a", lambda: work("a", True))
        following.begin("b", lambda: work("b", False))
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        before = list(done)
        slow.set()
        await following.settled(5)
        return [*before, "then", *done]

    assert asyncio.run(history()) == ["b", "then", "b", "a"]


def test_commands_for_one_user_endpoint_are_followed_in_their_order():
    async def history() -> list[int]:
        following, done = Following(), []

        async def work(number: int) -> None:
            await asyncio.sleep(0.01 * (3 - number))
            done.append(number)

        for number in range(3):
            following.begin("a", lambda number=number: work(number))
        await following.settled(5)
        return done

    assert asyncio.run(history()) == [0, 1, 2]


def test_there_is_a_most_and_room_again_afterwards():
    async def history() -> list[bool]:
        following, gate = Following(most=2), asyncio.Event()

        async def work() -> None:
            await gate.wait()

        taken = [following.begin(name, work) for name in "abc"]
        gate.set()
        await following.settled(5)
        return [*taken, following.begin("c", work)]

    assert asyncio.run(history()) == [True, True, False, True]


def test_what_does_not_end_in_time_is_given_up():
    async def history() -> bool:
        following = Following()
        following.begin("a", lambda: asyncio.sleep(60))
        await asyncio.wait_for(following.settled(0.01), 5)
        return following.begin("a", lambda: asyncio.sleep(0))

    assert asyncio.run(history())
