"""A hub's requests: who somebody is, what belongs to whom, and what bad requests get."""

from __future__ import annotations

import asyncio
import json
import uuid
from typing import Any

import pytest

from endpoint.hub import clients
from endpoint.hub.tokens import COMPUTE_SCOPE
from tests.support.hub_peers import Peer, Person, in_loop, manager

NOWHERE = str(uuid.UUID(int=7))


@in_loop
async def test_a_token_answer_has_one_token_per_server_with_the_scopes_asked_for(place):
    async with place.hub() as hub:
        person = await hub.person()
        scope = f"openid {COMPUTE_SCOPE}[urn:x *urn:y] urn:globus:auth:scope:auth.globus.org:manage_projects"
        answer = (await hub.token(person.id, person.secret, scope)).json()
        assert (answer["resource_server"], answer["scope"]) == ("funcx_service", COMPUTE_SCOPE)
        (other,) = answer["other_tokens"]
        assert other["resource_server"] == "auth.globus.org"
        assert other["scope"] == "openid urn:globus:auth:scope:auth.globus.org:manage_projects"
        assert answer["token_type"] == "Bearer"
        assert answer["expires_in"] > 3600
        only = (await hub.token(person.id, person.secret, "openid")).json()
        assert (only["resource_server"], only["other_tokens"]) == ("auth.globus.org", [])


@in_loop
async def test_wrong_credentials_scopes_and_grants_are_refused(place):
    async with place.hub() as hub:
        person = await hub.person()
        for client_id, secret in ((person.id, "wrong"), (NOWHERE, person.secret), ("", ""), (person.id, "é\udcff")):
            answer = await hub.http.post(
                "/v2/oauth2/token",
                content="grant_type=client_credentials&scope=openid",
                headers={"Authorization": httpx_basic(client_id, secret)},
            )
            assert answer.status_code == 401, answer.text
            assert answer.json()["error"] == "invalid_client"
        assert (await hub.token(person.id, person.secret, "urn:unknown")).status_code == 400
        assert (await hub.token(person.id, person.secret, "")).status_code == 400
        assert (await hub.token(person.id, person.secret, grant_type="password")).status_code == 400
        answer = await hub.http.post("/v2/oauth2/token", content=b"\xff\xfe", headers={"Authorization": "Basic ???"})
        assert answer.status_code == 400


def httpx_basic(user: str, password: str) -> str:
    import base64

    return (
        "Basic "
        + base64.b64encode(f"{user}:{password}".encode("utf-8", "surrogateescape").replace(b"\xff", b"")).decode()
    )


@in_loop
async def test_introspection_userinfo_and_identities_agree_on_who_it_is(place):
    async with place.hub() as hub:
        person = await hub.person("Ann's laptop")
        form = {"token": person.tokens["funcx_service"], "include": "identity_set"}
        answer = (await hub.http.post("/v2/oauth2/token/introspect", data=form, auth=(person.id, person.secret))).json()
        assert (answer["active"], answer["sub"], answer["identity_set"]) == (True, person.id, [person.id])
        assert answer["exp"] > answer["iat"]
        info = await person.ok("GET", "/v2/oauth2/userinfo", server="auth.globus.org")
        assert info["sub"] == person.id
        assert info["name"] == "Ann's laptop"
        assert [one["sub"] for one in info["identity_set"]] == [person.id]
        username = info["preferred_username"]
        assert username == f"{person.id}@clients.auth.globus.org"
        for query in (f"ids={person.id},{NOWHERE}", f"usernames={username}"):
            found = await person.ok("GET", f"/v2/api/identities?{query}", server="auth.globus.org")
            assert [(one["id"], one["username"]) for one in found["identities"]] == [(person.id, username)]


@in_loop
async def test_a_token_is_good_for_its_own_service_until_it_is_revoked(place):
    async with place.hub() as hub:
        person = await hub.person()
        for token in ("", "Bearer", "Bearer nonsense", f"Bearer {person.tokens['auth.globus.org']}", "Basic x"):
            answer = await hub.http.get("/v2/endpoints", headers={"Authorization": token})
            assert answer.status_code == 401, token
            assert answer.json()["code"] == "USER_UNAUTHENTICATED"
        await person.ok("GET", "/v2/endpoints")
        form = {"token": person.tokens["funcx_service"]}
        stranger = await hub.person()
        await hub.http.post("/v2/oauth2/token/revoke", data=form, auth=(stranger.id, stranger.secret))
        await person.ok("GET", "/v2/endpoints")
        await hub.http.post("/v2/oauth2/token/revoke", data=form, auth=(person.id, person.secret))
        await person.refused(401, "GET", "/v2/endpoints")


