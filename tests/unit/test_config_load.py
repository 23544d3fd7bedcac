from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from endpoint.config.faults import Position
from endpoint.config.load import load_yaml
from endpoint.errors import ConfigError


def test_a_document_knows_where_its_keys_and_items_stand() -> None:
    document = load_yaml("a: 1\nb:\n  c:\n  - x\n  - y\n", "f.yaml")

    assert document.data == {"a": 1, "b": {"c": ["x", "y"]}}
    assert document.position(("b", "c")) == Position(3, 3)
    assert document.position(("b", "c", 1)) == Position(5, 5)


def test_the_position_of_what_is_not_there_is_that_of_the_nearest_thing_around_it() -> None:
    document = load_yaml("\nb:\n  c: 1\n", "f.yaml")

    assert document.position(("b", "d", 3)) == Position(2, 1)
    assert document.position(("x",)) == Position(2, 1)
    assert load_yaml("", "f.yaml").position(("x",)) == Position(1, 1)


@pytest.mark.parametrize("text", ["", "---\n", "# a comment\n", "null"])
def test_an_empty_document_is_none(text: str) -> None:
    assert load_yaml(text, "f.yaml").data is None


@pytest.mark.parametrize(
    ("word", "value"),
    [
        ("yes", True),
        ("Off", False),
        ("~", None),
        ("0x1F", 31),
        ("010", 8),
        ("-1_000", -1000),
        ("10:00:00", 36000),
        ("00:30:00", "00:30:00"),
        ("1:30.5", 90.5),
        ("1.5e+3", 1500.0),
        ("1e3", "1e3"),
        ("1.5e3", "1.5e3"),
        ("y", "y"),
        (".inf", float("inf")),
        ("2026-01-31", "2026-01-31"),
        ("'10'", "10"),
        ("!!str 10", "10"),
        ("=", "="),
    ],
)
def test_plain_words_mean_what_the_official_reader_takes_them_for(word: str, value: object) -> None:
    read = load_yaml(f"key: {word}\n", "f.yaml").data["key"]

    assert read == value
    assert type(read) is type(value)


def test_aliases_and_merged_mappings_are_followed_and_own_keys_win() -> None:
    text = "base: &base {a: 1, b: 2}\nmore: &more {c: 3, a: 9}\nuse:\n  <<: [*base, *more]\n  b: 5\nagain: *base\n"

    data = load_yaml(text, "f.yaml").data

    assert data["use"] == {"a": 1, "b": 5, "c": 3}
    assert data["again"] == {"a": 1, "b": 2}


@pytest.mark.parametrize(
    ("text", "where"),
    [
        ("a: 1\na: 2\n", "f.yaml:2:1: a: the key 'a' stands here twice (first in line 1)"),
        ("a:\n  b: 1\n  b: 1\n", "f.yaml:3:3: a.b: the key 'b'"),
        ("a: [1\n", "f.yaml:2:1: "),
        ("a: b: c\n", "f.yaml:1:5: "),
        ("? [a, b]\n: 1\n", "f.yaml:1:3: a key must be a plain word"),
        ("a: !!python/object:os.system x\n", "f.yaml:1:4: a: the tag !!python/object:os.system is not allowed"),
        ("a: !!set {b}\n", "f.yaml:1:4: a: the tag !!set is not allowed"),
        ("a: !!int x\n", "f.yaml:1:4: a: 'x' is not a valid int"),
        ("<<: 3\n", "f.yaml:1:5: only mappings can be merged"),
        ("a: 1\n---\nb: 1\n", "f.yaml:2:1: "),
        ("a: *nothing\n", "f.yaml:1:4: "),
        ("a: \x00\n", "f.yaml:1:4: the character"),
    ],
)
def test_a_bad_document_is_refused_with_its_place(text: str, where: str) -> None:
    with pytest.raises(ConfigError) as caught:
        load_yaml(text, "f.yaml")

    assert caught.value.failure.reason.startswith(where)


def test_a_tab_and_a_colon_in_a_value_get_a_hint() -> None:
    with pytest.raises(ConfigError) as tab:
        load_yaml("a:\n\tb: 1\n", "f.yaml")
    with pytest.raises(ConfigError) as colon:
        load_yaml("a: b: c\n", "f.yaml")

    assert "spaces" in tab.value.failure.reason
    assert "quotes" in colon.value.failure.reason


def test_aliases_can_not_unfold_to_something_huge() -> None:
    lines = ["a0: &a0 [x, x, x, x, x, x, x, x, x, x]"]
    lines += [f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 10)}]" for n in range(1, 9)]

    with pytest.raises(ConfigError, match="too deep or too large"):
        load_yaml("\n".join(lines), "f.yaml")


def test_an_alias_to_itself_is_refused() -> None:
    with pytest.raises(ConfigError, match="too deep or too large"):
        load_yaml("a: &a [*a]\n", "f.yaml")


def test_deep_nesting_is_refused() -> None:
    with pytest.raises(ConfigError):
        load_yaml("[" * 1500 + "]" * 1500, "f.yaml")


@given(st.text(max_size=200) | st.text("ab:- \n\t[]{}'\"&*!|>#%?<,01.\\", max_size=80))
def test_any_text_is_data_or_a_config_error(text: str) -> None:
    try:
        load_yaml(text, "f.yaml")
    except ConfigError as error:
        assert error.failure.reason.startswith("f.yaml")
