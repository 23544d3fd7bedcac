"""The hub's file: it agrees with its schema in both directions, and the command line wins over it."""

from __future__ import annotations

from dataclasses import MISSING, fields, replace
from pathlib import Path
from typing import Any

import pytest

from endpoint.cli.hub_config import FromSchema, Given, with_options
from endpoint.config.hub import BrokerConfig, HubConfig, ListenConfig, TlsConfig, load_hub_config
from endpoint.config.schemas import load_schema
from endpoint.errors import ConfigError, UsageError
from endpoint.hub.settings import HubSettings, settings_from

OPTIONS = load_schema("hub")["properties"]
NUMBERS = {
    name: option for block in ("times", "logins", "limits") for name, option in OPTIONS[block]["properties"].items()
}
NOTHING = Given(
    embedded=None,
    amqp_url=None,
    management_url=None,
    broker_user=None,
    broker_password_file=None,
    database=None,
    host=None,
    port=None,
    tls_certificate=None,
    tls_key=None,
    log_file=None,
    json_logs=False,
    debug=False,
)
BROKER = """\
database: hub.db
broker:
  amqp_url: amqp://rabbit/compute
  management_url: http://rabbit:15672
  user: hub
  password_file: secret
"""


def config_of(folder: Path, text: str) -> HubConfig:
    (folder / "hub.yaml").write_text(text)
    return load_hub_config(folder / "hub.yaml")


@pytest.mark.parametrize(
    ("model", "options"),
    [
        (HubConfig, OPTIONS),
        (ListenConfig, OPTIONS["listen"]["properties"]),
        (TlsConfig, OPTIONS["listen"]["properties"]["tls"]["properties"]),
        (BrokerConfig, OPTIONS["broker"]["properties"]),
    ],
)
def test_a_model_has_the_options_of_its_block_and_no_defaults(model: Any, options: dict[str, Any]) -> None:
    assert {field.name for field in fields(model)} == set(options)
    assert {field.default for field in fields(model)} == {MISSING}


def test_the_settings_are_the_numbers_of_the_schema_with_their_units_and_no_defaults() -> None:
    expected = {
        name + ("_s" if option["x-unit"] == "seconds" else ""): "int" if option["type"] == "integer" else "float"
        for name, option in NUMBERS.items()
    }

    assert {field.name: field.type for field in fields(HubSettings)} == {"database": "Path", **expected}
    assert {field.default for field in fields(HubSettings)} == {MISSING}


def test_without_a_file_everything_is_the_default_of_the_schema() -> None:
    config = load_hub_config(None)

    assert config.listen == ListenConfig(**{name: option["default"] for name, option in _of("listen")})
    assert (config.directory, config.database, config.broker, config.log_file) == (None, None, None, None)
    settings = settings_from(config, Path("/hub.db"))
    for name, option in NUMBERS.items():
        assert vars(settings).get(name, vars(settings).get(f"{name}_s")) == option["default"], name


def _of(block: str) -> list[tuple[str, dict[str, Any]]]:
    return list(OPTIONS[block]["properties"].items())


def test_what_a_file_says_arrives_in_the_settings_and_the_rest_stays(tmp_path: Path) -> None:
    config = config_of(tmp_path, "times: {start_wait: 30, command_expiry: 60}\nlimits: {max_tasks: 7}\n")

    settings = settings_from(config, tmp_path / "hub.db")

    usual = settings_from(load_hub_config(None), tmp_path / "hub.db")
    assert settings == replace(usual, start_wait_s=30, command_expiry_s=60, max_tasks=7)
    assert repr(settings.command_expiry_s) == "60"
    assert repr(settings.start_wait_s) == "30.0"


def test_paths_of_a_file_are_looked_for_beside_it_or_at_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.chdir("/")

    existing = config_of(tmp_path, BROKER + "log_file: ~/hub.log\n")

    assert existing.database == tmp_path / "hub.db"
    assert existing.broker is not None
    assert existing.broker.password_file == tmp_path / "secret"
    assert existing.log_file == tmp_path / "home" / "hub.log"
    assert config_of(tmp_path, "directory: /srv/hub\n").directory == Path("/srv/hub")


