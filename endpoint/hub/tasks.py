"""Tasks: how they stand, and where their results are forwarded to."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime, timezone
from typing import Any

from sqlalchemy import select
from sqlalchemy.orm import undefer
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from endpoint.hub.access import own_group
from endpoint.hub.models import Cancellation, Task
from endpoint.hub.refusals import task_not_found
from endpoint.hub.rest import caller_of, fields_of, hub_of, id_in_path
from endpoint.hub.store import Store

MAX_BATCH = 10_000
CHUNK = 500  # ids in one query


def document(task: Task, *, cancelling: bool = False) -> dict[str, Any]:
    """A task as clients read it; without `completion_t` it is still on its way.

    cancelling: whether its endpoint was told that nobody wants it. Clients take every unknown status for a pending one.
    """
    answer: dict[str, Any] = {"task_id": task.id, "status": "cancelling" if cancelling else "waiting-for-ep"}
    if task.details is not None:
        answer["details"] = task.details
    if task.completed is not None:
        answer["status"] = "failed" if task.failed else "success"
        answer["exception" if task.failed else "result"] = task.data
        answer["completion_t"] = str(task.completed)
    return answer


async def show(request: Request) -> Response:
    """GET /v2/tasks/{id}."""
    caller, task_id = await caller_of(request), id_in_path(request)
    found = await _own_tasks(hub_of(request).store, [task_id], caller.id)
    if not found:
        raise task_not_found(task_id)
    return JSONResponse(found[task_id])


async def batch_status(request: Request) -> Response:
    """POST /v2/batch_status: those that the caller has, and a word about each of the others."""
    caller = await caller_of(request)
    task_ids = (await fields_of(request)).uuids("task_ids", limit=MAX_BATCH) or []
    found = await _own_tasks(hub_of(request).store, task_ids, caller.id)
    unknown = {"status": "failed", "reason": "Unknown task"}
    results = {task_id: found.get(task_id, {"task_id": task_id, **unknown}) for task_id in task_ids}
    return JSONResponse({"response": "batch", "results": results})


async def _own_tasks(store: Store, task_ids: list[str], caller_id: str) -> dict[str, dict[str, Any]]:
    """The documents of those that are the caller's."""
    async with store.reading() as session:
        found: dict[str, dict[str, Any]] = {}
        for ids in chunks(task_ids):
            query = select(Task, Cancellation.asked).outerjoin(Cancellation, Cancellation.task_id == Task.id)
            query = query.where(Task.id.in_(ids), Task.owner_id == caller_id).options(undefer(Task.data))
            for task, asked in await session.execute(query):
                found[task.id] = document(task, cancelling=asked is not None)
        return found


def chunks(ids: list[str]) -> Iterable[list[str]]:
    """`ids` in lists that fit into one query."""
    return (ids[start : start + CHUNK] for start in range(0, len(ids), CHUNK))


async def group(request: Request) -> Response:
    """GET /v2/taskgroup/{id}."""
    caller, group_id = await caller_of(request), id_in_path(request)
    async with hub_of(request).store.reading() as session:
        kept = await own_group(session, group_id, caller.id)
        query = select(Task.id, Task.created).where(Task.group_id == group_id).order_by(Task.created, Task.id)
        rows = (await session.execute(query)).all()
    tasks = [{"id": row.id, "created_at": _date(row.created)} for row in rows]
    return JSONResponse({"taskgroup_id": kept.id, "create_websockets_queue": kept.queue, "tasks": tasks})


def _date(seconds: float) -> str:
    return datetime.fromtimestamp(seconds, timezone.utc).replace(tzinfo=None).isoformat(timespec="microseconds")


async def result_connection(request: Request) -> Response:
    """GET /v2/get_amqp_result_connection_url: where the caller's groups have their queues."""
    caller = await caller_of(request)
    url, prefix = await hub_of(request).broker.client_credentials(caller.id)
    return JSONResponse({"queue_prefix": prefix, "connection_url": url})


ROUTES = [
    Route("/v2/tasks/{id}", show, methods=["GET"]),
    Route("/v2/batch_status", batch_status, methods=["POST"]),
    Route("/v2/taskgroup/{id}", group, methods=["GET"]),
    Route("/v2/get_amqp_result_connection_url", result_connection, methods=["GET"]),
]
