"""Options of the NixOS modules, made from the schemas."""

from __future__ import annotations

from typing import Any

import pytest

from endpoint.config.nix_options import nix, nix_options


@pytest.mark.parametrize(
    ("data", "text"),
    [
        ({"a": [1, -2, 0.5, True, None]}, "{ a = [ 1 (-2) 0.5 true null ]; }"),
        ({"$schema": "x", "a b": {}}, '{ "$schema" = "x"; "a b" = { }; }'),
        ('say "${HOME}" \\ and\nmore', '"say \\"\\${HOME}\\" \\\\ and\\nmore"'),
        ([], "[ ]"),
    ],
)
def test_data_is_written_so_that_nix_reads_the_same(data: Any, text: str) -> None:
    assert nix(data) == text


def test_what_a_file_need_not_say_is_null_and_the_schema_says_what_holds_then() -> None:
    period = _option("heartbeat_period")

    assert "type = types.nullOr types.number;" in period
    assert "default = null;" in period
    assert "Default: `30`." in period


def test_what_is_in_no_file_has_its_default_and_all_that_a_type_can_say() -> None:
    text = nix_options()

    assert "default = 90;" in text[text.index("  unit = ") :]
    assert 'types.strMatching "([1-9][0-9]*[KMGT]?|[1-9][0-9]?%|100%)"' in text


def test_options_that_follow_from_others_and_old_ones_are_left_out() -> None:
    text = nix_options()

    for name in ("identity_mapping_config_path", "service_user", "multi_tenant"):
        assert f" {name} = mkOption" not in text


def _option(name: str) -> str:
    return nix_options().split(f" {name} = mkOption {{")[1].split("};")[0]
