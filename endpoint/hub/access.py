"""Who may see and use what: the questions that several families of requests ask of the database."""

from __future__ import annotations

from collections.abc import Collection

from sqlalchemy import select
from sqlalchemy.ext.asyncio import AsyncSession

from endpoint.hub.models import Endpoint, Function, Task, TaskGroup
from endpoint.hub.refusals import (
    Refusal,
    endpoint_forbidden,
    endpoint_not_found,
    function_not_found,
    group_not_found,
)


def may_use(endpoint: Endpoint, caller_id: str) -> bool:
    """Whether the caller may submit to it. A manager of many users maps identities itself, and refuses the unknown."""
    if endpoint.parent_id is not None:
        return caller_id == endpoint.owner_id
    return endpoint.public or endpoint.multi_user or caller_id in endpoint.administrators


def may_end(task: Task, manager: Endpoint | None, caller_id: str) -> bool:
    """Whether the caller may cancel a task: it is theirs, or it runs where they administer.

    manager: the task's endpoint, or the one that has started it.
    """
    return task.owner_id == caller_id or (manager is not None and caller_id in manager.administrators)


async def usable_endpoint(session: AsyncSession, endpoint_id: str, caller_id: str) -> Endpoint:
    """The endpoint, if the caller may submit to it."""
    endpoint = await session.get(Endpoint, endpoint_id)
    if endpoint is None:
        raise endpoint_not_found(endpoint_id)
    if not may_use(endpoint, caller_id):
        raise endpoint_forbidden(endpoint_id)
    return endpoint


async def own_endpoint(session: AsyncSession, endpoint_id: str, caller_id: str) -> Endpoint:
    """The endpoint, if the caller administers it."""
    endpoint = await session.get(Endpoint, endpoint_id)
    if endpoint is None:
        raise endpoint_not_found(endpoint_id)
    if caller_id not in endpoint.administrators:
        raise endpoint_forbidden(endpoint_id)
    return endpoint


async def usable_functions(
    session: AsyncSession, function_ids: Collection[str], endpoint: Endpoint, caller_id: str
) -> dict[str, Function]:
    """The functions by id, if the caller may run each of them on the endpoint."""
    found = await session.scalars(select(Function).where(Function.id.in_(function_ids), ~Function.deleted))
    functions = {function.id: function for function in found}
    for function_id in function_ids:
        function = functions.get(function_id)
        if function is None or not (function.public or function.owner_id == caller_id):
            raise function_not_found(function_id)
        allowed = endpoint.allowed_functions
        if allowed is not None and function_id not in allowed:
            raise Refusal(
                403, "FUNCTION_NOT_PERMITTED", f"Function {function_id} not permitted on endpoint {endpoint.id}"
            )
        if function.ha_endpoint_id is not None and function.ha_endpoint_id != endpoint.id:
            raise Refusal(
                403,
                "FUNCTION_NOT_PERMITTED",
                f"Function {function_id} may run on the high-assurance endpoint {function.ha_endpoint_id} only",
            )
    return functions


async def own_group(session: AsyncSession, group_id: str, caller_id: str) -> TaskGroup:
    """The task group, if it is the caller's."""
    group = await session.get(TaskGroup, group_id)
    if group is None or group.owner_id != caller_id:
        raise group_not_found(group_id)
    return group
