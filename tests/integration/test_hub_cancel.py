"""Cancellations through a hub: who may, what the endpoint is told, and how the task stands."""

from __future__ import annotations

import asyncio
import time
import uuid
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest
from sqlalchemy import func, select

from endpoint.hub.models import Cancellation
from endpoint.wire.codec import decode
from endpoint.wire.messages import ErrorDetails, TaskCancel
from tests.support.hub_peers import Manager, Peer, Person, UserEndpoint, in_loop, manager


def path(task_id: str) -> str:
    return f"/v3/tasks/{task_id}/cancel"


async def submitted(person: Person, boss: Manager, **more: Any) -> tuple[UserEndpoint, str]:
    """A user endpoint that has a task, and the task's id."""
    function_id = await person.function()
    body = {"tasks": {function_id: ["2\nab2\ncd"]}, **more}
    asked = asyncio.create_task(person.ok("POST", f"/v3/endpoints/{boss.id}/submit", body))
    endpoint = await boss.start_next()
    ((task_id,),) = (await asked)["tasks"].values()
    return endpoint, task_id


@asynccontextmanager
async def cancellations(boss: Manager) -> AsyncIterator[Peer]:
    """What the user endpoint that was started last reads beside its tasks, with its own credentials."""
    reader = Peer(boss.commands[-1]["kwargs"]["amqp_creds"])
    await reader.open(reader.registration.task.cancel_queue)
    yield reader
    await reader.link.close()


async def told(reader: Peer) -> str:
    """The task of the next cancellation."""
    delivery = await reader.next()
    message = decode(delivery.body)
    assert isinstance(message, TaskCancel)
    assert "task_uuid" not in delivery.headers
    assert delivery.properties.delivery_mode == 2
    return message.task_id


@in_loop
async def test_who_submitted_a_task_cancels_it_and_sees_that_until_the_endpoint_answers(place):
    async with place.hub() as hub:
        person = await hub.person()
        async with manager(await person.endpoint()) as boss:
            endpoint, task_id = await submitted(person, boss)
            async with cancellations(boss) as reader:
                answer = await person.ok("POST", path(task_id))

                assert answer == {"task_id": task_id, "status": "cancelling"}
                assert await told(reader) == task_id
                assert (await person.result(task_id)) == {"task_id": task_id, "status": "cancelling"}
                batch = await person.ok("POST", "/v2/batch_status", {"task_ids": [task_id]})
                assert batch["results"][task_id]["status"] == "cancelling"

                await endpoint.answer(task_id, "gone", error_details=ErrorDetails("TASK_CANCELLED", "gone"))
                document = await done(person, task_id)
                assert (document["status"], document["exception"]) == ("failed", "gone")


@in_loop
async def test_the_result_of_a_task_that_was_not_stopped_in_time_is_its_result(place):
    async with place.hub() as hub:
        person = await hub.person()
        async with manager(await person.endpoint()) as boss:
            endpoint, task_id = await submitted(person, boss)
            await person.ok("POST", path(task_id))

            await endpoint.answer(task_id)

            assert (await done(person, task_id))["status"] == "success"


@in_loop
async def test_asking_again_tells_the_endpoint_again(place):
    async with place.hub() as hub:
        person = await hub.person()
        async with manager(await person.endpoint()) as boss:
            _, task_id = await submitted(person, boss)
            async with cancellations(boss) as reader:
                for _ in range(2):
                    await person.ok("POST", path(task_id))
                    assert await told(reader) == task_id


@in_loop
async def test_a_finished_task_can_not_be_cancelled(place):
    async with place.hub() as hub:
        person = await hub.person()
        async with manager(await person.endpoint()) as boss:
            endpoint, task_id = await submitted(person, boss)
            await endpoint.answer(task_id)
            await done(person, task_id)

            refused = await person.refused(409, "POST", path(task_id))

            assert refused["code"] == "TASK_FINISHED"
            assert f"Task {task_id} is finished, it succeeded" in refused["reason"]
            assert (await person.result(task_id))["status"] == "success"


