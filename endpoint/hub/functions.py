"""Functions: register, show, forget."""

from __future__ import annotations

import time
import uuid

from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from endpoint.hub.models import Endpoint, Function
from endpoint.hub.refusals import Refusal, endpoint_not_found, function_not_found, invalid, too_large
from endpoint.hub.rest import Fields, caller_of, fields_of, hub_of, id_in_path

MAX_METADATA = 16 * 1024
MAX_DESCRIPTION = 64 * 1024
_SOURCE = "st\n"  # the strategy for plain source: NAME:SOURCE


def pack(buffer: str) -> str:
    """A buffer with its length in front, in characters."""
    return f"{len(buffer)}\n{buffer}"


def packed_code(name: str, code: str, *, serialized: bool) -> str:
    """The code as it is put into a task: one packed buffer.

    Plain source (`serialized` false) becomes a buffer of the source strategy, which a worker executes for `name`.
    """
    if not serialized:
        if not name.isidentifier():
            raise invalid("`function_name` is not the name of a Python function")
        return pack(f"{_SOURCE}{name}:{code}")
    length, newline, buffer = code.partition("\n")
    if not (newline and length.isascii() and length.isdigit() and len(length) < 12 and int(length) == len(buffer)):
        raise invalid("`function_code` is not one packed buffer (its length, a newline, the buffer)")
    return code


async def register(request: Request) -> Response:
    """POST /v3/functions and /v2/functions."""
    hub, caller = hub_of(request), await caller_of(request)
    fields = await fields_of(request)
    function = _function_of(fields, caller.id, hub.settings.max_function)
    async with hub.store.writing() as session:
        if function.ha_endpoint_id is not None:
            endpoint = await session.get(Endpoint, function.ha_endpoint_id)
            if endpoint is None:
                raise endpoint_not_found(function.ha_endpoint_id)
            if not endpoint.high_assurance:
                raise invalid(f"Endpoint {endpoint.id} is no high-assurance endpoint")
        session.add(function)
    return JSONResponse({"function_uuid": function.id})


def _function_of(fields: Fields, owner_id: str, max_code: int) -> Function:
    name = fields.required_text("function_name")
    if len(str(fields.raw("function_code") or "")) > max_code:
        raise too_large("`function_code`", max_code)
    code = fields.required_text("function_code", limit=max_code)
    ha_endpoint_id, group_id, public = fields.uuid("ha_endpoint_id"), fields.uuid("group"), fields.flag("public")
    if ha_endpoint_id is not None and (public or group_id is not None):
        raise invalid("A high-assurance function can't be public, nor shared with a group")
    return Function(
        id=str(uuid.uuid4()),
        owner_id=owner_id,
        name=name,
        code=packed_code(name, code, serialized=fields.flag("serialized", default=True)),
        description=fields.text("description", limit=MAX_DESCRIPTION),
        details=fields.mapping("meta", limit=MAX_METADATA) or fields.mapping("metadata", limit=MAX_METADATA) or {},
        public=public,
        group_id=group_id,
        ha_endpoint_id=ha_endpoint_id,
        deleted=False,
        created=time.time(),
    )


async def show(request: Request) -> Response:
    """GET /v2/functions/{id}."""
    caller, function_id = await caller_of(request), id_in_path(request)
    async with hub_of(request).store.reading() as session:
        function = await session.get(Function, function_id)
    if function is None or function.deleted or not (function.public or function.owner_id == caller.id):
        raise function_not_found(function_id)
    return JSONResponse(
        {
            "function_uuid": function.id,
            "function_name": function.name,
            "function_code": function.code,
            "description": function.description,
            "metadata": function.details,
            "public": function.public,
            "owner": function.owner_id,
        }
    )


async def delete(request: Request) -> Response:
    """DELETE /v2/functions/{id}: nobody can run it any more; tasks that were submitted go on."""
    caller, function_id = await caller_of(request), id_in_path(request)
    async with hub_of(request).store.writing() as session:
        function = await session.get(Function, function_id)
        if function is None or function.deleted or not (function.public or function.owner_id == caller.id):
            raise function_not_found(function_id)
        if function.owner_id != caller.id:
            raise Refusal(403, "FUNCTION_ACCESS_FORBIDDEN", f"Function {function_id} belongs to somebody else")
        function.deleted = True
    return JSONResponse({"result": 302})


ROUTES = [
    Route("/v3/functions", register, methods=["POST"]),
    Route("/v2/functions", register, methods=["POST"]),
    Route("/v2/functions/{id}", show, methods=["GET"]),
    Route("/v2/functions/{id}", delete, methods=["DELETE"]),
]