@in_loop
async def test_an_expired_token_is_refused(place):
    async with place.hub(token_lifetime_s=0) as hub:
        person = await hub.person()
        await person.refused(401, "GET", "/v2/endpoints")


@in_loop
async def test_a_deleted_client_is_somebody_no_more(place):
    async with place.hub() as hub:
        person = await hub.person("gone")
        assert person.id in {entry.id for entry in await clients.list_clients(hub.hub.store)}
        assert await clients.delete_client(hub.hub.store, person.id)
        assert not await clients.delete_client(hub.hub.store, person.id)
        await person.refused(401, "GET", "/v2/endpoints")
        assert (await hub.token(person.id, person.secret)).status_code == 401


@in_loop
async def test_the_database_has_no_secret_in_clear(place, tmp_path):
    async with place.hub() as hub:
        person = await hub.person()
        async with manager(await person.endpoint()) as boss:
            password = boss.registration.heartbeat.connection_url.split(":")[2].split("@")[0]
    secrets = [person.secret, *person.tokens.values(), password]
    for file in tmp_path.glob("hub.db*"):
        content = file.read_bytes()
        assert not [secret for secret in secrets if secret.encode() in content]
        assert file.stat().st_mode & 0o077 == 0


@in_loop
async def test_the_version_is_told_to_anybody(place):
    async with place.hub() as hub:
        assert isinstance((await hub.http.get("/v2/version")).json(), str)
        everything = (await hub.http.get("/v2/version?service=all")).json()
        assert {"api", "min_sdk_version", "min_ep_version"} <= set(everything)


@in_loop
async def test_an_endpoint_is_registered_shown_updated_and_deleted(place):
    async with place.hub() as hub:
        person = await hub.person()
        registration = await person.endpoint(
            display_name="First", metadata={"endpoint_version": "4.19.0", "hostname": "h"}, subscription_uuid=NOWHERE
        )
        endpoint_id = registration["endpoint_id"]
        for name in ("task", "result", "heartbeat", "command"):
            assert registration[f"{name}_queue_info"]["connection_url"].startswith("amqp://")
        shown = await person.ok("GET", f"/v2/endpoints/{endpoint_id}")
        assert (shown["uuid"], shown["display_name"], shown["endpoint_version"]) == (endpoint_id, "First", "4.19.0")
        again = await person.ok(
            "PUT", f"/v3/endpoints/{endpoint_id}", {"endpoint_name": "ep", "display_name": "Second"}
        )
        assert again["endpoint_id"] == endpoint_id
        assert again["command_queue_info"]["queue"] == registration["command_queue_info"]["queue"]
        (listed,) = await person.ok("GET", "/v2/endpoints")
        assert (listed["uuid"], listed["display_name"], listed["owner"]) == (endpoint_id, "Second", person.id)
        await person.ok("DELETE", f"/v2/endpoints/{endpoint_id}")
        assert await person.ok("GET", "/v2/endpoints") == []
        await person.refused(404, "PUT", f"/v3/endpoints/{endpoint_id}", {"endpoint_name": "ep"})


@in_loop
async def test_an_authentication_policy_that_would_not_be_enforced_is_refused(place):
    async with place.hub() as hub:
        person = await hub.person()
        body = {"endpoint_name": "ep", "authentication_policy": NOWHERE}
        answer = await person.refused(422, "POST", "/v3/endpoints", body)
        assert "authentication policies" in answer["reason"]


@in_loop
async def test_the_status_tells_the_newest_heartbeats_figures(place):
    async with place.hub() as hub:
        person = await hub.person()
        async with manager(await person.endpoint()) as boss:
            await boss.heartbeat(total_workers=3)
            assert await hub.hub.presence.comes_online(boss.id, 20)
            last = Peer(await person.endpoint())
            await last.open(None)
            await last.heartbeat()
            assert await hub.hub.presence.comes_online(last.id, 20)
            await last.link.close()
            status = await person.ok("GET", f"/v2/endpoints/{boss.id}/status")
            assert status["status"] == "online"
            assert status["details"]["total_workers"] == 3


