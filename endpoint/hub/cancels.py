"""Tasks that nobody wants any more: their endpoint is told, which answers for them as for any other task."""

from __future__ import annotations

import asyncio
import logging
import time

from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from endpoint.amqp.publisher import Publisher, PublishRefused
from endpoint.hub.access import may_end
from endpoint.hub.broker_admin import BrokerAdmin
from endpoint.hub.models import Cancellation, Endpoint, Task
from endpoint.hub.refusals import Refusal, Unavailable, task_not_found
from endpoint.hub.rest import caller_of, hub_of, id_in_path
from endpoint.hub.store import Store
from endpoint.wire.codec import encode
from endpoint.wire.messages import TaskCancel

log = logging.getLogger(__name__)


class Cancellations:
    """What endpoints are told. `patience_s`: how long the broker may take to confirm."""

    def __init__(self, store: Store, broker: BrokerAdmin, publisher: Publisher, *, patience_s: float) -> None:
        self._store = store
        self._broker = broker
        self._publisher = publisher
        self._patience_s = patience_s

    async def ask(self, task_id: str, endpoint_id: str, caller_id: str) -> None:
        """Tell a task's endpoint, and note that. It does no harm to do so again.

        Raises a Refusal for an endpoint that can't be told, and Unavailable while the broker is away.
        """
        confirmed = self._publisher.publish(
            encode(TaskCancel(task_id)),
            exchange="",
            routing_key=self._broker.cancel_queue(endpoint_id),
            properties={"delivery_mode": 2, "content_type": "application/json"},
        )
        _, late = await asyncio.wait((confirmed,), timeout=self._patience_s)
        if late:
            raise Unavailable("The message broker is away: the task's endpoint can't be told now")
        try:
            confirmed.result()
        except PublishRefused:
            raise Refusal(
                409,
                "TASK_NOT_CANCELLABLE",
                f"Task {task_id} can't be cancelled: its endpoint has not registered or started since this service can "
                "cancel tasks",
            ) from None
        async with self._store.writing() as session:
            await session.merge(Cancellation(task_id=task_id, identity_id=caller_id, asked=time.time()))
        log.info("A task is to be cancelled", extra={"task": task_id, "endpoint": endpoint_id, "identity": caller_id})


async def cancel(request: Request) -> Response:
    """POST /v3/tasks/{id}/cancel, for whoever submitted the task, and the administrators of its endpoint."""
    hub, caller, task_id = hub_of(request), await caller_of(request), id_in_path(request)
    async with hub.store.reading() as session:
        task = await session.get(Task, task_id)
        endpoint = None if task is None else await session.get(Endpoint, task.endpoint_id)
        parent = None if endpoint is None or endpoint.parent_id is None else endpoint.parent_id
        manager = endpoint if parent is None else await session.get(Endpoint, parent)
    if task is None or not may_end(task, manager, caller.id):
        raise task_not_found(task_id)
    if task.completed is not None:
        raise Refusal(
            409, "TASK_FINISHED", f"Task {task_id} is finished, it {'failed' if task.failed else 'succeeded'}"
        )
    await hub.cancellations.ask(task_id, task.endpoint_id, caller.id)
    return JSONResponse({"task_id": task_id, "status": "cancelling"})


ROUTES = [Route("/v3/tasks/{id}/cancel", cancel, methods=["POST"])]
