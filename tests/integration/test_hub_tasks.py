"""Tasks through a hub: from a submission to its result, over a real broker, with endpoints that a test plays."""

from __future__ import annotations

import asyncio
import json
import time
import uuid
from typing import Any

import pytest

from endpoint.amqp.link import Link
from endpoint.hub.models import Endpoint
from endpoint.wire.codec import encode
from endpoint.wire.messages import ErrorDetails, Result
from tests.support.hub_peers import InProcessHub, Manager, Peer, Person, UserEndpoint, in_loop, manager


def submission(function_id: str, *payloads: str, **more: Any) -> dict[str, Any]:
    return {"tasks": {function_id: list(payloads or ["2\nab2\ncd"])}, **more}


async def submit(person: Person, endpoint_id: str, body: dict[str, Any]) -> dict[str, Any]:
    return await person.ok("POST", f"/v3/endpoints/{endpoint_id}/submit", body)


async def running_endpoint(person: Person, boss: Manager, **more: Any) -> tuple[UserEndpoint, str, dict[str, Any]]:
    """A user endpoint that was started by a first submission: it, the function's id, and the submission's answer."""
    function_id = await person.function()
    asked = asyncio.create_task(submit(person, boss.id, submission(function_id, **more)))
    endpoint = await boss.start_next()
    return endpoint, function_id, await asked


def only_task(answer: dict[str, Any]) -> str:
    ((task_id,),) = answer["tasks"].values()
    return task_id


class GroupReader:
    """What the SDK does: read a task group's queue with the caller's own credentials."""

    def __init__(self, url: str, queue: str) -> None:
        self.link = Link("sdk", url, patience_s=5)
        self.seen: asyncio.Queue[Any] = asyncio.Queue()
        self.link.consume(queue, self._take, prefetch=10)

    def _take(self, delivery: Any) -> None:
        delivery.ack()
        self.seen.put_nowait(delivery)

    @classmethod
    async def of(cls, person: Person, group_id: str) -> GroupReader:
        where = await person.ok("GET", "/v2/get_amqp_result_connection_url")
        reader = cls(where["connection_url"], f"{where['queue_prefix']}{group_id}")
        await reader.link.open()
        return reader

    async def next(self) -> Any:
        return await asyncio.wait_for(self.seen.get(), 20)


async def noted(hub: InProcessHub, person: Person) -> None:
    """Return when the hub knows every heartbeat that was confirmed before: they come in order."""
    last = Peer(await person.endpoint())
    await last.open(None)
    await last.heartbeat()
    assert await hub.hub.presence.comes_online(last.id, 20)
    await last.link.close()


async def finished(person: Person, reader: GroupReader, task_id: str) -> dict[str, Any]:
    """The task's document after its result was forwarded, which is after it was stored."""
    await reader.next()
    return await person.result(task_id)


@in_loop
async def test_a_submission_starts_the_user_endpoint_and_its_result_comes_back_both_ways(place):
    async with place.hub() as hub:
        person = await hub.person()
        async with manager(await person.endpoint()) as boss:
            endpoint, function_id, answer = await running_endpoint(person, boss, create_queue=True)
            task_id = only_task(answer)
            assert list(answer["tasks"]) == [function_id]
            assert answer["endpoint_id"] == boss.id
            assert str(uuid.UUID(answer["request_id"])) == answer["request_id"]
            reader = await GroupReader.of(person, answer["task_group_id"])

            task = await endpoint.next_task()
            assert (task.task_id, task.task_buffer) == (task_id, "4\n00\nX2\nab2\ncd")
            assert (await person.result(task_id))["status"] == "waiting-for-ep"
            body = await endpoint.answer(task_id)

            forwarded = await reader.next()
            assert forwarded.body == body
            assert forwarded.properties.timestamp
            document = await person.result(task_id)
            assert document["status"] == "success"
            assert document["result"] == "00\nresult"
            assert float(document["completion_t"]) > 0
            assert document["details"]["python_version"] == "3.11.7"
            await reader.link.close()


