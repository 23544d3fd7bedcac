from __future__ import annotations

from pathlib import Path

import pytest

from endpoint.config.load import load_yaml
from endpoint.config.model import ManagerConfig, load_user_config, manager_config
from endpoint.errors import ConfigError, ExitStatus

THREADS = "engine: {type: ThreadPoolEngine}\n"


def _manager(text: str) -> ManagerConfig:
    return manager_config(load_yaml(text, "config.yaml"), Path("/nonexistent/name"))


def test_an_empty_manager_configuration_is_all_defaults() -> None:
    config = _manager("")

    assert config.heartbeat_period == 30
    assert config.pam.enable is False
    assert config.mu_child_ep_grace_period_s == 30
    assert config.allowed_functions is None


def test_a_pam_block_that_says_nothing_enables_pam_and_null_does_not() -> None:
    assert _manager("pam: {}").pam.enable is True
    assert _manager("pam: null").pam.enable is False


def test_ids_come_out_in_one_form() -> None:
    config = _manager("allowed_functions: ['ABCDEF0123456789abcdef0123456789']\n")

    assert config.allowed_functions == ("abcdef01-2345-6789-abcd-ef0123456789",)


def test_the_word_none_is_no_display_name() -> None:
    assert _manager("display_name: None").display_name is None


def test_a_heartbeat_is_never_shorter_than_five_seconds() -> None:
    assert _manager("heartbeat_period: 0.5").heartbeat_period == 5
    assert load_user_config(THREADS + "heartbeat_period: 1\nheartbeat_threshold: 1", "x").heartbeat_threshold == 10


def test_negative_idle_heartbeats_count_as_none() -> None:
    config = load_user_config(THREADS + "idle_heartbeats_soft: -1\nidle_heartbeats_hard: -5\n", "x")

    assert (config.idle_heartbeats_soft, config.idle_heartbeats_hard) == (0, 0)


def test_a_manager_configuration_with_an_engine_says_how_to_migrate_it() -> None:
    with pytest.raises(ConfigError) as caught:
        _manager("display_name: x\nengine:\n  type: GlobusComputeEngine\n")

    assert caught.value.failure.reason.startswith("config.yaml:2:1: engine: ")
    assert "migrate-to-template-capable name" in caught.value.failure.hint
    assert caught.value.exit_status is ExitStatus.BAD_CONFIG


def test_a_file_that_the_configuration_names_must_be_there() -> None:
    with pytest.raises(ConfigError, match=r"config\.yaml:1:1: .*: the file t\.j2 is not there"):
        _manager("user_config_template_path: t.j2\n")


def test_a_user_configuration_keeps_its_engine_as_written_with_defaults() -> None:
    config = load_user_config("engine: {type: ProcessPoolEngine, max_workers: null}\n", "x")

    assert config.engine["max_workers"] is None
    assert config.engine["label"] == "ProcessPoolEngine"
    assert config.paths.endpoint_log is None
