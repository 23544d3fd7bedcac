"""A worker's results, written by the worker itself: multiprocessing has a thread for that, which has to wake first."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

WORKER_ID, RESULT_QUEUE, TASKS_IN_PROGRESS = 0, 4, 7  # of the arguments of Parsl's function `worker`


def put_directly(queue: Any, on_put: Callable[[], None]) -> Callable[..., None]:
    """`put` of a `multiprocessing.Queue` without limit, for a process with one thread that puts.

    on_put: called when the item is there, with the lock: whoever has that knows that a worker is not just writing.
    """
    from multiprocessing.reduction import ForkingPickler

    def put(item: object) -> None:
        queue._sem.acquire()  # who gets the item releases it
        with queue._wlock:
            queue._writer.send_bytes(ForkingPickler.dumps(item))
            on_put()

    return put


def with_direct_results(worker: Callable[..., None]) -> Callable[..., None]:
    """Parsl's function `worker`, with that."""

    def direct(*arguments: Any) -> None:
        from endpoint.engines.pool_shared import OfWorker

        rest = list(arguments)
        worker_id, queue, tasks = rest[WORKER_ID], rest[RESULT_QUEUE], rest[TASKS_IN_PROGRESS]
        queue.put = put_directly(queue, lambda: tasks.ended(worker_id))
        rest[TASKS_IN_PROGRESS] = OfWorker(tasks)
        worker(*rest)

    return direct