@in_loop
async def test_the_start_command_says_who_wants_what(place):
    async with place.hub() as hub:
        person = await hub.person("alice")
        async with manager(await person.endpoint()) as boss:
            options, runtime = {"workers": 3}, {"python": {"version": "3.11.7"}}
            endpoint, _, answer = await running_endpoint(
                person, boss, user_endpoint_config=options, user_runtime=runtime
            )
            (command,) = boss.commands
            assert command["command"] == "cmd_start_endpoint"
            assert command["args"] == []
            assert command["globus_effective_identity"] == person.id
            assert command["globus_username"] == f"{person.id}@clients.auth.globus.org"
            assert [one["sub"] for one in command["globus_identity_set"]] == [person.id]
            kwargs = command["kwargs"]
            assert kwargs["name"] == f"uep.{boss.id}.{endpoint.id}"
            assert kwargs["amqp_creds"]["endpoint_id"] == endpoint.id == answer["user_endpoint_id"]
            assert (kwargs["user_opts"], kwargs["user_runtime"]) == (options, runtime)


@in_loop
async def test_task_headers_carry_what_the_endpoint_needs(place):
    async with place.hub() as hub:
        person = await hub.person()
        async with manager(await person.endpoint()) as boss:
            serializers = ["globus_compute_sdk.serialize.JSONData"]
            endpoint, function_id, answer = await running_endpoint(
                person, boss, resource_specification={"num_nodes": 2}, result_serializers=serializers
            )
            headers = (await endpoint.next()).headers
            assert headers["task_uuid"] == only_task(answer)
            assert headers["function_uuid"] == function_id
            assert json.loads(headers["resource_specification"]) == {"num_nodes": 2}
            assert headers["result_serializers"] == serializers


@in_loop
async def test_the_same_options_reach_the_same_user_endpoint_and_others_another(place):
    async with place.hub() as hub:
        person = await hub.person()
        async with manager(await person.endpoint()) as boss:
            first, function_id, _ = await running_endpoint(person, boss, user_endpoint_config={"a": 1, "b": 2})
            again = await submit(person, boss.id, submission(function_id, user_endpoint_config={"b": 2, "a": 1}))
            assert again["user_endpoint_id"] == first.id
            other, _, answer = await running_endpoint(person, boss, user_endpoint_config={"a": 2})
            assert answer["user_endpoint_id"] == other.id != first.id


@in_loop
async def test_submissions_at_the_same_time_share_one_start(place):
    async with place.hub() as hub:
        person = await hub.person()
        async with manager(await person.endpoint()) as boss:
            function_id = await person.function()
            asked = [asyncio.create_task(submit(person, boss.id, submission(function_id))) for _ in range(8)]
            endpoint = await boss.start_next()
            answers = await asyncio.gather(*asked)
            tasks = {(await endpoint.next_task()).task_id for _ in answers}
            assert tasks == {only_task(answer) for answer in answers}
            assert len(boss.commands) == 1
            assert boss.deliveries.empty()


@in_loop
async def test_a_batch_keeps_its_order_per_function(place):
    async with place.hub() as hub:
        person = await hub.person()
        async with manager(await person.endpoint()) as boss:
            endpoint, f, _ = await running_endpoint(person, boss)
            await endpoint.next_task()
            g = await person.function()
            answer = await submit(person, boss.id, {"tasks": {f: ["1\n1", "1\n2"], g: ["1\n3"]}})
            sent = [await endpoint.next_task() for _ in range(3)]
            assert [task.task_id for task in sent] == [*answer["tasks"][f], *answer["tasks"][g]]
            assert [task.task_buffer[-1] for task in sent] == ["1", "2", "3"]
            group = await person.ok("GET", f"/v2/taskgroup/{answer['task_group_id']}")
            assert [task["id"] for task in group["tasks"]] == [task.task_id for task in sent]


@in_loop
async def test_a_failure_notice_is_the_submissions_answer(place):
    async with place.hub() as hub:
        person = await hub.person()
        async with manager(await person.endpoint()) as boss:
            function_id = await person.function()
            path = f"/v3/endpoints/{boss.id}/submit"
            asked = asyncio.create_task(person.refused(422, "POST", path, submission(function_id)))
            command = await boss.next_command()
            failed = await boss.user_endpoint(command)
            await failed.heartbeat(error="No option is called `wrokers`.\nDid you mean `workers`?", heartbeat_period=3)
            answer = await asked
            assert answer["code"] == "SEMANTICALLY_INVALID"
            assert answer["reason"] == "No option is called `wrokers`.\nDid you mean `workers`?"

            asked = asyncio.create_task(person.ok("POST", path, submission(function_id)))
            await boss.start_next()  # the next submission asks anew
            await asked


@in_loop
async def test_a_user_endpoint_that_never_reports_is_not_waited_for_longer_than_the_limit(place):
    async with place.hub(start_wait_s=0.5) as hub:
        person = await hub.person()
        async with manager(await person.endpoint()) as boss:
            function_id = await person.function()
            answer = await person.refused(422, "POST", f"/v3/endpoints/{boss.id}/submit", submission(function_id))
            assert "did not report within 0.5 s" in answer["reason"]


