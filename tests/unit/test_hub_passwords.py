"""Passwords of people: what is kept, which are taken, how often somebody may try, and where a code may go."""

from __future__ import annotations

import pytest

from endpoint.errors import UsageError
from endpoint.hub.attempts import FIRST_WAIT_S, FORGET_S, FREE, LONGEST_WAIT_S, MAX_ACCOUNTS, Attempts
from endpoint.hub.logins import meets_challenge
from endpoint.hub.pages import sign_in_page
from endpoint.hub.passwords import NOBODY, check_new_password, hash_password, is_password
from endpoint.hub.people import check_account
from endpoint.hub.refusals import Refusal
from endpoint.hub.signin import target_of

HOST = "hub.example:5000"


class Clock:
    now = 1000.0

    def __call__(self) -> float:
        return self.now


def test_a_hash_is_of_one_password_and_says_nothing_of_it():
    kept = hash_password("correct horse")

    assert is_password("correct horse", kept)
    assert not is_password("correct horsf", kept)
    assert "correct" not in kept
    assert kept != hash_password("correct horse")


def test_a_letter_typed_in_two_ways_is_the_same_password():
    assert is_password("cafe\u0301 au lait", hash_password("caf\u00e9 au lait"))


def test_nobody_has_the_hash_that_stands_for_nobody():
    assert not is_password("", NOBODY)
    assert len(NOBODY) == len(hash_password("anything"))


@pytest.mark.parametrize(
    "password",
    ["", "too short", "x" * 300, "aaaaaaaaaaaa", "alice12345", "Alice-alice", "with\x07a bell", "a\nline here"],
)
def test_a_password_that_is_easy_to_guess_is_refused(password):
    with pytest.raises(UsageError):
        check_new_password(password, "alice")


def test_a_long_password_may_contain_the_name():
    check_new_password("alice in wonderland", "alice")


def test_a_name_is_one_word_of_plain_letters_and_digits():
    check_account("alice-b.2", "hub.example.org", "Ålice", "")


@pytest.mark.parametrize("name", ["", "a b", "../x", "-x", "é", "x" * 65, "a@b", "a\n"])
def test_other_names_are_refused(name):
    with pytest.raises(UsageError):
        check_account(name, "hub.example")


@pytest.mark.parametrize("domain", ["", "a b", "x@y", ".", "-", "x" * 300, "hub.example\n"])
def test_what_is_no_domain_is_refused(domain):
    with pytest.raises(UsageError):
        check_account("alice", domain)


def test_after_some_wrong_passwords_each_next_one_waits_longer():
    clock = Clock()
    attempts = Attempts(clock)
    assert [attempts.begin("alice") for _ in range(FREE)] == [0.0] * FREE

    waits = []
    for _ in range(10):
        waits.append(attempts.begin("alice"))
        clock.now += waits[-1]
        assert attempts.begin("alice") == 0.0

    assert waits[:3] == [FIRST_WAIT_S, 2 * FIRST_WAIT_S, 4 * FIRST_WAIT_S]
    assert max(waits) == LONGEST_WAIT_S
    assert attempts.begin("bob") == 0.0


def test_looking_too_early_does_not_make_the_wait_longer():
    clock = Clock()
    attempts = Attempts(clock)
    for _ in range(FREE):
        attempts.begin("alice")

    assert [attempts.begin("alice") for _ in range(50)] == [FIRST_WAIT_S] * 50


def test_success_and_time_start_the_count_again():
    clock = Clock()
    attempts = Attempts(clock)
    for account in ("alice", "bob"):
        for _ in range(FREE):
            attempts.begin(account)

    attempts.succeeded("alice")
    assert attempts.begin("alice") == 0.0
    assert attempts.begin("bob") > 0.0
    clock.now += FORGET_S + 1
    assert attempts.begin("bob") == 0.0


def test_the_accounts_that_are_remembered_are_bounded():
    attempts = Attempts(Clock())
    for number in range(MAX_ACCOUNTS + 100):
        attempts.begin(f"nobody-{number}")

    assert len(attempts._failed) == MAX_ACCOUNTS


def test_the_verifier_of_rfc_7636_meets_its_challenge():
    challenge = "E9Melhoa2OwvFrEMTJguCHaoeK1t8URWbuGJSstw-cM"

    assert meets_challenge("dBjftJeZ4CVP-mB92K27uhbUJU1p1r_wW1gFWFOEjXk", challenge)
    assert not meets_challenge("dBjftJeZ4CVP-mB92K27uhbUJU1p1r_wW1gFWFOEjXl", challenge)
    assert not meets_challenge("", challenge)


def test_a_code_may_go_to_the_hubs_own_page_and_to_this_machine():
    assert target_of(f"http://{HOST}/v2/web/auth-code", HOST).loopback == ""
    assert target_of(f"https://{HOST}/v2/web/auth-code", HOST).loopback == ""
    assert target_of("http://localhost:8123/done?x=1", HOST).loopback == "http://localhost:8123"
    assert target_of("http://127.0.0.1:9/", HOST).loopback == "http://127.0.0.1:9"


@pytest.mark.parametrize(
    "uri",
    [
        "",
        "https://evil.example/v2/web/auth-code",
        "http://hub.example/v2/web/auth-code",
        f"http://{HOST}/v2/web/auth-code/../../x",
        f"http://{HOST}@evil.example/v2/web/auth-code",
        f"http://user@{HOST}/v2/web/auth-code",
        f"javascript://{HOST}/v2/web/auth-code",
        "https://localhost:8123/",
        "http://localhost.evil.example/",
        "http://localhost:80a/",
        "http://localhost:1/\r\nSet-Cookie: a=b",
        "http://localhost:1/#fragment",
        "http://localhost\\@evil.example/",
        "myapp://callback",
        "http://[::1/",
    ],
)
def test_a_code_goes_nowhere_else(uri):
    with pytest.raises(Refusal):
        target_of(uri, HOST)


def test_who_forgot_the_slash_is_told():
    with pytest.raises(Refusal) as caught:
        target_of("http://localhost:5000v2/web/auth-code", "localhost:5000")

    assert "slash at its end" in caught.value.failure.hint


def test_what_a_program_says_of_itself_is_text_on_the_page():
    answer = sign_in_page(
        program="<script>alert(1)</script>",
        client_id="x",
        allows=["<b>"],
        hidden={'"><script>': '"><script>'},
        name='"><script>',
        problem="<script>",
    )

    assert b"<script" not in answer.body
    assert b"&lt;script&gt;alert(1)" in answer.body
    assert "script-src" not in answer.headers["content-security-policy"]
    assert "default-src 'none'" in answer.headers["content-security-policy"]
