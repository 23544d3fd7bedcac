"""Rules under which two identities reach one account, each shown by two identities."""

from __future__ import annotations

from typing import Any

import pytest

from endpoint.manager.mapping_collisions import Collision, Guest, Report, collisions_among, possible_collisions
from endpoint.manager.mapping_rules import first_hit, ready
from endpoint.manager.mapping_types import Hit, Rules, documents_of

Rule = tuple[str, str, str]


def data(*rules: Rule) -> list[dict[str, Any]]:
    written = [{"source": source, "match": match, "output": output} for source, match, output in rules]
    return [{"DATA_TYPE": "expression_identity_mapping#1.0.0", "mappings": written}]


def report(*rules: Rule) -> Report:
    return possible_collisions(documents_of(data(*rules)))


A = ("{username}", r"(.*)@a\.org", "{0}")
COLLIDING = {
    "two domains, the same names": [A, ("{username}", r"(.*)@b\.org", "{0}")],
    "a domain that doesn't matter": [("{username}", "(.*)@.*", "{0}")],
    "a domain of two": [("{username}", "(.*)@(a|b).org", "{0}")],
    "something that may be there": [("{username}", r"(.*)@(www\.)?a\.org", "{0}")],
    "a group account": [("{username}", r"(alice|bob)@a\.org", "globus")],
    "a name that others may have": [A, ("{username}", r"boss@b\.org", "alice")],
    "the same with a prefix": [("{username}", r"(.*)@a\.org", "u_{0}"), ("{username}", r"boss@b\.org", "u_alice")],
    "names run together": [("{username}", r"(.*)\.(.*)@a\.org", "{0}{1}")],
    "names joined by what may be in them": [("{username}", r"(.*)\.(.*)@a\.org", "{0}_{1}")],
    "one account for two ids": [("{id}", "1-2", "alice"), ("{id}", "3-4", "alice")],
    "alternatives that others may have": [
        ("{username}", r"(alice|bob)@a\.org", "{0}"),
        ("{email}", "bob@c.org", "bob"),
    ],
}


@pytest.mark.parametrize("rules", COLLIDING.values(), ids=COLLIDING.keys())
def test_a_collision_is_shown_by_two_identities_that_reach_the_account(rules):
    found = report(*rules).collisions

    assert found
    (document,) = documents_of(data(*rules))
    assert isinstance(document, Rules)
    for collision in found:
        for guest in collision.guests:
            fields = dict.fromkeys(("username", "email", "id"), guest.who)
            hit = first_hit(ready(document.rules), [{**fields, "status": "used"}])
            assert hit is not None
            assert hit.output == collision.account
        assert len({guest.who for guest in collision.guests}) == len(collision.guests) > 1


SAFE = {
    "one domain": [A],
    "one domain, two rules for the same people": [A, ("{username}", r"(jdoe)@a\.org", "{0}")],
    "a rule that never decides": [A, ("{username}", r"jdoe@a\.org", "jdoe")],
    "a prefix for each domain": [
        ("{username}", r"(.*)@a\.org", "a_{0}"),
        ("{username}", r"(.*)@b\.org", "b_{0}"),
    ],
    "the domain stays": [("{username}", "(.*)@(.*)", "{0}@{1}")],
    "people one by one": [("{id}", "1-2", "alice"), ("{id}", "3-4", "bob")],
}


@pytest.mark.parametrize("rules", SAFE.values(), ids=SAFE.keys())
def test_rules_that_keep_people_apart_are_not_reported(rules):
    assert report(*rules).collisions == []


def test_a_collision_names_the_rules_and_the_people():
    (found,) = report(A, ("{username}", r"(.*)@b\.org", "{0}")).collisions

    assert str(found) == "document 1, rule 1; and document 1, rule 2: jdoe@a.org and jdoe@b.org become jdoe"


@pytest.mark.parametrize("field", ["email", "name", "organization"])
def test_a_rule_that_goes_by_what_is_nobodys_own_is_noted(field):
    (note,) = report((f"{{{field}}}", "(.*)", "{0}")).notes

    assert field in note


@pytest.mark.parametrize("match", [r"(.*)\1", "(?:a)"])
def test_a_match_that_is_not_understood_is_noted(match):
    (note,) = report(("{username}", match, "x")).notes

    assert "not looked at" in note


def test_a_program_is_noted():
    documents = documents_of([{"DATA_TYPE": "external_identity_mapping#1.0.0", "command": ["/bin/ask"]}])

    assert possible_collisions(documents).notes == ["document 1, program /bin/ask: what it answers can't be foreseen"]


def test_thousands_of_rules_are_looked_at_as_far_as_goes():
    people = [("{username}", rf"u{number}@a\.org", f"u{number}") for number in range(3000)]

    found = report(*people, ("{username}", "(.*)@b.org", "{0}"))

    assert any("many rules" in note for note in found.notes)


def test_two_identities_of_one_person_are_no_collision_and_two_people_are():
    alice, again, bob = Hit("1", "alice", 1, 1), Hit("2", "alice", 1, 2), Hit("3", "alice", 1, 2)

    assert collisions_among([("a", "person", alice), ("b", "person", again)]) == []
    assert collisions_among([("a", "person", alice), ("b", "other", bob)]) == [
        Collision("alice", (Guest("a", "document 1, rule 1"), Guest("b", "document 1, rule 2")))
    ]
