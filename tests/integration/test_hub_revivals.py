"""User endpoints that end with tasks in their queue: the hub asks for them again, and nobody has to submit again."""

from __future__ import annotations

import asyncio
import json
import signal
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import psutil
import pytest

from endpoint.hub.clients import delete_client
from endpoint.hub.revivals import MOST_TRIES
from endpoint.hub.tokens import COMPUTE_SCOPE
from tests.support.hub_peers import InProcessHub, Manager, Person, Place, UserEndpoint, in_loop, manager
from tests.support.hubs import Credentials, RunningHub
from tests.support.managed import ManagedEndpoint
from tests.support.user_endpoint import BIN
from tests.support.waiting import wait_for

QUICK = {"revive_every_s": 0.05, "refresh_start_s": 0.0}
ONE_AT_A_TIME = "engine: {type: ThreadPoolEngine, max_workers: 1}\n"  # heartbeats come every 30 seconds
FUNCTION = """\
def work(note, seconds):
    import os, time
    with open(note, "a") as file:
        file.write(f"{os.getpid()}\\n")
    time.sleep(seconds)
    return os.getpid()
"""
SEEN_S = 0.4  # so many looks that what is not asked for by then won't be


async def submit(person: Person, boss: Manager, function_id: str) -> str:
    body = {"tasks": {function_id: ["2\nab2\ncd"]}}
    answer = await person.ok("POST", f"/v3/endpoints/{boss.id}/submit", body)
    ((task_id,),) = answer["tasks"].values()
    return str(task_id)


async def with_a_task(person: Person, boss: Manager) -> tuple[str, str]:
    """The ids of a user endpoint that runs, and of a task that it does not take."""
    asked = asyncio.create_task(submit(person, boss, await person.function()))
    command = await boss.next_command()
    await says(boss, active=True)
    return command["kwargs"]["amqp_creds"]["endpoint_id"], await asked


async def says(boss: Manager, **state: Any) -> None:
    """A heartbeat of the user endpoint that was asked for last."""
    endpoint = UserEndpoint(boss.commands[-1]["kwargs"]["amqp_creds"])
    await endpoint.open(None)
    await endpoint.heartbeat(**state)
    await endpoint.link.close()


async def failed(boss: Manager) -> None:
    await says(boss, error="killed")


async def registered_again(person: Person, boss: Manager, **more: Any) -> None:
    """As a manager's next process does it, up to its first heartbeat."""
    await person.ok("PUT", f"/v3/endpoints/{boss.id}", {"endpoint_name": "ep", **more})
    await boss.heartbeat()


async def not_asked(boss: Manager) -> None:
    await asyncio.sleep(SEEN_S)
    assert boss.deliveries.empty()


@in_loop
async def test_a_user_endpoint_that_failed_with_a_task_is_asked_for_again_with_the_same_options(place: Place) -> None:
    async with place.hub(**QUICK) as hub:
        person = await hub.person()
        async with manager(await person.endpoint()) as boss:
            endpoint_id, task_id = await with_a_task(person, boss)

            await failed(boss)
            again = await boss.start_next()

            first, second = boss.commands
            assert second == first
            assert (again.id, (await again.next_task()).task_id) == (endpoint_id, task_id)
            await again.answer(task_id)
            await not_asked(boss)


@in_loop
async def test_one_without_a_task_and_one_that_is_well_are_left_alone(place: Place) -> None:
    async with place.hub(**QUICK) as hub:
        person = await hub.person()
        async with manager(await person.endpoint()) as boss:
            asked = asyncio.create_task(submit(person, boss, await person.function()))
            endpoint, task_id = await boss.start_next(), await asked
            await not_asked(boss)  # it has a task, and is online

            await endpoint.answer(task_id)
            await answered(person, task_id)
            await endpoint.heartbeat(active=False)

            await not_asked(boss)


async def answered(person: Person, task_id: str) -> None:
    for _ in range(500):
        if (await person.result(task_id))["status"] == "success":
            return
        await asyncio.sleep(0.02)
    raise AssertionError(f"task {task_id} has no result")


