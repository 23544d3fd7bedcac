"""Submissions: checked, their user endpoint running, stored, published; only then answered."""

from __future__ import annotations

import json
import time
import uuid
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from endpoint.hub.access import own_group, usable_endpoint, usable_functions
from endpoint.hub.models import Endpoint, Function, Outgoing, Task, TaskGroup
from endpoint.hub.refusals import endpoint_forbidden, endpoint_not_found, invalid, too_large
from endpoint.hub.rest import Caller, Fields, caller_of, check_text, fields_of, hub_of, id_in_path
from endpoint.hub.service import Hub
from endpoint.hub.settings import HubSettings
from endpoint.hub.starts import StartRequest
from endpoint.wire import codec
from endpoint.wire import messages as wire

MAX_OPTIONS = 1024 * 1024
MAX_RUNTIME = 64 * 1024
MAX_SERIALIZERS = 32


@dataclass(frozen=True)
class _Wanted:
    """One task of a submission: which function, with which packed arguments."""

    function_id: str
    payload: str


@dataclass(frozen=True)
class _Submission:
    """What a submission's body says, apart from its tasks."""

    group_id: str | None
    queue: bool
    resources: dict[str, Any] | None
    options: dict[str, Any]
    runtime: dict[str, Any]
    serializers: list[str] | None

    @classmethod
    def of(cls, fields: Fields) -> _Submission:
        return cls(
            group_id=fields.uuid("task_group_id"),
            queue=fields.flag("create_queue") or fields.flag("create_websocket_queue"),
            resources=fields.mapping("resource_specification", limit=MAX_RUNTIME),
            options=fields.mapping("user_endpoint_config", limit=MAX_OPTIONS) or {},
            runtime=fields.mapping("user_runtime", limit=MAX_RUNTIME) or {},
            serializers=fields.texts("result_serializers", limit=MAX_SERIALIZERS),
        )

    def headers(self, task_id: str, function_id: str) -> dict[str, Any]:
        """The AMQP headers of one of its tasks."""
        headers: dict[str, Any] = {"task_uuid": task_id, "function_uuid": function_id}
        if self.resources:
            headers["resource_specification"] = json.dumps(self.resources)
        if self.serializers:
            headers["result_serializers"] = self.serializers
        return headers


async def submit(request: Request) -> Response:
    """POST /v3/endpoints/{id}/submit."""
    hub, caller, endpoint_id = hub_of(request), await caller_of(request), id_in_path(request)
    fields = await fields_of(request)
    submission = _Submission.of(fields)
    wanted = _tasks_by_function(fields, hub.settings)
    group_id = await _group(hub, caller, submission)
    task_ids, target = await _submit(hub, caller, endpoint_id, submission, group_id, wanted)
    answer: dict[str, list[str]] = {}
    for task_id, one in zip(task_ids, wanted, strict=True):
        answer.setdefault(one.function_id, []).append(task_id)
    return JSONResponse(
        {
            "request_id": str(uuid.uuid4()),
            "task_group_id": group_id,
            "endpoint_id": endpoint_id,
            "user_endpoint_id": target,
            "tasks": answer,
        }
    )


async def submit_v2(request: Request) -> Response:
    """POST /v2/submit: tasks as triples of function, endpoint and payload."""
    hub, caller, fields = hub_of(request), await caller_of(request), await fields_of(request)
    submission = _Submission.of(fields)
    by_endpoint: dict[str, list[_Wanted]] = {}
    places: list[tuple[str, int]] = []
    for triple in fields.items("tasks", limit=hub.settings.max_tasks):
        if not isinstance(triple, list) or len(triple) != 3:
            raise invalid("`tasks` is not a list of triples")
        parts = Fields(dict(zip(("function", "endpoint", "payload"), triple, strict=True)))
        function_id, endpoint_id = parts.uuid("function"), parts.uuid("endpoint")
        if function_id is None or endpoint_id is None:
            raise invalid("A task has no function or no endpoint")
        batch = by_endpoint.setdefault(endpoint_id, [])
        places.append((endpoint_id, len(batch)))
        batch.append(_Wanted(function_id, _payload(triple[2], hub.settings)))
    if not places:
        raise invalid("`tasks` is empty")
    group_id = await _group(hub, caller, submission)
    ids = {
        endpoint_id: (await _submit(hub, caller, endpoint_id, submission, group_id, batch))[0]
        for endpoint_id, batch in by_endpoint.items()
    }
    results = [
        {"status": "success", "task_uuid": ids[endpoint_id][place], "http_status_code": 200, "reason": None}
        for endpoint_id, place in places
    ]
    return JSONResponse({"response": "success", "task_group_id": group_id, "results": results})