@in_loop
async def test_somebody_elses_task_is_as_unknown_as_one_that_never_was_and_strangers_are_refused(place):
    async with place.hub() as hub:
        person, other = await hub.person(), await hub.person()
        async with manager(await person.endpoint()) as boss:
            _, task_id = await submitted(person, boss)
            never = str(uuid.uuid4())

            assert (await other.refused(404, "POST", path(task_id)))["code"] == "TASK_NOT_FOUND"
            assert (await person.refused(404, "POST", path(never)))["code"] == "TASK_NOT_FOUND"
            await person.refused(422, "POST", path("no-uuid"))
            assert (await hub.http.post(path(task_id))).status_code == 401
            assert (await person.call("POST", path(task_id), server="auth.globus.org")).status_code == 401
            assert (await person.call("GET", path(task_id))).status_code == 405

            assert (await person.result(task_id))["status"] == "waiting-for-ep"
            async with cancellations(boss) as reader:
                await person.ok("POST", path(task_id))
                assert await told(reader) == task_id
                assert reader.deliveries.empty()


@in_loop
async def test_an_administrator_of_the_endpoint_may_cancel_what_others_run_there(place):
    async with place.hub() as hub:
        admin, person, other = await hub.person(), await hub.person(), await hub.person()
        registration = await admin.endpoint(public=True, multi_user=True, admins=[])
        async with manager(registration) as boss:
            _, task_id = await submitted(person, boss)
            async with cancellations(boss) as reader:
                await other.refused(404, "POST", path(task_id))
                await admin.ok("POST", path(task_id))

                assert await told(reader) == task_id
                await admin.refused(404, "GET", f"/v2/tasks/{task_id}")  # which has the task's data


@in_loop
async def test_an_endpoint_that_has_no_queue_for_cancellations_is_told_of_in_a_sentence(place):
    async with place.hub() as hub:
        person = await hub.person()
        async with manager(await person.endpoint()) as boss:
            endpoint, task_id = await submitted(person, boss)
            queue = hub.admin.cancel_queue(endpoint.id)
            await hub.admin._delete("queues", hub.admin._vhost, queue)  # as one of before there were such

            refused = await person.refused(409, "POST", path(task_id))

            assert refused["code"] == "TASK_NOT_CANCELLABLE"
            assert "its endpoint has not registered or started since" in refused["reason"]
            assert (await person.result(task_id))["status"] == "waiting-for-ep"


@in_loop
async def test_while_the_broker_is_away_a_cancellation_is_refused_with_come_again(place):
    async with place.hub(confirm_wait_s=0.3) as hub:
        person = await hub.person()
        async with manager(await person.endpoint()) as boss:
            _, task_id = await submitted(person, boss)
            await hub.hub.link.close()

            await person.refused(503, "POST", path(task_id))

            assert (await person.result(task_id))["status"] == "waiting-for-ep"


@in_loop
async def test_what_was_cancelled_is_forgotten_with_the_tasks(place):
    async with place.hub(keep_tasks_s=100.0) as hub:
        person = await hub.person()
        async with manager(await person.endpoint()) as boss:
            _, task_id = await submitted(person, boss)
            await person.ok("POST", path(task_id))

            await hub.hub.housekeeping.tidy(time.time() + 150)

            async with hub.hub.store.reading() as session:
                assert await session.scalar(select(func.count()).select_from(Cancellation)) == 0


@in_loop
async def test_an_endpoint_reads_no_cancellations_but_its_own(place):
    async with place.hub() as hub:
        person = await hub.person()
        async with manager(await person.endpoint()) as boss:
            await submitted(person, boss)
            spy = Peer(boss.commands[-1]["kwargs"]["amqp_creds"])
            with pytest.raises(Exception, match=r"(?i)refuse"):
                await spy.open(hub.admin.cancel_queue(boss.id))
            await spy.link.close()


async def done(person: Person, task_id: str) -> dict[str, Any]:
    """The task's document as soon as it is finished."""
    deadline = asyncio.get_running_loop().time() + 20
    while (document := await person.result(task_id))["status"] not in ("success", "failed"):
        assert asyncio.get_running_loop().time() < deadline, document
        await asyncio.sleep(0.02)
    return document
