"""Which words can name an endpoint on the command line."""

from __future__ import annotations

import pytest

from endpoint.cli.common import checked_name, is_uuid, table
from endpoint.errors import ExitStatus, UsageError


@pytest.mark.parametrize("name", ["default", "nice_normal-name", "91239valid", "a.b", "x" * 128, "ümlaut"])
def test_endpoint_name_is_accepted(name: str) -> None:
    assert checked_name(name) == name


@pytest.mark.parametrize(
    "name",
    [
        *["", "x" * 129, ".hidden", "..", "a/b", "/absolute", "a b", "a\tb", "a\nb", "a\\b", "it's", 'a"b', "a\x00b"],
        "0c9bbcc5-8b8a-4a5e-9c1c-0b5a3a0a9a01",
    ],
)
def test_endpoint_name_that_would_hurt_is_refused_as_wrong_usage(name: str) -> None:
    with pytest.raises(UsageError) as caught:
        checked_name(name)
    assert caught.value.exit_status is ExitStatus.USAGE
    assert caught.value.failure.hint


def test_uuid_is_told_from_a_name() -> None:
    assert is_uuid("0C9BBCC5-8B8A-4A5E-9C1C-0B5A3A0A9A01")
    assert not is_uuid("default")


def test_table_aligns_columns_and_ends_lines_clean() -> None:
    assert table(["A", "Name"], [["long", "x"], ["b", ""]]) == "A     Name\n----  ----\nlong  x\nb"
