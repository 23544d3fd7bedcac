"""A worker's results, written by the worker itself: multiprocessing has a thread for that, which has to wake first."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

RESULT_QUEUE = 4  # of the arguments of Parsl's function `worker`


def put_directly(queue: Any) -> Callable[..., None]:
    """`put` of a `multiprocessing.Queue` without limit, for a process with one thread that puts."""
    from multiprocessing.reduction import ForkingPickler

    def put(item: object) -> None:
        queue._sem.acquire()  # who gets the item releases it
        with queue._wlock:
            queue._writer.send_bytes(ForkingPickler.dumps(item))

    return put


def with_direct_results(worker: Callable[..., None]) -> Callable[..., None]:
    """Parsl's function `worker`, with that."""

    def direct(*arguments: Any) -> None:
        queue = arguments[RESULT_QUEUE]
        queue.put = put_directly(queue)
        worker(*arguments)

    return direct
