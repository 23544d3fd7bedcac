from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from endpoint.config.defaults import config_text, options_schema_text
from endpoint.config.load import load_yaml


@given(st.text(st.characters(exclude_categories=["Cs", "Cc", "Cn"]), min_size=1, max_size=200))
def test_any_display_name_is_read_back_as_it_was_given(name: str) -> None:
    text = config_text(None, {"display_name": name, "public": True, "email": None})

    assert load_yaml(text, "x").data == {"display_name": name, "public": True}


@pytest.mark.parametrize("name", ["yes", "on", "null", "5", "1.5", "~", "a: b", "# x", "'", '"', "-"])
def test_a_display_name_that_looks_like_something_else_stays_text(name: str) -> None:
    assert load_yaml(config_text(None, {"display_name": name}), "x").data == {"display_name": name}


def test_a_configuration_without_settings_is_a_comment() -> None:
    text = config_text(None, {"display_name": None})

    assert text.startswith("#")
    assert load_yaml(text, "x").data is None


def test_the_schema_of_user_options_is_written_without_the_name_that_it_has_among_ours() -> None:
    schema = json.loads(options_schema_text())

    assert "$id" not in schema
    assert set(schema["properties"]) == {"endpoint_setup", "worker_init", "requirements", "environment"}
