"""The answers of tasks: made where the endpoint itself answers, noted, published, and published again if need be."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Sequence
from datetime import datetime, timezone

from endpoint.engines.cancelled import before_it_began
from endpoint.errors import EndpointError, TaskCancelled, TaskInterrupted
from endpoint.user.journal import Journal, Mark
from endpoint.wire.codec import encode
from endpoint.wire.results import error_result

log = logging.getLogger(__name__)

REPUBLISH_S = 2.0  # how long an answer waits that the broker could not keep

Publish = Callable[[bytes, Callable[[EndpointError | None], None]], None]


class Answers:
    """On the asyncio loop. What must be known after a crash is in the journal before it is published.

    publish: sends an answer, and calls back when the broker has confirmed it, or with why that will not be.
    on_confirmed: called with the task's id. on_unpublished: the same; the answer is sent again after a moment.
    """

    def __init__(
        self,
        journal: Journal,
        *,
        endpoint_id: str,
        publish: Publish,
        on_confirmed: Callable[[str], object],
        on_unpublished: Callable[[str], object],
    ) -> None:
        self._journal = journal
        self._endpoint_id = endpoint_id
        self._publish = publish
        self._on_confirmed = on_confirmed
        self._on_unpublished = on_unpublished
        self._begun: dict[str, tuple[Mark, str]] = {}  # of tasks to be told of: the last start, and what stopped
        self._ended = False

    # -- what is told of tasks whose engine says nothing any more ------------------------------------------------------

    def had_begun(self, task_id: str, starts: Sequence[Mark], stopped: str) -> None:
        """What ran a task, called `stopped`, has ended, or is about to; where it had begun that will be told."""
        if starts:
            self._begun[task_id] = (starts[-1], stopped)

    def forget(self, task_id: str) -> None:
        """It will not be told of."""
        self._begun.pop(task_id, None)

    def interrupted(self, task_id: str) -> TaskInterrupted:
        """For a task that had begun, and may not begin again."""
        mark, stopped = self._begun.pop(task_id)
        error = TaskInterrupted(
            f"The task started on {mark.host} at {_when(mark)}, the {stopped} stopped before it finished",
            hint="Submit it again if it may run twice",
        )
        log.warning("Task interrupted: %s", error, extra={"task": task_id, **error.failure.fields})
        return error

    def cancelled(self, task_id: str) -> TaskCancelled:
        """For a task that nobody wants."""
        error = before_it_began()
        if (begun := self._begun.pop(task_id, None)) is not None:
            mark, stopped = begun
            error = TaskCancelled(
                f"The task was cancelled. It had started on {mark.host} at {_when(mark)}, and ended with the {stopped}"
            )
        log.info("Task cancelled: %s", error, extra={"task": task_id, **error.failure.fields})
        return error

    # -- answers -------------------------------------------------------------------------------------------------------

    def give(self, task_id: str, answer: bytes | EndpointError) -> None:
        """Note a new answer, and publish it: what a worker wrote, or an error of ours."""
        if isinstance(answer, EndpointError):
            answer = encode(error_result(task_id, answer.failure, endpoint_id=self._endpoint_id))
        self._journal.answered(task_id, answer)
        self.publish(task_id, answer)

    def publish(self, task_id: str, body: bytes) -> None:
        """Publish an answer that is noted already."""
        self._publish(body, lambda error: self._on_published(task_id, body, error))

    def close(self) -> None:
        """What is not confirmed by now is for the next process."""
        self._ended = True

    def _on_published(self, task_id: str, body: bytes, error: EndpointError | None) -> None:
        if error is None:
            self._journal.done(task_id)
            self._on_confirmed(task_id)
        elif not self._ended:  # else the link is closed, and the next process publishes what the journal has
            log.error("An answer is not published: %s; trying again", error, extra={"task": task_id})
            self._on_unpublished(task_id)
            asyncio.get_running_loop().call_later(REPUBLISH_S, self.publish, task_id, body)


def _when(mark: Mark) -> str:
    return datetime.fromtimestamp(mark.time, timezone.utc).isoformat(sep=" ", timespec="seconds")
