"""People at a hub: signing in with a browser, and what becomes of their accounts."""

from __future__ import annotations

from urllib.parse import parse_qs, urlsplit

from endpoint.hub.attempts import FREE
from endpoint.hub.people import delete_person, set_password
from endpoint.hub.tokens import COMPUTE_SCOPE
from tests.support.browser import Page, read_page
from tests.support.hub_peers import in_loop
from tests.support.hub_program import PASSWORD, Program, alice


@in_loop
async def test_a_person_signs_in_and_the_program_gets_tokens_and_learns_who_it_is(place):
    async with place.hub() as hub:
        identity, program = await alice(hub), Program(hub)

        answer = await program.send(read_page((await program.open()).text))
        assert answer.headers["location"].startswith("/v2/web/auth-code?code=")
        assert answer.headers["location"].endswith("state=a%26b%3Dc")
        code = read_page((await hub.http.get(answer.headers["location"])).text).code
        tokens = (await program.redeem(code)).json()

        assert (tokens["resource_server"], tokens["scope"]) == ("funcx_service", COMPUTE_SCOPE)
        (other,) = tokens["other_tokens"]
        assert (other["resource_server"], other["scope"]) == ("auth.globus.org", "openid")
        assert tokens["refresh_token"] != other["refresh_token"]
        assert await program.works(tokens["access_token"])
        headers = {"Authorization": f"Bearer {other['access_token']}"}
        info = (await hub.http.get("/v2/oauth2/userinfo", headers=headers)).json()
        assert (info["sub"], info["preferred_username"], info["name"]) == (identity, "alice@hub.example", "Alice A.")
        found = await hub.http.get("/v2/api/identities?usernames=alice@hub.example", headers=headers)
        assert [one["id"] for one in found.json()["identities"]] == [identity]


@in_loop
async def test_wrong_names_and_passwords_get_the_same_page_and_no_code(place):
    async with place.hub() as hub:
        await alice(hub)
        program = Program(hub)
        for name, password in (
            ("alice", "wrong"),
            ("nobody", PASSWORD),
            ("", ""),
            ("alice\0", PASSWORD),
            ("é", "\udcff"),
        ):
            answer = await program.send(
                read_page((await program.open()).text), name, password.encode("utf-8", "replace").decode()
            )
            assert answer.status_code == 401
            assert "The user name or the password is wrong" in answer.text
            assert "location" not in answer.headers


@in_loop
async def test_the_full_user_name_does_as_well(place):
    async with place.hub() as hub:
        await alice(hub)
        assert await Program(hub).sign_in(name=" Alice@HUB.example")


@in_loop
async def test_guessing_is_slowed_down_for_the_name_and_the_user_name_together(place):
    async with place.hub() as hub:
        await alice(hub)
        program = Program(hub)
        page = read_page((await program.open()).text)
        names = ("alice", "alice@hub.example") * FREE
        answers = [await program.send(page, name, "wrong") for name in names[:FREE]]
        late = await program.send(page, "alice")

        assert [answer.status_code for answer in answers] == [401] * FREE
        assert late.status_code == 429
        assert "too many attempts" in late.text
        assert late.status_code == (await program.send(page, "alice@hub.example")).status_code


@in_loop
async def test_a_form_that_no_page_of_ours_sent_is_refused(place):
    async with place.hub() as hub:
        await alice(hub)
        program = Program(hub)
        page = read_page((await program.open()).text)

        foreign = await program.send(page, origin="http://evil.example")
        opaque = await program.send(page, origin="null")
        other = await program.send(Page(action=page.action, fields={**page.fields, "form": "x" * 43}))
        hub.http.cookies.clear()
        without_cookie = await program.send(page)

        assert [answer.status_code for answer in (foreign, opaque, other, without_cookie)] == [400] * 4
        assert all(read_page(answer.text).action for answer in (foreign, opaque, other, without_cookie))


@in_loop
async def test_two_pages_can_be_open_at_once(place):
    async with place.hub() as hub:
        await alice(hub)
        program = Program(hub)
        first = read_page((await program.open()).text)
        await program.open()

        assert (await program.send(first)).status_code == 303