@in_loop
async def test_a_stopped_endpoint_is_cut_off_and_may_not_come_back_at_once(place):
    async with place.hub() as hub:
        person = await hub.person()
        async with manager(await person.endpoint()) as boss:
            locked = await person.ok("POST", f"/v3/endpoints/{boss.id}/lock")
            assert locked["endpoint_id"] == boss.id
            assert "lock_expiration_timestamp" in locked
            answer = await person.refused(423, "PUT", f"/v3/endpoints/{boss.id}", {"endpoint_name": "ep"})
            assert answer["code"] == "ENDPOINT_LOCKED"
            await asyncio.wait_for(boss.cut.wait(), 20)


@in_loop
async def test_an_endpoint_of_ones_own_is_for_nobody_else(place):
    async with place.hub(offline_wait_s=0.1) as hub:
        owner, admin, stranger = await hub.person(), await hub.person(), await hub.person()
        endpoint_id = (await owner.endpoint(admins=[admin.id]))["endpoint_id"]
        body = {"tasks": {await stranger.function(public=True): ["1\na"]}}
        for method, path, doc in (
            ("GET", f"/v2/endpoints/{endpoint_id}", None),
            ("GET", f"/v2/endpoints/{endpoint_id}/status", None),
            ("GET", f"/v3/endpoints/{endpoint_id}/allowed_functions", None),
            ("POST", f"/v3/endpoints/{endpoint_id}/submit", body),
            ("PUT", f"/v3/endpoints/{endpoint_id}", {"endpoint_name": "stolen"}),
            ("POST", f"/v3/endpoints/{endpoint_id}/lock", None),
            ("DELETE", f"/v2/endpoints/{endpoint_id}", None),
        ):
            answer = await stranger.refused(403, method, path, doc)
            assert answer["code"] == "ENDPOINT_ACCESS_FORBIDDEN"
        assert await stranger.ok("GET", "/v2/endpoints?role=any") == []
        assert len(await admin.ok("GET", "/v2/endpoints?role=any")) == 1
        await admin.ok("PUT", f"/v3/endpoints/{endpoint_id}", {"endpoint_name": "renamed", "admins": [admin.id]})


@pytest.mark.parametrize("kind", ["public", "multi_user"])
@in_loop
async def test_an_endpoint_for_many_takes_submissions_of_anybody(place, kind):
    async with place.hub(offline_wait_s=0.1) as hub:
        owner, user = await hub.person(), await hub.person()
        endpoint_id = (await owner.endpoint(**{kind: True}))["endpoint_id"]
        body = {"tasks": {await user.function(): ["1\na"]}}
        answer = await user.refused(422, "POST", f"/v3/endpoints/{endpoint_id}/submit", body)
        assert "is offline" in answer["reason"]  # and not: forbidden
        await user.refused(403, "DELETE", f"/v2/endpoints/{endpoint_id}")


@in_loop
async def test_an_allow_list_is_shown_and_enforced_at_the_submission(place):
    async with place.hub(offline_wait_s=0.1) as hub:
        person = await hub.person()
        good, bad = await person.function(), await person.function()
        endpoint_id = (await person.endpoint(allowed_functions=[good]))["endpoint_id"]
        shown = await person.ok("GET", f"/v3/endpoints/{endpoint_id}/allowed_functions")
        assert (shown["restricted"], shown["functions"]) == (True, [good])
        path = f"/v3/endpoints/{endpoint_id}/submit"
        answer = await person.refused(403, "POST", path, {"tasks": {good: ["1\na"], bad: ["1\na"]}})
        assert answer["code"] == "FUNCTION_NOT_PERMITTED"
        assert f"Function {bad} not permitted on endpoint {endpoint_id}" in answer["reason"]
        assert "is offline" in (await person.refused(422, "POST", path, {"tasks": {good: ["1\na"]}}))["reason"]