def _tasks_by_function(fields: Fields, settings: HubSettings) -> list[_Wanted]:
    tasks = fields.raw("tasks")
    if not isinstance(tasks, dict) or not all(isinstance(payloads, list) for payloads in tasks.values()):
        raise invalid("`tasks` is not an object of function ids and lists of payloads")
    count = sum(len(payloads) for payloads in tasks.values())
    if not 0 < count <= settings.max_tasks:
        raise invalid(f"A submission has 1 to {settings.max_tasks} tasks, not {count}")
    wanted: list[_Wanted] = []
    for key, payloads in tasks.items():
        function_id = Fields({"tasks": key}).uuid("tasks")
        if function_id is None:
            raise invalid("A task has no function")
        wanted.extend(_Wanted(function_id, _payload(payload, settings)) for payload in payloads)
    return wanted


def _payload(value: object, settings: HubSettings) -> str:
    if not isinstance(value, str):
        raise invalid("A task's payload is not a string")
    if len(value) > settings.max_payload:
        raise too_large("A task's payload", settings.max_payload)
    check_text(value, "A task's payload", settings.max_payload)
    return value


async def _group(hub: Hub, caller: Caller, submission: _Submission) -> str:
    """The submission's task group, made where it is new, with its queue where one is wanted."""
    async with hub.store.writing() as session:
        group = None
        if submission.group_id is not None:
            group = await session.get(TaskGroup, submission.group_id)
        if group is None:
            group_id = submission.group_id or str(uuid.uuid4())
            group = TaskGroup(id=group_id, owner_id=caller.id, queue=False, created=time.time())
            session.add(group)
        elif group.owner_id != caller.id:
            await own_group(session, group.id, caller.id)
    if submission.queue:
        # Not only for a new group: the queue of one that was idle for long may have expired.
        await hub.groups.ensure(group.id, caller.id)
        if not group.queue:
            async with hub.store.writing() as session:
                kept = await own_group(session, group.id, caller.id)
                kept.queue = True
    return group.id


async def _submit(
    hub: Hub, caller: Caller, endpoint_id: str, submission: _Submission, group_id: str, wanted: Sequence[_Wanted]
) -> tuple[list[str], str]:
    """Store and publish tasks for one endpoint: their ids in order, and the endpoint that they were sent to."""
    async with hub.store.reading() as session:
        endpoint = await usable_endpoint(session, endpoint_id, caller.id)
        parent = endpoint if endpoint.parent_id is None else await session.get(Endpoint, endpoint.parent_id)
        if parent is None:
            raise endpoint_not_found(endpoint_id)
        function_ids = list(dict.fromkeys(one.function_id for one in wanted))
        functions = await usable_functions(session, function_ids, parent, caller.id)
    target = endpoint.id
    if endpoint.templated:
        target = await _user_endpoint(hub, StartRequest(endpoint, caller, submission.options, submission.runtime))
    now = time.time()
    tasks = [
        Task(
            id=str(uuid.uuid4()),
            group_id=group_id,
            endpoint_id=target,
            function_id=one.function_id,
            owner_id=caller.id,
            high_assurance=functions[one.function_id].ha_endpoint_id is not None,
            created=now + place * 1e-6,  # so that a group's tasks are listed in the order of their submission
        )
        for place, one in enumerate(wanted)
    ]
    outgoing = [
        _outgoing(task, functions[one.function_id], one, submission) for task, one in zip(tasks, wanted, strict=True)
    ]
    async with hub.store.writing() as session:
        session.add_all(tasks)
        await session.flush()
        session.add_all(outgoing)
    await hub.outbox.send(outgoing)
    return [task.id for task in tasks], target


async def _user_endpoint(hub: Hub, request: StartRequest) -> str:
    async with hub.store.writing() as session:
        known = await session.get(Endpoint, request.endpoint_id)
        if known is None:
            session.add(request.row())
        elif (known.parent_id, known.owner_id) != (request.manager.id, request.caller.id):
            raise endpoint_forbidden(known.id)  # the id can be computed by anybody: it proves nothing
        else:
            known.details = request.details  # a version before this one has kept less
    await hub.starts.ensure(request)
    return request.endpoint_id


def _outgoing(task: Task, function: Function, one: _Wanted, submission: _Submission) -> Outgoing:
    message = wire.Task(task_id=task.id, task_buffer=function.code + one.payload)
    return Outgoing(
        task_id=task.id,
        endpoint_id=task.endpoint_id,
        headers=submission.headers(task.id, one.function_id),
        body=codec.encode(message),
    )


ROUTES = [
    Route("/v3/endpoints/{id}/submit", submit, methods=["POST"]),
    Route("/v2/submit", submit_v2, methods=["POST"]),
]