def test_a_bad_file_is_told_with_every_place(tmp_path: Path) -> None:
    with pytest.raises(ConfigError) as caught:
        config_of(tmp_path, "debug: loud\nlisten:\n  prot: 1\nlog_file: a\nlog_file: b\n")

    file = tmp_path / "hub.yaml"
    assert caught.value.failure.for_admin().splitlines()[1:] == [
        f"{file}:1:1: debug: must be true or false, not 'loud'",
        f"{file}:3:3: listen.prot: there is no such option here (did you mean 'port'?)",
        f"{file}:5:1: log_file: the key 'log_file' stands here twice (first in line 4)",
    ]


def test_a_file_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"nowhere\.yaml is missing"):
        load_hub_config(tmp_path / "nowhere.yaml")


def test_options_win_over_the_file_and_leave_the_rest_of_it(tmp_path: Path) -> None:
    config = config_of(tmp_path, "directory: one\nlisten: {host: 0.0.0.0, port: 1}\ndebug: true\nlog_format: json\n")

    chosen = with_options(config, replace(NOTHING, port=0, database=tmp_path / "other.db"))

    assert chosen == replace(config, listen=ListenConfig("0.0.0.0", 0, None), database=tmp_path / "other.db")
    assert with_options(config, NOTHING) == config
    plain = load_hub_config(None)
    assert with_options(plain, replace(NOTHING, json_logs=True, debug=True)) == replace(
        plain, log_format="json", debug=True
    )


def test_an_option_for_one_kind_of_broker_takes_the_place_of_the_other_kind_in_the_file(tmp_path: Path) -> None:
    existing, own = config_of(tmp_path, BROKER), config_of(tmp_path, "directory: own\ndatabase: hub.db\n")
    given = replace(
        NOTHING,
        amqp_url="amqp://other",
        management_url="http://other",
        broker_user="u",
        broker_password_file=Path("p"),
    )

    embedded = with_options(existing, replace(NOTHING, embedded=Path("/srv/own")))
    assert (embedded.directory, embedded.broker) == (Path("/srv/own"), None)
    other = with_options(own, given)
    assert (other.directory, other.broker) == (None, BrokerConfig("amqp://other", "http://other", "u", Path("p")))


def test_the_files_for_https_are_beside_the_file_and_options_win_over_each_of_them(tmp_path: Path) -> None:
    config = config_of(tmp_path, "listen: {tls: {certificate: hub.pem, key: hub.key}}\n")

    assert config.listen.tls == TlsConfig(tmp_path / "hub.pem", tmp_path / "hub.key")
    chosen = with_options(config, replace(NOTHING, tls_key=Path("other.key")))
    assert chosen.listen.tls == TlsConfig(tmp_path / "hub.pem", Path("other.key"))


def test_one_option_of_a_broker_changes_that_of_the_file(tmp_path: Path) -> None:
    config = config_of(tmp_path, BROKER)

    chosen = with_options(config, replace(NOTHING, broker_user="other"))

    assert config.broker is not None
    assert chosen.broker == replace(config.broker, user="other")


@pytest.mark.parametrize(
    ("text", "given", "says"),
    [
        ("", {"tls_key": Path("k")}, "HTTPS needs --tls-certificate too"),
        ("", {"amqp_url": "amqp://h"}, "needs --management-url and --broker-user and --broker-password-file too"),
        (BROKER, {"amqp_url": "amqp://h", "embedded": Path("/srv")}, "exclude each other"),
        (
            "directory: own\n",
            {"amqp_url": "a", "management_url": "m", "broker_user": "u", "broker_password_file": Path("p")},
            "needs --database",
        ),
    ],
)
def test_a_command_line_that_makes_no_sense_is_refused(tmp_path: Path, text: str, given: Any, says: str) -> None:
    with pytest.raises(UsageError, match=says):
        with_options(config_of(tmp_path, text), replace(NOTHING, **given))


def test_the_help_of_an_option_shows_the_default_of_the_schema() -> None:
    from endpoint.cli.hub import serve

    with serve.make_context("serve", [], resilient_parsing=True) as context:
        shown = [option.get_help_record(context) for option in serve.params if isinstance(option, FromSchema)]

    helps = [record[1] for record in shown if record]
    listen = OPTIONS["listen"]["properties"]
    described = [listen["host"], listen["port"], *listen["tls"]["properties"].values()]
    assert [option["description"] in text for option, text in zip(described, helps, strict=True)] == [True] * 4
    assert ["[default: 127.0.0.1]" in helps[0], "[default: 5000]" in helps[1]] == [True, True]
