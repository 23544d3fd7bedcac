"""The file that keeps an endpoint's id, as commands and managers read it."""

from __future__ import annotations

import uuid
from pathlib import Path

import pytest

from endpoint.config.endpoint_json import store_endpoint_id, stored_endpoint_id
from endpoint.errors import ConfigError, ExitStatus


def test_the_id_that_was_stored_is_read_again_and_nothing_else_is_left(tmp_path: Path) -> None:
    endpoint_id = str(uuid.uuid4())
    store_endpoint_id(tmp_path, endpoint_id)
    store_endpoint_id(tmp_path, endpoint_id)

    assert stored_endpoint_id(tmp_path) == endpoint_id
    assert [path.name for path in tmp_path.iterdir()] == ["endpoint.json"]


def test_before_the_first_registration_there_is_no_id(tmp_path: Path) -> None:
    assert stored_endpoint_id(tmp_path) is None


@pytest.mark.parametrize("text", ["", "{", "[]", "{}", '{"endpoint_id": 5}', '{"endpoint_id": "mine"}', "\xff"])
def test_a_broken_file_is_a_configuration_error_that_says_what_to_do(tmp_path: Path, text: str) -> None:
    (tmp_path / "endpoint.json").write_bytes(text.encode("latin-1"))

    with pytest.raises(ConfigError) as caught:
        stored_endpoint_id(tmp_path)

    assert str(tmp_path / "endpoint.json") in caught.value.failure.reason
    assert "remove it" in caught.value.failure.hint
    assert caught.value.exit_status is ExitStatus.BAD_CONFIG


def test_a_directory_that_can_not_be_written_is_a_configuration_error(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="can't be written"):
        store_endpoint_id(tmp_path / "gone", str(uuid.uuid4()))