@in_loop
async def test_an_endpoint_that_is_away_is_said_to_be_offline(place):
    async with place.hub(offline_wait_s=0.2) as hub:
        person = await hub.person()
        endpoint_id = (await person.endpoint(display_name="The big one"))["endpoint_id"]
        function_id = await person.function()
        answer = await person.refused(422, "POST", f"/v3/endpoints/{endpoint_id}/submit", submission(function_id))
        assert f"Endpoint {endpoint_id} (The big one) is offline; it has not been heard of yet" in answer["reason"]
        status = await person.ok("GET", f"/v2/endpoints/{endpoint_id}/status")
        assert status == {"status": "offline", "details": {}}


@in_loop
async def test_a_manager_that_is_just_starting_is_waited_for(place):
    async with place.hub() as hub:
        person = await hub.person()
        registration = await person.endpoint()
        function_id = await person.function()
        endpoint_id = registration["endpoint_id"]
        asked = asyncio.create_task(submit(person, endpoint_id, submission(function_id)))
        async with manager(registration) as boss:
            await boss.start_next()
            await asked


@in_loop
async def test_a_user_endpoint_that_said_goodbye_is_started_again(place):
    async with place.hub() as hub:
        person = await hub.person()
        async with manager(await person.endpoint()) as boss:
            endpoint, function_id, _ = await running_endpoint(person, boss)
            await endpoint.heartbeat(active=False)
            await noted(hub, person)
            asked = asyncio.create_task(submit(person, boss.id, submission(function_id)))
            command = await boss.next_command()
            assert not asked.done()
            assert command["kwargs"]["amqp_creds"]["endpoint_id"] == endpoint.id
            await endpoint.heartbeat(active=True)
            await asked


@in_loop
async def test_a_running_user_endpoint_is_asked_for_again_in_case_it_is_about_to_stop(place):
    async with place.hub(refresh_start_s=0.0) as hub:
        person = await hub.person()
        async with manager(await person.endpoint()) as boss:
            endpoint, function_id, _ = await running_endpoint(person, boss)
            await submit(person, boss.id, submission(function_id))  # answered without any heartbeat
            command = await boss.next_command()
            assert command["kwargs"]["name"].endswith(endpoint.id)


@in_loop
async def test_an_error_result_is_shown_as_an_exception(place):
    async with place.hub() as hub:
        person = await hub.person()
        async with manager(await person.endpoint()) as boss:
            endpoint, _, answer = await running_endpoint(person, boss, create_queue=True)
            reader = await GroupReader.of(person, answer["task_group_id"])
            task_id = only_task(answer)
            await endpoint.answer(task_id, "Traceback ...", error_details=ErrorDetails("RemoteExecutionError", "boom"))
            document = await finished(person, reader, task_id)
            assert (document["status"], document["exception"]) == ("failed", "Traceback ...")
            assert "result" not in document
            batch = await person.ok("POST", "/v2/batch_status", {"task_ids": [task_id, str(uuid.UUID(int=5))]})
            assert batch["results"][task_id] == document
            assert batch["results"][str(uuid.UUID(int=5))]["reason"] == "Unknown task"
            await reader.link.close()


@in_loop
async def test_only_the_first_result_of_a_task_counts(place):
    async with place.hub() as hub:
        person = await hub.person()
        async with manager(await person.endpoint()) as boss:
            endpoint, _, answer = await running_endpoint(person, boss, create_queue=True)
            reader = await GroupReader.of(person, answer["task_group_id"])
            task_id = only_task(answer)
            await endpoint.answer(task_id, "00\nfirst")
            await endpoint.answer(task_id, "00\nsecond")
            again = await submit(person, boss.id, submission(await person.function(), **_same_group(answer)))
            await endpoint.answer(only_task(again), "00\nlast")
            assert b"first" in (await reader.next()).body
            assert b"last" in (await reader.next()).body
            assert (await person.result(task_id))["result"] == "00\nfirst"
            await reader.link.close()


def _same_group(answer: dict[str, Any]) -> dict[str, Any]:
    return {"task_group_id": answer["task_group_id"], "create_queue": True}


