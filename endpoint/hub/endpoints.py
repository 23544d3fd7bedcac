"""Endpoints: register, show, stop, forget."""

from __future__ import annotations

import time
import uuid
from typing import Any

from sqlalchemy import delete as sql_delete
from sqlalchemy import func, or_, select
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from endpoint.hub.access import may_use, own_endpoint
from endpoint.hub.models import Endpoint, Outgoing, Task
from endpoint.hub.refusals import EndpointGone, Refusal, endpoint_forbidden, endpoint_not_found, invalid, malformed
from endpoint.hub.rest import Caller, Fields, caller_of, fields_of, hub_of, id_in_path
from endpoint.hub.service import Hub

MAX_METADATA = 1024 * 1024
MAX_FUNCTIONS = 10_000
MAX_ADMINS = 100


def _describe(endpoint: Endpoint, fields: Fields) -> None:
    """Take a registration's body over into the endpoint."""
    endpoint.name = fields.required_text("endpoint_name")
    endpoint.display_name = fields.text("display_name")
    endpoint.multi_user = fields.flag("multi_user")
    endpoint.public = fields.flag("public")
    endpoint.high_assurance = fields.flag("high_assurance")
    endpoint.details = fields.mapping("metadata", limit=MAX_METADATA) or {}
    endpoint.allowed_functions = fields.uuids("allowed_functions", limit=MAX_FUNCTIONS) or None
    endpoint.admins = fields.uuids("admins", limit=MAX_ADMINS) or []
    if fields.uuid("authentication_policy") is not None:
        # Taken and not enforced, it would let in whom the administrator believes to be kept out.
        raise invalid("This service has no authentication policies, and can't enforce one")
    endpoint.subscription = fields.uuid("subscription_uuid")


async def register(request: Request) -> Response:
    """POST /v3/endpoints: a new endpoint."""
    hub, caller, fields = hub_of(request), await caller_of(request), await fields_of(request)
    endpoint = Endpoint(id=str(uuid.uuid4()), owner_id=caller.id, templated=True, created=time.time())
    _describe(endpoint, fields)
    async with hub.store.writing() as session:
        session.add(endpoint)
    return await _registered(hub, endpoint)


async def update(request: Request) -> Response:
    """PUT /v3/endpoints/{id}: an endpoint that starts again, with what may have changed."""
    hub, caller, endpoint_id = hub_of(request), await caller_of(request), id_in_path(request)
    return await _update(hub, caller, endpoint_id, await fields_of(request))


async def _update(hub: Hub, caller: Caller, endpoint_id: str, fields: Fields) -> Response:
    async with hub.store.writing() as session:
        endpoint = await own_endpoint(session, endpoint_id, caller.id)
        if endpoint.parent_id is not None:
            raise endpoint_forbidden(endpoint_id)
        if (left := endpoint.locked_until - time.time()) > 0:
            raise Refusal(
                423,
                "ENDPOINT_LOCKED",
                f"Endpoint {endpoint_id} was stopped remotely, and may not register for another {left:.0f} s",
            )
        _describe(endpoint, fields)
    answer = await _registered(hub, endpoint)
    if not endpoint.multi_user:  # user endpoints of many users go on without their manager, and are still heard of
        hub.revivals.renewed(endpoint_id)
    return answer


async def register_v2(request: Request) -> Response:
    """POST /v2/endpoints, of older endpoints: one that is not `multi_user` consumes its task queue itself."""
    hub, caller, fields = hub_of(request), await caller_of(request), await fields_of(request)
    known = fields.uuid("endpoint_uuid")
    if known is not None:
        return await _update(hub, caller, known, fields)
    endpoint = Endpoint(id=str(uuid.uuid4()), owner_id=caller.id, created=time.time())
    _describe(endpoint, fields)
    endpoint.templated = endpoint.multi_user
    async with hub.store.writing() as session:
        session.add(endpoint)
    return await _registered(hub, endpoint)


async def _registered(hub: Hub, endpoint: Endpoint) -> Response:
    queues = await hub.broker.provision_endpoint(endpoint.id, with_commands=endpoint.templated)
    answer: dict[str, Any] = {
        "endpoint_id": endpoint.id,
        "task_queue_info": queues.task_queue_info,
        "result_queue_info": queues.result_queue_info,
        "heartbeat_queue_info": queues.heartbeat_queue_info,
        "warnings": [],
    }
    if queues.command_queue_info is not None:
        answer["command_queue_info"] = queues.command_queue_info
    return JSONResponse(answer)


async def _visible(request: Request) -> tuple[Endpoint, Caller]:
    caller, endpoint_id = await caller_of(request), id_in_path(request)
    async with hub_of(request).store.reading() as session:
        endpoint = await session.get(Endpoint, endpoint_id)
        if endpoint is None:
            raise endpoint_not_found(endpoint_id)
        if not may_use(endpoint, caller.id):
            raise endpoint_forbidden(endpoint_id)
        return endpoint, caller


