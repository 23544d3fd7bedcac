"""The client's side on a real broker: what counts as a result, and when the clock ends."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path

import pika
import pytest

from bench import client
from bench.client import Listener, Recipe, Silence, ask, burst
from bench.payload import give_back, nothing
from bench.processes import MARK, Tree
from endpoint.wire.codec import decode, encode
from endpoint.wire.messages import ErrorDetails, Result, Task
from tests.support.user_endpoint import Queues

COUNT = 12


class StandIn:
    """A thread in place of an endpoint: `answers` makes the results of the task with a number, from 0."""

    def __init__(self, url: str, queues: Queues, answers: Callable[[int, str], list[Result]]) -> None:
        self._url, self._queues, self._answers = url, queues, answers
        self._ready = threading.Event()
        self._thread = threading.Thread(target=self._run)

    def __enter__(self) -> StandIn:
        self._thread.start()
        assert self._ready.wait(10)
        return self

    def __exit__(self, *_: object) -> None:
        self._connection.add_callback_threadsafe(self._channel.stop_consuming)
        self._thread.join()

    def _run(self) -> None:
        seen = []

        def answer(_channel, _method, _properties, body: bytes) -> None:
            task = decode(body)
            assert isinstance(task, Task)
            for result in self._answers(len(seen), task.task_id):
                self._channel.basic_publish(self._queues.exchange, self._queues.result, encode(result))
            seen.append(task.task_id)

        with pika.BlockingConnection(pika.URLParameters(self._url)) as self._connection:
            self._channel = self._connection.channel()
            self._channel.basic_consume(self._queues.task, answer, auto_ack=True)
            self._ready.set()
            self._channel.start_consuming()


def good(task_id: str) -> Result:
    return Result(task_id, "00\ngAROLg==\n")


def bad(task_id: str) -> Result:
    return Result(task_id, "a traceback", error_details=ErrorDetails("RemoteExecutionError", "it failed"))


@pytest.fixture
def queues(broker) -> Iterator[Queues]:
    with Queues(broker.amqp_url) as made:
        yield made


@pytest.fixture
def tree(tmp_path: Path, no_process_left: None) -> Iterator[Tree]:
    """Something to freeze and thaw."""
    process = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE, env={**os.environ, MARK: "-"})
    yield Tree(process.pid, tmp_path)
    process.kill()
    process.communicate()


@pytest.fixture(autouse=True)
def little_patience(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(client, "PATIENCE_S", 1.0)


def test_a_burst_counts_every_task_that_has_a_good_result(broker, queues, tree):
    with StandIn(broker.amqp_url, queues, lambda number, task_id: [good(task_id)]):
        done = burst(queues, tree, Recipe.of(nothing), COUNT)

    assert (done.count, done.lost) == (COUNT, 0)
    assert 0 < done.seconds < 5
    assert done.rate == COUNT / done.seconds


def test_a_task_without_a_result_and_one_with_an_error_are_lost(broker, queues, tree):
    def answers(number: int, task_id: str) -> list[Result]:
        return [] if number == 3 else [bad(task_id)] if number == 4 else [good(task_id)]

    with StandIn(broker.amqp_url, queues, answers):
        done = burst(queues, tree, Recipe.of(nothing), COUNT)

    assert done.lost == 2
    assert done.rate == (COUNT - 2) / done.seconds


def test_a_second_result_does_not_stand_in_for_a_missing_one(broker, queues, tree):
    def answers(number: int, task_id: str) -> list[Result]:
        return [] if number == 3 else [good(task_id), good(task_id)] if number == 4 else [good(task_id)]

    with StandIn(broker.amqp_url, queues, answers):
        assert burst(queues, tree, Recipe.of(nothing), COUNT).lost == 1
        # and what is left of it does not count for the next burst
    with StandIn(broker.amqp_url, queues, lambda number, task_id: [good(task_id)]):
        assert burst(queues, tree, Recipe.of(nothing), COUNT).lost == 0


def test_to_ask_is_to_wait_for_the_result_of_this_task(broker, queues):
    with (
        StandIn(broker.amqp_url, queues, lambda number, task_id: [bad(task_id)] if number else [good(task_id)]),
        Listener(queues, [queues.result]) as listener,
    ):
        assert 0 < ask(queues, listener, Recipe.of(nothing)) < 5
        with pytest.raises(Silence, match="an error"):
            ask(queues, listener, Recipe.of(nothing))


def test_silence_has_an_end(queues):
    with (
        Listener(queues, [queues.result]) as listener,
        pytest.raises(Silence, match="nothing came on the queue result"),
    ):
        listener.next(queues.result, 0.1)


def test_a_recipe_gives_a_task_for_any_id():
    task_id = str(uuid.uuid4())

    task = decode(Recipe.of(give_back, b"x" * 100).body(task_id))

    assert isinstance(task, Task)
    assert task.task_id == task_id
    assert "def give_back" in task.task_buffer