@in_loop
async def test_functions_are_private_unless_public_and_gone_when_deleted(place):
    async with place.hub(offline_wait_s=0.1) as hub:
        person, stranger = await hub.person(), await hub.person()
        code = {"function_code": "6\n00\nabc", "description": "d", "meta": {"python_version": "3.11"}}
        private, public = await person.function(**code), await person.function(**code, public=True)
        shown = await person.ok("GET", f"/v2/functions/{private}")
        assert (shown["function_code"], shown["metadata"]) == ("6\n00\nabc", {"python_version": "3.11"})
        await stranger.refused(404, "GET", f"/v2/functions/{private}")
        await stranger.ok("GET", f"/v2/functions/{public}")
        await stranger.refused(403, "DELETE", f"/v2/functions/{public}")
        endpoint_id = (await stranger.endpoint())["endpoint_id"]
        path = f"/v3/endpoints/{endpoint_id}/submit"
        answer = await stranger.refused(404, "POST", path, {"tasks": {private: ["1\na"]}})
        assert answer["code"] == "FUNCTION_NOT_FOUND"
        assert "offline" in (await stranger.refused(422, "POST", path, {"tasks": {public: ["1\na"]}}))["reason"]
        await person.ok("DELETE", f"/v2/functions/{public}")
        await stranger.refused(404, "POST", path, {"tasks": {public: ["1\na"]}})


@in_loop
async def test_plain_source_is_stored_as_a_worker_reads_it(place):
    async with place.hub() as hub:
        person = await hub.person()
        source = "def f():\n    return 'é'\n"
        function_id = await person.function(function_code=source, serialized=False)
        length, _, buffer = (await person.ok("GET", f"/v2/functions/{function_id}"))["function_code"].partition("\n")
        assert (int(length), buffer) == (len(buffer), f"st\nf:{source}")


@in_loop
async def test_tasks_and_groups_are_their_owners_only(place):
    async with place.hub() as hub:
        person, stranger = await hub.person(), await hub.person()
        registration = await person.ok("POST", "/v2/endpoints", {"endpoint_name": "direct"})
        path = f"/v3/endpoints/{registration['endpoint_id']}/submit"
        answer = await person.ok("POST", path, {"tasks": {await person.function(): ["1\na"]}})
        ((task_id,),) = answer["tasks"].values()
        await stranger.refused(404, "GET", f"/v2/tasks/{task_id}")
        await stranger.refused(404, "GET", f"/v2/taskgroup/{answer['task_group_id']}")
        batch = await stranger.ok("POST", "/v2/batch_status", {"task_ids": [task_id]})
        assert batch["results"][task_id]["reason"] == "Unknown task"
        own = await stranger.ok("POST", "/v2/endpoints", {"endpoint_name": "direct"})
        body = {"tasks": {await stranger.function(): ["1\na"]}, "task_group_id": answer["task_group_id"]}
        await stranger.refused(404, "POST", f"/v3/endpoints/{own['endpoint_id']}/submit", body)


@in_loop
async def test_payloads_over_their_limits_are_refused(place):
    async with place.hub(max_payload=100, max_body=2000, max_function=200) as hub:
        person = await hub.person()
        function_id = await person.function()
        path = f"/v3/endpoints/{(await person.endpoint())['endpoint_id']}/submit"
        answer = await person.refused(413, "POST", path, {"tasks": {function_id: ["x" * 101]}})
        assert answer["code"] == "TASK_PAYLOAD_TOO_LARGE"
        await person.refused(413, "POST", path, {"tasks": {function_id: ["x" * 100] * 30}})
        await person.refused(413, "POST", "/v3/functions", {"function_name": "f", "function_code": "x" * 201})

        async def endless() -> Any:
            for _ in range(100):
                yield b" " * 1000

        headers = {"Authorization": f"Bearer {person.tokens['funcx_service']}"}
        assert (await hub.http.post(path, content=endless(), headers=headers)).status_code == 413