async def show(request: Request) -> Response:
    """GET /v2/endpoints/{id}."""
    endpoint, _caller = await _visible(request)
    kept = endpoint.details
    told = ("endpoint_config", "user_config_template", "user_config_schema", "description", "hostname", "local_user")
    return JSONResponse(
        {
            **{name: kept.get(name) for name in (*told, "ip_address", "endpoint_version", "sdk_version")},
            **_summary(endpoint),
            "public": endpoint.public,
            "multi_user": endpoint.multi_user,
            "high_assurance": endpoint.high_assurance,
            "admins": endpoint.admins,
            "authentication_policy": None,
            "subscription_uuid": endpoint.subscription,
            "metadata": kept,
        }
    )


def _summary(endpoint: Endpoint) -> dict[str, Any]:
    return {
        "uuid": endpoint.id,
        "name": endpoint.name,
        "display_name": endpoint.display_name,
        "owner": endpoint.owner_id,
    }


async def show_all(request: Request) -> Response:
    """GET /v2/endpoints?role=owner|any: the caller's own, or all that the caller may use."""
    caller, role = await caller_of(request), request.query_params.get("role", "owner")
    if role not in ("owner", "any"):
        raise malformed("`role` is either owner or any")
    query = select(Endpoint).where(Endpoint.parent_id.is_(None)).order_by(Endpoint.created, Endpoint.id)
    if role == "owner":
        query = query.where(Endpoint.owner_id == caller.id)
    else:
        admins = func.json_each(Endpoint.admins).table_valued("value")
        administered = select(admins.c.value).where(admins.c.value == caller.id).exists()
        query = query.where(or_(Endpoint.owner_id == caller.id, Endpoint.public, administered))
    async with hub_of(request).store.reading() as session:
        return JSONResponse([_summary(endpoint) for endpoint in await session.scalars(query)])


async def status(request: Request) -> Response:
    """GET /v2/endpoints/{id}/status: online or offline, and the newest heartbeat's figures."""
    (endpoint, _caller), presence = await _visible(request), hub_of(request).presence
    beat = presence.last(endpoint.id)
    details = {} if beat is None else {**beat.report, "last_heartbeat": beat.at}
    online = presence.is_online(endpoint.id)
    return JSONResponse({"status": "online" if online else "offline", "details": details})


async def allowed_functions(request: Request) -> Response:
    """GET /v3/endpoints/{id}/allowed_functions."""
    endpoint, _caller = await _visible(request)
    restricted = endpoint.allowed_functions is not None
    return JSONResponse(
        {"endpoint_id": endpoint.id, "restricted": restricted, "functions": endpoint.allowed_functions or []}
    )


async def lock(request: Request) -> Response:
    """POST /v3/endpoints/{id}/lock: cut the endpoint off, and don't let it register again for a while."""
    hub, caller, endpoint_id = hub_of(request), await caller_of(request), id_in_path(request)
    until = time.time() + hub.settings.lock_s
    async with hub.store.writing() as session:
        endpoint = await own_endpoint(session, endpoint_id, caller.id)
        endpoint.locked_until = until
    await hub.broker.disconnect_endpoint(endpoint_id)
    hub.starts.forget(endpoint_id)
    hub.presence.forget([endpoint_id])
    stamp = time.strftime("%Y-%m-%dT%H:%M:%S.000000", time.gmtime(until))
    return JSONResponse({"endpoint_id": endpoint_id, "lock_expiration_timestamp": stamp})


async def delete(request: Request) -> Response:
    """DELETE /v2/endpoints/{id}: forget it with its user endpoints; tasks that have no result yet get an error."""
    hub, caller, endpoint_id = hub_of(request), await caller_of(request), id_in_path(request)
    async with hub.store.reading() as session:
        endpoint = await own_endpoint(session, endpoint_id, caller.id)
        children = await session.scalars(select(Endpoint.id).where(Endpoint.parent_id == endpoint_id))
        ids = [*children, endpoint.id]
    # The broker first: if that fails, the endpoint is still there to be deleted again.
    for one_id in ids:
        await hub.broker.remove_endpoint(one_id)
        hub.starts.forget(one_id)
        hub.revivals.forget(one_id)
    async with hub.store.writing() as session:
        unfinished = select(Task.id).where(Task.endpoint_id.in_(ids), Task.completed.is_(None))
        lost = (await session.scalars(unfinished)).all()
        await session.execute(sql_delete(Outgoing).where(Outgoing.endpoint_id.in_(ids)))
        await session.execute(sql_delete(Endpoint).where(Endpoint.parent_id == endpoint_id))
        await session.execute(sql_delete(Endpoint).where(Endpoint.id == endpoint_id))
    hub.presence.forget(ids)
    await hub.results.fail(lost, EndpointGone(f"Endpoint {endpoint_id} was deleted").failure)
    return JSONResponse({"result": 302})


ROUTES = [
    Route("/v3/endpoints", register, methods=["POST"]),
    Route("/v3/endpoints/{id}", update, methods=["PUT"]),
    Route("/v3/endpoints/{id}/lock", lock, methods=["POST"]),
    Route("/v3/endpoints/{id}/allowed_functions", allowed_functions, methods=["GET"]),
    Route("/v2/endpoints", show_all, methods=["GET"]),
    Route("/v2/endpoints", register_v2, methods=["POST"]),
    Route("/v2/endpoints/{id}", show, methods=["GET"]),
    Route("/v2/endpoints/{id}", delete, methods=["DELETE"]),
    Route("/v2/endpoints/{id}/status", status, methods=["GET"]),
    Route("/v2/endpoints/{id}/lock", lock, methods=["POST"]),
]