@in_loop
async def test_pages_allow_no_script_no_frame_and_nothing_from_elsewhere(place):
    async with place.hub() as hub:
        cookie = (await Program(hub).open()).headers["set-cookie"]
        assert "HttpOnly" in cookie
        assert "samesite=strict" in cookie.lower()
        for path in ("/", "/v2/web/auth-code", "/v2/web/auth-code?code=" + "x" * 43, "/v2/oauth2/authorize"):
            answer = await hub.http.get(path)
            policy = answer.headers["content-security-policy"]
            assert "default-src 'none'" in policy
            assert "frame-ancestors 'none'" in policy
            assert answer.headers["cache-control"] == "no-store"
            assert "<script" not in answer.text


@in_loop
async def test_the_first_page_says_what_the_hub_is_and_nothing_of_its_users(place):
    async with place.hub() as hub:
        await alice(hub)
        text = (await hub.http.get("/")).text
        assert "independent of Globus" in text
        assert "alice" not in text.lower()


@in_loop
async def test_requests_that_this_service_does_not_do_are_refused_on_a_page(place):
    async with place.hub() as hub:
        registered = await hub.person()
        bad: list[dict[str, str]] = [
            {"client_id": "no-uuid"},
            {"client_id": registered.id},
            {"client_id": registered.id.replace("-", "")},
            {"redirect_uri": "https://evil.example/"},
            {"response_type": "token"},
            {"code_challenge": ""},
            {"code_challenge_method": "plain"},
            {"code_challenge_method": ""},
            {"scope": "urn:unknown"},
            {"scope": ""},
            {"state": "x" * 5000},
        ]
        for asks in bad:
            answer = await Program(hub, asks).open()
            assert (answer.status_code, read_page(answer.text).action) == (400, None), asks
            assert "location" not in answer.headers


@in_loop
async def test_a_program_that_listens_on_this_machine_gets_its_answer_there(place):
    async with place.hub() as hub:
        await alice(hub)
        program = Program(hub, {"redirect_uri": "http://localhost:4567/done?a=1"})
        page = await program.open()
        assert "form-action 'self' http://localhost:4567;" in page.headers["content-security-policy"]
        answer = await program.send(read_page(page.text))
        query = parse_qs(urlsplit(answer.headers["location"]).query)
        assert answer.headers["location"].startswith("http://localhost:4567/done?a=1&code=")
        assert query["state"] == ["a&b=c"]
        assert (await program.redeem(query["code"][0])).status_code == 200

        refused = await Program(hub, {"redirect_uri": "http://localhost:4567/", "scope": "urn:unknown"}).open()
        assert refused.status_code == 303
        assert parse_qs(urlsplit(refused.headers["location"]).query)["error"] == ["invalid_scope"]


@in_loop
async def test_a_new_password_ends_the_logins_of_the_old_one(place):
    async with place.hub() as hub:
        await alice(hub)
        program = Program(hub)
        login, code = await program.log_in(), await program.sign_in()
        await set_password(hub.hub.store, "alice", "another long password")

        assert not await program.works(login["access_token"])
        assert (await program.refresh(login["refresh_token"])).status_code == 400
        assert (await program.redeem(code)).status_code == 400
        assert (await program.send(read_page((await program.open()).text))).status_code == 401
        assert await program.sign_in(password="another long password")


@in_loop
async def test_who_gets_a_deleted_persons_name_is_somebody_else(place):
    async with place.hub() as hub:
        first, program = await alice(hub), Program(hub)
        login = await program.log_in()
        await delete_person(hub.hub.store, "alice")
        assert not await program.works(login["access_token"])
        assert (await program.send(read_page((await program.open()).text))).status_code == 401

        assert await alice(hub) != first


@in_loop
async def test_the_database_has_no_password_code_or_token(place, tmp_path):
    async with place.hub() as hub:
        await alice(hub)
        program = Program(hub)
        login, code = await program.log_in(), await program.sign_in()
        raw = b"".join(path.read_bytes() for path in tmp_path.glob("hub.db*"))

    for secret in (PASSWORD, code, login["access_token"], login["refresh_token"]):
        assert secret.encode() not in raw
