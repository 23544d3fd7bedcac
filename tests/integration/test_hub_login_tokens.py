"""Codes, refresh tokens and id tokens of people: once, for who asked, and for a while."""

from __future__ import annotations

import asyncio
import json
from typing import Any
from urllib.parse import urlsplit

import jwt
from jwt.algorithms import RSAAlgorithm

from endpoint.hub.tokens import COMPUTE_SCOPE
from tests.support.hub_peers import in_loop
from tests.support.hub_program import OTHER_ID, PROGRAM_ID, Program, alice


@in_loop
async def test_the_id_token_is_signed_by_the_key_that_the_hub_names(place):
    async with place.hub() as hub:
        identity, program = await alice(hub), Program(hub, {"nonce": "n-1"})
        statement = (await program.log_in())["id_token"]

        config = (await hub.http.get("/.well-known/openid-configuration")).json()
        (key,) = (await hub.http.get(urlsplit(config["jwks_uri"]).path)).json()["keys"]
        public: Any = RSAAlgorithm.from_jwk(json.dumps(key))
        claims = jwt.decode(statement, public, algorithms=["RS256"], audience=PROGRAM_ID, issuer=config["issuer"])

        assert (claims["sub"], claims["nonce"]) == (identity, "n-1")


@in_loop
async def test_a_code_works_once_and_for_who_asked_only(place):
    async with place.hub() as hub:
        await alice(hub)
        program = Program(hub)
        good = await program.sign_in()
        assert (await program.redeem(good)).status_code == 200
        again = await program.redeem(good)
        assert (again.status_code, again.json()["error"]) == (400, "invalid_grant")

        for changed in (
            {"code_verifier": "x" * 43},
            {"code_verifier": ""},
            {"client_id": OTHER_ID},
            {"redirect_uri": "http://localhost:1/"},
        ):
            code = await program.sign_in()
            assert (await program.redeem(code, **changed)).json()["error"] == "invalid_grant"
            assert (await program.redeem(code)).status_code == 400, "a failed attempt spends the code"


@in_loop
async def test_a_code_that_is_too_old_is_refused(place):
    async with place.hub(code_lifetime_s=0.0) as hub:
        await alice(hub)
        program = Program(hub)
        assert (await program.redeem(await program.sign_in())).json()["error"] == "invalid_grant"


@in_loop
async def test_two_programs_with_one_code_do_not_both_get_tokens(place):
    async with place.hub() as hub:
        await alice(hub)
        program = Program(hub)
        code = await program.sign_in()
        answers = await asyncio.gather(*(program.redeem(code) for _ in range(8)))
        assert sorted(answer.status_code for answer in answers) == [200] + [400] * 7


@in_loop
async def test_a_refresh_token_gets_the_next_access_token_and_the_next_refresh_token(place):
    async with place.hub() as hub:
        await alice(hub)
        program = Program(hub)
        first = await program.log_in()
        second = (await program.refresh(first["refresh_token"])).json()

        assert second["scope"] == first["scope"]
        assert second["other_tokens"] == []
        assert second["refresh_token"] != first["refresh_token"]
        assert await program.works(second["access_token"])
        # A program that shares the file of tokens may still have the first one.
        assert (await program.refresh(first["refresh_token"])).status_code == 200
        for token, client_id in ((second["access_token"], PROGRAM_ID), (second["refresh_token"], OTHER_ID)):
            assert (await program.refresh(token, client_id)).json()["error"] == "invalid_grant"


@in_loop
async def test_a_refresh_token_is_bounded_in_time(place):
    async with place.hub(refresh_overlap_s=0.0) as hub:
        await alice(hub)
        program = Program(hub)
        first = await program.log_in()
        assert (await program.refresh(first["refresh_token"])).status_code == 200
        assert (await program.refresh(first["refresh_token"])).status_code == 400
    async with place.hub(refresh_lifetime_s=0.0) as hub:
        assert (await Program(hub).refresh((await Program(hub).log_in())["refresh_token"])).status_code == 400


@in_loop
async def test_who_did_not_ask_for_refresh_tokens_gets_none(place):
    async with place.hub() as hub:
        await alice(hub)
        tokens = await Program(hub, {"access_type": "online", "scope": COMPUTE_SCOPE}).log_in()
        assert "refresh_token" not in tokens
        assert "id_token" not in tokens


@in_loop
async def test_revoking_a_refresh_token_ends_that_login_and_no_other(place):
    async with place.hub() as hub:
        await alice(hub)
        program = Program(hub)
        login, other = await program.log_in(), await program.log_in()
        later = (await program.refresh(login["refresh_token"])).json()

        async def revoke(client_id: str) -> None:
            form = {"token": login["refresh_token"], "client_id": client_id}
            assert (await hub.http.post("/v2/oauth2/token/revoke", data=form)).status_code == 200

        await revoke(OTHER_ID)
        assert await program.works(login["access_token"])
        await revoke(PROGRAM_ID)

        assert not await program.works(login["access_token"])
        assert not await program.works(later["access_token"])
        assert (await program.refresh(later["refresh_token"])).status_code == 400
        assert await program.works(other["access_token"])
        assert (await program.refresh(other["refresh_token"])).status_code == 200


@in_loop
async def test_a_service_can_ask_whose_token_it_is(place):
    async with place.hub() as hub:
        identity, program, service = await alice(hub), Program(hub), await hub.person()
        login = await program.log_in()
        for token in (login["access_token"], login["refresh_token"]):
            answer = await hub.http.post(
                "/v2/oauth2/token/introspect", data={"token": token}, auth=(service.id, service.secret)
            )
            assert (answer.json()["active"], answer.json()["sub"]) == (True, identity)
        form = {"token": login["access_token"], "client_id": PROGRAM_ID}
        assert (await hub.http.post("/v2/oauth2/token/introspect", data=form)).status_code == 401