BODIES: list[bytes] = [
    b"",
    b"{",
    b"[]",
    b"null",
    b"\xff",
    b"[" * 100_000,
    b'{"tasks": NaN}',
    b'{"tasks": {"x": ["a"]}}',
    b'{"tasks": {"": [""]}}',
    b'{"tasks": []}',
    b'{"tasks": {}}',
    b'{"tasks": [[1, 2, 3]]}',
    b'{"tasks": [["a"]]}',
    b'{"endpoint_name": ""}',
    b'{"endpoint_name": 5}',
    b'{"endpoint_name": "\\ud800"}',
    b'{"endpoint_name": "e", "public": "yes"}',
    b'{"endpoint_name": "e", "metadata": []}',
    b'{"endpoint_name": "e", "admins": [1]}',
    *(
        b'{"endpoint_name": "e", "metadata": ' + b'{"a": ' * depth + b"1" + b"}" * depth + b"}"
        for depth in (70, 800, 990)
    ),
    b'{"endpoint_name": "e", "allowed_functions": {"a": 1}}',
    b'{"endpoint_name": "e", "authentication_policy": "x"}',
    b'{"endpoint_name": "e", "endpoint_uuid": "' + NOWHERE.encode() + b'"}',
    b'{"function_name": "f", "function_code": "\\ud800"}',
    b'{"function_name": "f", "function_code": "3\\nab"}',
    b'{"function_name": "f", "function_code": "-2\\nab"}',
    b'{"function_name": "not a name", "function_code": "x", "serialized": false}',
    b'{"function_name": "f", "function_code": "2\\nab", "public": true, "ha_endpoint_id": "' + NOWHERE.encode() + b'"}',
    b'{"task_ids": 5}',
    b'{"task_ids": [null]}',
    b'{"task_ids": ["x"]}',
    b'{"tasks": {"' + NOWHERE.encode() + b'": [1]}}',
    b'{"tasks": {"' + NOWHERE.encode() + b'": ["\\udfff"]}}',
    b'{"tasks": {"' + NOWHERE.encode() + b'": ["a"]}, "task_group_id": 5}',
    b'{"tasks": {"' + NOWHERE.encode() + b'": ["a"]}, "user_endpoint_config": "x"}',
    b'{"tasks": {"' + NOWHERE.encode() + b'": ["a"]}, "result_serializers": [1]}',
    b'{"tasks": {"' + NOWHERE.encode() + b'": ["a"]}, "resource_specification": [1]}',
]


@in_loop
async def test_no_body_makes_the_service_fail(place):
    async with place.hub() as hub:
        person = await hub.person()
        endpoint_id = (await person.endpoint())["endpoint_id"]
        headers = {"Authorization": f"Bearer {person.tokens['funcx_service']}"}
        for method, path in (
            ("POST", "/v3/endpoints"),
            ("POST", "/v2/endpoints"),
            ("PUT", f"/v3/endpoints/{endpoint_id}"),
            ("POST", "/v3/functions"),
            ("POST", "/v2/submit"),
            ("POST", "/v2/batch_status"),
            ("POST", f"/v3/endpoints/{endpoint_id}/submit"),
        ):
            for body in BODIES:
                answer = await hub.http.request(method, path, content=body, headers=headers)
                assert_refusal_or_success(answer.status_code, answer.content, f"{method} {path} {body[:80]!r}")


@in_loop
async def test_no_path_makes_the_service_fail(place):
    async with place.hub() as hub:
        person = await hub.person()
        headers = {"Authorization": f"Bearer {person.tokens['funcx_service']}"}
        ids = ["x", "%00", "..", "a" * 5000, NOWHERE, NOWHERE.upper(), "%ff", "{}"]
        for prefix in ("/v2/endpoints/", "/v2/functions/", "/v2/tasks/", "/v2/taskgroup/", "/v3/endpoints/", "/"):
            for one in ids:
                for method in ("GET", "DELETE", "POST", "PATCH"):
                    for suffix in ("", "/status", "/submit", "/lock"):
                        answer = await hub.http.request(method, f"{prefix}{one}{suffix}", headers=headers)
                        what = f"{method} {prefix}{one[:50]}{suffix}"
                        if (method, answer.url.path) == ("GET", "/"):
                            continue  # the first page, to which `..` leads
                        assert 400 <= answer.status_code < 500, what
                        assert_refusal_or_success(answer.status_code, answer.content, what)


def assert_refusal_or_success(status: int, content: bytes, what: str) -> None:
    assert status < 500, what
    document = json.loads(content)
    if status >= 400:
        assert document["code"], what
        assert document["reason"], what
        assert document["http_status_code"] == status, what
        assert document["failure"]["stage"] == "hub", what
        assert "Traceback" not in content.decode(), what


@in_loop
async def test_a_defect_is_a_500_in_the_same_form_without_its_details(place):
    async with place.hub() as hub:
        person = await hub.person()
        await hub.hub.store.close()
        hub.hub.store._sessions.configure(bind=None)  # nothing works any more
        answer = await person.call("GET", "/v2/endpoints")
        assert answer.status_code == 500
        assert answer.json()["code"] == "INTERNAL_ERROR"
        assert "Traceback" not in answer.text


@in_loop
async def test_somebody_elses_person_object_is_not_enough(place):
    async with place.hub() as hub:
        person = await hub.person()
        impostor = Person(person.id, "guessed", hub.http, {"funcx_service": person.id})
        await impostor.refused(401, "GET", "/v2/endpoints")