@in_loop
async def test_a_result_for_another_endpoints_task_is_refused(place):
    async with place.hub() as hub:
        person, stranger = await hub.person(), await hub.person()
        async with manager(await person.endpoint()) as boss:
            endpoint, _, answer = await running_endpoint(person, boss, create_queue=True)
            reader = await GroupReader.of(person, answer["task_group_id"])
            task_id = only_task(answer)
            thief = Peer(await stranger.endpoint())
            await thief.open(None)
            await thief.publish_result(encode(Result(task_id=task_id, data="00\nforged")))
            await endpoint.answer(task_id, "00\ntrue")
            assert (await finished(person, reader, task_id))["result"] == "00\ntrue"
            await thief.link.close()
            await reader.link.close()


@in_loop
async def test_a_heartbeat_in_another_endpoints_name_is_ignored(place):
    async with place.hub() as hub:
        person, stranger = await hub.person(), await hub.person()
        victim = (await person.endpoint())["endpoint_id"]
        liar = Peer(await stranger.endpoint())
        await liar.open(None)
        liar.id, own = victim, liar.id
        await liar.heartbeat()
        liar.id = own
        await liar.heartbeat()
        assert await hub.hub.presence.comes_online(own, 20)
        assert not hub.hub.presence.is_online(victim)
        await liar.link.close()


@pytest.mark.parametrize(
    "garbage",
    [
        b"",
        b"\x01",
        b"\x02{}",
        b"\x01[]",
        b'\x01{"message_type": "result", "data": {}}',
        b"\xff" * 1000,
        b"\x01{" * 5000,
    ],
)
@in_loop
async def test_garbage_from_an_endpoint_does_not_stop_the_results_behind_it(place, garbage):
    async with place.hub() as hub:
        person = await hub.person()
        async with manager(await person.endpoint()) as boss:
            endpoint, _, answer = await running_endpoint(person, boss, create_queue=True)
            reader = await GroupReader.of(person, answer["task_group_id"])
            await endpoint.publish_result(garbage)
            await endpoint.publisher.publish_to(endpoint.registration.heartbeat.publish, garbage)
            await endpoint.publish_result(encode(Result(task_id=str(uuid.uuid4()), data="nobody's")))
            await endpoint.answer(only_task(answer))
            assert (await finished(person, reader, only_task(answer)))["status"] == "success"
            await reader.link.close()


@in_loop
async def test_hostile_details_and_figures_are_cut_and_the_result_is_kept(place):
    async with place.hub() as hub:
        person = await hub.person()
        async with manager(await person.endpoint()) as boss:
            endpoint, _, answer = await running_endpoint(person, boss, create_queue=True)
            reader = await GroupReader.of(person, answer["task_group_id"])
            deep: list[Any] = []
            for _ in range(400):
                deep = [deep]
            await endpoint.heartbeat(deep=deep, huge="x" * 200_000)
            result = Result(task_id=only_task(answer), data="00\nok", details={"deep": deep, "huge": "x" * 200_000})
            await endpoint.publish_result(encode(result))
            document = await finished(person, reader, only_task(answer))
            assert (document["result"], document["details"]) == ("00\nok", {"truncated": True})
            await noted(hub, person)
            status = await person.ok("GET", f"/v2/endpoints/{endpoint.id}/status")
            assert status["status"] == "online"
            assert set(status["details"]) == {"heartbeat_period", "truncated", "last_heartbeat"}
            await reader.link.close()


@in_loop
async def test_a_result_that_came_while_the_hub_was_away_is_stored_and_forwarded(place):
    async with place.hub() as hub:
        person = await hub.person()
        async with manager(await person.endpoint()) as boss:
            endpoint, _, answer = await running_endpoint(person, boss, create_queue=True)
            tokens = person.tokens
            link, endpoint_id = endpoint, endpoint.id
            boss.started.clear()
    body = await link.answer(only_task(answer))
    await link.link.close()

    async with place.hub() as hub:
        person = Person(person.id, person.secret, hub.http, tokens)
        reader = await GroupReader.of(person, answer["task_group_id"])
        assert (await reader.next()).body == body
        assert (await person.result(only_task(answer)))["status"] == "success"
        assert hub.hub.presence.is_online(endpoint_id)  # known from the database
        await reader.link.close()


@in_loop
async def test_tasks_that_were_stored_and_not_published_are_published_by_the_next_run(place):
    async with place.hub(confirm_wait_s=0.3) as hub:
        person = await hub.person()
        async with manager(await person.endpoint()) as boss:
            endpoint, function_id, _ = await running_endpoint(person, boss)
            await endpoint.next_task()
            await hub.hub.link.close()  # as when the hub dies between the commit and the publication
            answer = await submit(person, boss.id, submission(function_id))  # accepted: it is stored
            async with place.hub():
                task = await endpoint.next_task()
            assert task.task_id == only_task(answer)