@in_loop
async def test_a_manager_of_one_account_that_registers_anew_is_asked_at_once_though_heartbeats_are_not_missing(
    place: Place,
) -> None:
    async with place.hub(**QUICK | {"revive_every_s": 600.0, "refresh_start_s": 600.0}) as hub:
        person = await hub.person()
        async with manager(await person.endpoint()) as boss:
            endpoint_id, task_id = await with_a_task(person, boss)

            await registered_again(person, boss)
            again = await boss.start_next()

            assert (again.id, (await again.next_task()).task_id) == (endpoint_id, task_id)


@in_loop
async def test_user_endpoints_of_many_users_go_on_without_their_manager_and_are_not_asked_for(place: Place) -> None:
    async with place.hub(**QUICK) as hub:
        person = await hub.person()
        async with manager(await person.endpoint(multi_user=True)) as boss:
            await with_a_task(person, boss)

            await registered_again(person, boss, multi_user=True)

            await not_asked(boss)


@in_loop
async def test_a_submission_after_a_new_registration_asks_again_though_it_was_asked_lately(place: Place) -> None:
    async with place.hub(revive_every_s=600.0, refresh_start_s=600.0) as hub:
        person = await hub.person()
        async with manager(await person.endpoint()) as boss:
            endpoint_id, _ = await with_a_task(person, boss)
            await person.ok("PUT", f"/v3/endpoints/{boss.id}", {"endpoint_name": "ep"})

            await submit(person, boss, await person.function())

            assert (await boss.next_command())["kwargs"]["name"].endswith(endpoint_id)


@in_loop
async def test_a_manager_that_is_away_is_asked_when_it_is_back(place: Place) -> None:
    async with place.hub(**QUICK) as hub:
        person = await hub.person()
        async with manager(await person.endpoint()) as boss:
            endpoint_id, _ = await with_a_task(person, boss)
            await boss.heartbeat(heartbeat_period=0)
            await failed(boss)
            await not_asked(boss)

            await boss.heartbeat()

            assert (await boss.start_next()).id == endpoint_id


@in_loop
async def test_nothing_is_started_for_somebody_who_has_no_account_any_more(place: Place) -> None:
    async with place.hub(**QUICK) as hub:
        owner, guest = await hub.person(), await hub.person()
        async with manager(await owner.endpoint(public=True)) as boss:
            await with_a_task(guest, boss)
            await delete_client(hub.hub.store, guest.id)

            await failed(boss)

            await not_asked(boss)


@in_loop
async def test_a_hub_that_was_restarted_asks_as_well_but_not_without_end(place: Place) -> None:
    async with place.hub() as hub:
        person = await hub.person()
        registration = await person.endpoint()
        async with manager(registration) as boss:
            await with_a_task(person, boss)
            await failed(boss)
            await noted(hub, boss)
    async with place.hub(**QUICK, start_wait_s=0.005), manager(registration) as boss:
        for _ in range(MOST_TRIES):
            await boss.next_command()
            await failed(boss)

        await not_asked(boss)


@in_loop
async def test_one_that_gives_results_is_asked_for_however_often_it_ends(place: Place) -> None:
    async with place.hub() as hub:
        person = await hub.person()
        registration = await person.endpoint()
        async with manager(registration) as boss:
            _, first = await with_a_task(person, boss)
            function_id = await person.function()
            tasks = [first, *[await submit(person, boss, function_id) for _ in range(MOST_TRIES + 1)]]
            await failed(boss)
            await noted(hub, boss)
    async with place.hub(**QUICK, start_wait_s=0.005) as hub, manager(registration) as boss:
        person.http = hub.http
        for task_id in tasks:
            endpoint = UserEndpoint((await boss.next_command())["kwargs"]["amqp_creds"])
            await endpoint.open(None)
            await endpoint.answer(task_id)
            await answered(person, task_id)
            await endpoint.link.close()
            await failed(boss)

        await not_asked(boss)


async def noted(hub: InProcessHub, boss: Manager) -> None:
    """Return when the hub knows every heartbeat that was confirmed before: they come in order."""
    hub.hub.presence.forget([boss.id])
    await boss.heartbeat()
    assert await hub.hub.presence.comes_online(boss.id, 20)


