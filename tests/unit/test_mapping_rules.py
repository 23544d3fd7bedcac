"""The rules of an identity mapping: which decides, what it gives, and what hostile identities can't do with it."""

from __future__ import annotations

from typing import Any

import pytest
from globus_identity_mapping.loader import load_mappers
from hypothesis import given
from hypothesis import strategies as st

from endpoint.config.mapping_faults import mapping_faults
from endpoint.manager.mapping_rules import LONGEST_FIELD, first_hit, ready, trials
from endpoint.manager.mapping_types import Hit, Outcome, Rules, documents_of

EXPRESSION = "expression_identity_mapping#1.0.0"


def mapping(*rules: tuple[str, str, str], **more: Any) -> list[dict[str, Any]]:
    written = [{"source": source, "match": match, "output": output} | more for source, match, output in rules]
    return [{"DATA_TYPE": EXPRESSION, "mappings": written}]


def person(number: str = "1", **fields: Any) -> dict[str, Any]:
    return {"id": number, "username": "alice@example.org", "status": "used"} | fields


def hit(rules: list[dict[str, Any]], *identities: dict[str, Any]) -> Hit | None:
    (document,) = documents_of(rules)
    assert isinstance(document, Rules)
    return first_hit(ready(document.rules), identities)


def account(rules: list[dict[str, Any]], *identities: dict[str, Any]) -> str | None:
    found = hit(rules, *identities)
    return found.output if found else None


STAFF = ("{username}", r"(.*)@example\.org", "{0}")


def test_a_rule_gives_what_its_groups_caught():
    assert hit(mapping(STAFF), person()) == Hit("1", "alice", 1, 1)


def test_the_first_rule_decides_also_where_a_later_one_fits_an_earlier_identity():
    rules = mapping(("{username}", "bob@example.org", "robert"), STAFF)

    assert hit(rules, person(), person("2", username="bob@example.org")) == Hit("2", "robert", 1, 1)


def test_of_two_identities_that_one_rule_fits_the_first_decides():
    assert hit(mapping(STAFF), person("2", username="bob@example.org"), person()) == Hit("2", "bob", 1, 1)


def test_an_identity_without_an_id_is_nobody():
    assert account(mapping(STAFF), person() | {"id": None}) is None
    assert account(mapping(STAFF), person() | {"id": ["1"]}) is None


def test_the_id_may_be_called_sub():
    identity = {"sub": "7", "username": "alice@example.org", "status": "private"}

    assert hit(mapping(("{id}", "7", "seven")), identity) == Hit("7", "seven", 1, 1)


@pytest.mark.parametrize("status", ["unused", "closed", None, 1, ["used"]])
def test_an_identity_that_nobody_logged_in_with_maps_to_nobody(status):
    assert account(mapping(STAFF), person(status=status)) is None


def test_all_of_the_text_must_fit_also_with_alternatives_that_have_no_parentheses():
    rules = mapping(("{username}", r"alice@example\.org|bob@example\.org", "team"))

    assert account(rules, person()) == "team"
    assert account(rules, person(username="bob@example.org")) == "team"
    assert account(rules, person(username="alice@example.org.evil.com")) is None
    assert account(rules, person(username="evil-bob@example.org")) is None


@pytest.mark.parametrize(
    "name", ["alice@example.org\n", "al\nice@example.org", "a\0@example.org", "\u2028@example.org"]
)
def test_control_characters_fit_nothing(name):
    assert account(mapping(STAFF), person(username=name)) is None


def test_a_field_is_not_filled_in_again_by_what_somebody_wrote_into_it():
    rules = mapping(("{name}:{username}", "(.*):alice@example.org", "{0}_{organization}"))

    assert account(rules, person(name="ann", organization="root")) == "ann_root"
    assert account(rules, person(name="{organization}", organization="root")) is None


def test_a_rule_that_needs_a_missing_field_leaves_the_others_as_they_are():
    rules = mapping(("{email}", "(.*)@example.com", "{0}"), STAFF)

    assert account(rules, person(), person("2", email="eve@example.com")) == "eve"
    assert account(rules, person()) == "alice"


@pytest.mark.parametrize("value", ["x" * (LONGEST_FIELD + 1), 5, True, None, ["alice@example.org"], {"a": 1}])
def test_a_field_that_is_long_or_no_text_is_not_there(value):
    assert account(mapping(("{username}", ".*", "all")), person(username=value)) is None


def test_a_literal_rule_takes_its_match_as_it_is():
    rules = mapping(("{username}", "a.b*(c)@example.org", "abc"), literal=True)

    assert account(rules, person(username="a.b*(c)@example.org")) == "abc"
    assert account(rules, person(username="axbbc@example.org")) is None


def test_case_can_be_ignored():
    assert account(mapping(STAFF, ignore_case=True), person(username="Alice@EXAMPLE.org")) == "Alice"