@in_loop
async def test_a_deleted_endpoints_unfinished_tasks_fail_with_a_reason(place):
    async with place.hub() as hub:
        person = await hub.person()
        async with manager(await person.endpoint()) as boss:
            _, _, answer = await running_endpoint(person, boss, create_queue=True)
            reader = await GroupReader.of(person, answer["task_group_id"])
            await person.ok("DELETE", f"/v2/endpoints/{boss.id}")
            document = await finished(person, reader, only_task(answer))
            assert document["status"] == "failed"
            assert f"Endpoint {boss.id} was deleted" in document["exception"]
            await person.refused(404, "GET", f"/v2/endpoints/{boss.id}")
            await reader.link.close()


@in_loop
async def test_a_high_assurance_functions_result_is_announced_and_not_forwarded(place):
    async with place.hub() as hub:
        person = await hub.person()
        async with manager(await person.endpoint(high_assurance=True)) as boss:
            function_id = await person.function(ha_endpoint_id=boss.id)
            body = submission(function_id, create_queue=True)
            asked = asyncio.create_task(submit(person, boss.id, body))
            endpoint = await boss.start_next()
            answer = await asked
            reader = await GroupReader.of(person, answer["task_group_id"])
            await endpoint.answer(only_task(answer), "00\nsecret")
            notice = await reader.next()
            assert notice.headers["high_assurance"] is True
            assert b"secret" not in notice.body
            assert (await person.result(only_task(answer)))["result"] == "00\nsecret"
            await reader.link.close()


@in_loop
async def test_an_older_endpoint_without_commands_gets_its_tasks_directly(place):
    async with place.hub() as hub:
        person = await hub.person()
        registration = await person.ok("POST", "/v2/endpoints", {"endpoint_name": "old"})
        assert "command_queue_info" not in registration
        endpoint = UserEndpoint(registration)
        await endpoint.open(endpoint.registration.task.queue)
        function_id = await person.function()
        body = {"tasks": [[function_id, endpoint.id, "1\na"], [function_id, endpoint.id, "1\nb"]]}
        answer = await person.ok("POST", "/v2/submit", body)
        sent = [(await endpoint.next_task()).task_id for _ in range(2)]
        assert [one["task_uuid"] for one in answer["results"]] == sent
        await endpoint.link.close()


@in_loop
async def test_a_user_endpoints_id_that_somebody_else_has_taken_gets_no_tasks(place):
    async with place.hub() as hub:
        person, thief = await hub.person(), await hub.person()
        registration = await person.endpoint()
        async with manager(registration) as boss:
            endpoint, function_id, _ = await running_endpoint(person, boss)
            async with hub.hub.store.writing() as session:
                (await session.get(Endpoint, endpoint.id)).owner_id = thief.id
            path = f"/v3/endpoints/{boss.id}/submit"
            await person.refused(403, "POST", path, submission(function_id))


@in_loop
async def test_old_results_groups_and_user_endpoints_are_forgotten_and_young_ones_kept(place):
    async with place.hub(keep_tasks_s=100.0, keep_user_endpoints_s=1000.0) as hub:
        person = await hub.person()
        async with manager(await person.endpoint()) as boss:
            endpoint, function_id, done = await running_endpoint(person, boss, create_queue=True)
            reader = await GroupReader.of(person, done["task_group_id"])
            await endpoint.answer(only_task(done))
            await finished(person, reader, only_task(done))
            lost = await submit(person, boss.id, submission(function_id, **_same_group(done)))

            await hub.hub.housekeeping.tidy(time.time() + 50)
            assert (await person.result(only_task(done)))["status"] == "success"

            await hub.hub.housekeeping.tidy(time.time() + 150)
            assert b"No endpoint ran the task" in (await reader.next()).body
            await person.refused(404, "GET", f"/v2/tasks/{only_task(done)}")
            assert (await person.result(only_task(lost)))["status"] == "failed"

            await endpoint.heartbeat(active=False)
            await noted(hub, person)
            await hub.hub.housekeeping.tidy(time.time() + 1500)
            await person.refused(404, "GET", f"/v2/tasks/{only_task(lost)}")
            await person.refused(404, "GET", f"/v2/taskgroup/{done['task_group_id']}")
            await person.refused(404, "GET", f"/v2/endpoints/{endpoint.id}")
            await person.ok("GET", f"/v2/endpoints/{boss.id}")
            await asyncio.wait_for(endpoint.cut.wait(), 20)
            await reader.link.close()