# ---- with our own endpoint ----


class Submitter:
    """Somebody who submits, by REST alone."""

    def __init__(self, hub: RunningHub, who: Credentials) -> None:
        self._http = httpx.Client(base_url=hub.url, timeout=60, trust_env=False)
        form = {"grant_type": "client_credentials", "scope": COMPUTE_SCOPE}
        token = self._http.post("/v2/oauth2/token", data=form, auth=(who.client_id, who.client_secret)).json()
        self._http.headers["Authorization"] = f"Bearer {token['access_token']}"
        code = f"st\nwork:{FUNCTION}"
        body = {"function_name": "work", "function_code": f"{len(code)}\n{code}"}
        self._function_id = self._ok("POST", "/v3/functions", body)["function_uuid"]

    def __enter__(self) -> Submitter:
        return self

    def __exit__(self, *_: object) -> None:
        self._http.close()

    def _ok(self, method: str, path: str, body: Any = None) -> Any:
        answer = self._http.request(method, path, json=body)
        assert answer.status_code == 200, answer.text
        return answer.json()

    def submit(self, endpoint_id: str, note: Path, seconds: float) -> str:
        packed = "".join(f"{len(one)}\n{one}" for one in (f"11\n{json.dumps([str(note), seconds])}", "11\n{}"))
        body = {
            "tasks": {self._function_id: [packed]},
            "result_serializers": ["globus_compute_sdk.serialize.JSONData"],
        }
        ((task_id,),) = self._ok("POST", f"/v3/endpoints/{endpoint_id}/submit", body)["tasks"].values()
        return str(task_id)

    def ended(self, task_id: str) -> dict[str, Any] | None:
        document: dict[str, Any] = self._ok("GET", f"/v2/tasks/{task_id}")
        return document if {"result", "exception"} & set(document) else None


@pytest.fixture
def lab(hub: RunningHub, tmp_path: Path) -> Iterator[tuple[ManagedEndpoint, Submitter]]:
    """An endpoint of one account whose user endpoint runs one task at a time, and its owner."""
    who = hub.client("revived")
    program = BIN / "globus-compute-endpoint"
    endpoint = ManagedEndpoint(program, tmp_path, {**hub.env, **who.env}, template=ONE_AT_A_TIME)
    with endpoint, Submitter(hub, who) as submitter:
        yield endpoint, submitter


def kill_all_at_once(endpoint: ManagedEndpoint) -> None:
    """As a service manager does it: nobody sees anybody die, and nobody says goodbye."""
    boss = psutil.Process(endpoint.process.pid)
    boss.suspend()
    children = boss.children(recursive=True)
    for child in children:
        child.send_signal(signal.SIGKILL)
    boss.send_signal(signal.SIGKILL)
    endpoint.process.wait(20)
    assert children
    assert not psutil.wait_procs(children, timeout=20)[1]


def test_tasks_of_a_user_endpoint_that_was_killed_with_its_manager_are_taken_up_when_that_is_started(
    lab: tuple[ManagedEndpoint, Submitter], tmp_path: Path
) -> None:
    endpoint, submitter = lab
    note = tmp_path / "note"
    running = submitter.submit(endpoint.endpoint_id, note, 60)
    assert wait_for(note.exists)
    waiting = submitter.submit(endpoint.endpoint_id, tmp_path / "waiting", 0)

    kill_all_at_once(endpoint)
    between = submitter.submit(endpoint.endpoint_id, tmp_path / "between", 0)
    endpoint.start()
    began = time.monotonic()

    assert wait_for(lambda: all(map(submitter.ended, (running, waiting, between))), 20), endpoint.log
    took = time.monotonic() - began
    assert took < 20
    assert "TASK_INTERRUPTED" in str(submitter.ended(running))
    for task_id, name in ((waiting, "waiting"), (between, "between")):
        (pid,) = (tmp_path / name).read_text().split()
        assert str((submitter.ended(task_id) or {})["result"]) == f"11\n{pid}"