@pytest.mark.parametrize("output", ["{1}", "{-5}", "{nothing}"])
def test_an_output_that_needs_what_is_not_there_fits_nobody(output):
    (document,) = documents_of(mapping(("{username}", r"(.*)@example\.org", output)))
    assert isinstance(document, Rules)

    (trial,) = trials(ready(document.rules), [person()])

    assert (trial.outcome, trial.text, trial.groups) == (Outcome.NO_FIELD, "alice@example.org", ("alice",))
    assert account(mapping(("{username}", r"(.*)@example\.org", output)), person()) is None


def test_a_trial_tells_the_text_and_the_groups_and_why_not():
    rules = mapping(STAFF, ("{email}", ".*", "x"))
    (document,) = documents_of(rules)
    assert isinstance(document, Rules)

    found = list(trials(ready(document.rules), [person(), person("2", status="unused"), person("3", username="x@y.z")]))

    assert [(trial.rule, trial.identity, trial.outcome) for trial in found] == [
        (1, "1", Outcome.HIT),
        (1, "2", Outcome.UNUSED),
        (1, "3", Outcome.NO_MATCH),
        (2, "1", Outcome.NO_FIELD),
        (2, "2", Outcome.UNUSED),
        (2, "3", Outcome.NO_FIELD),
    ]
    assert (found[0].text, found[0].groups, found[0].output) == ("alice@example.org", ("alice",), "alice")


# Small alphabets, so that rules and identities often meet.
NAMES = st.sampled_from(["alice", "bob", "a.b", "", "alice@x"])
DOMAINS = st.sampled_from(["a.org", "b.org", "A.org"])
MATCHES = st.sampled_from([r"(.*)@a\.org", "(.*)@(a|b).org", "(alice)@.*", "(a?)(.*)@b.org", "(alice|bob)@.*", "(.*)"])
RULES = st.tuples(
    st.sampled_from(["{username}", "{email}", "{username}{email}"]), MATCHES, st.sampled_from(["{0}", "x{0}", "team"])
)


@st.composite
def people(draw: st.DrawFn) -> list[dict[str, Any]]:
    count = draw(st.integers(1, 3))
    return [
        person(
            str(number),
            username=f"{draw(NAMES)}@{draw(DOMAINS)}",
            email=f"{draw(NAMES)}@{draw(DOMAINS)}",
            status=draw(st.sampled_from(["used", "private", "unused"])),
        )
        for number in range(count)
    ]


@given(st.lists(RULES, min_size=1, max_size=4), people(), st.booleans())
def test_what_decides_is_what_decides_at_the_official_endpoint(rules, identities, ignore_case):
    data = mapping(*rules, ignore_case=ignore_case)
    (official,) = load_mappers(data, "connector", "endpoint")
    by_rule = [found for found in official.map_identities(identities) if found]
    expected = next(((who, outputs[0]) for who, outputs in by_rule[0].items()), None) if by_rule else None

    found = hit(data, *identities)

    assert (found and (found.identity, found.output)) == expected


SAID = [
    ((r"{username}", r"[a-z]*@example.org", "x"), "match", "[ has no meaning here but itself"),
    ((r"{username}", r"^(.*)@example.org", "{0}"), "match", "^ has no meaning here but itself"),
    ((r"{username}", r"(.+)@example.org", "{0}"), "match", "+ has no meaning here but itself"),
    ((r"{username}", r"a|b", "x"), "match", "whatever begins with the first alternative"),
    ((r"{username}", r"(.*)@a.org", "{1}"), "output", "there is no group {1}: the match has 1"),
    ((r"{username}", r"(.*)@a.org", "{-1}"), "output", "there is no group {-1}"),
    ((r"username", r"(.*)", "{0}"), "source", "for everybody or nobody"),
    ((r"{0}", r"(.*)", "{0}"), "source", "only the output can have groups"),
]


@pytest.mark.parametrize(("rule", "key", "words"), SAID, ids=lambda value: value if isinstance(value, str) else "")
def test_what_was_hardly_meant_is_a_warning_at_its_place(rule, key, words):
    found = list(mapping_faults(mapping(rule)))

    assert [(fault.path, fault.warning) for fault in found] == [((0, "mappings", 0, key), True)]
    assert words in found[0].message


@pytest.mark.parametrize("match", ["(", "a)|(b", "*a", "a.*?b", r"\w*", "a\\", "(" * 200 + ")" * 199])
def test_a_match_that_the_package_refuses_is_an_error(match):
    found = list(mapping_faults(mapping(("{username}", match, "x"))))

    assert [(fault.path, fault.warning) for fault in found] == [((0, "mappings", 0, "match"), False)]


def test_the_signs_of_a_literal_rule_stand_for_themselves():
    assert list(mapping_faults(mapping(("{username}", "a+b|c[1]$", "x"), literal=True))) == []


@pytest.mark.parametrize("data", [None, {}, [3], [{"mappings": 3}], [{"mappings": [3, {"match": 3}]}]])
def test_faults_of_form_are_not_told_twice(data):
    assert list(mapping_faults(data)) == []
