"""What `compute-hub serve` is told: by its file, by the environment, and by its options, which win."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from endpoint.errors import ConfigError, Stage, UsageError

if TYPE_CHECKING:
    from endpoint.config.hub import HubConfig, TlsConfig
    from endpoint.hub.server import ExistingBroker


class FromSchema(click.Option):
    """An option that stands in the hub's schema too: its help is the description and the default (if any) there.

    place: where it is there, such as `listen.host`.
    """

    def __init__(self, *arguments: Any, place: str, **options: Any) -> None:
        super().__init__(*arguments, **options)
        self._place = place

    def get_help_record(self, ctx: click.Context) -> tuple[str, str] | None:
        from endpoint.config.schemas import load_schema  # only when somebody asks for help

        described = load_schema("hub")
        for name in self._place.split("."):
            described = described["properties"][name]
        default = f"  [default: {described['default']}]" if "default" in described else ""
        self.help = f"{described['description']}{default}"
        return super().get_help_record(ctx)


@dataclass(frozen=True)
class Given:
    """What the command line says; None where it says nothing. The flags can only be set, not taken back."""

    embedded: Path | None
    amqp_url: str | None
    management_url: str | None
    broker_user: str | None
    broker_password_file: Path | None
    database: Path | None
    host: str | None
    port: int | None
    tls_certificate: Path | None
    tls_key: Path | None
    log_file: Path | None
    json_logs: bool
    debug: bool

    @property
    def broker(self) -> dict[str, Any]:
        """Those that are about an existing broker, by their names in the file."""
        given = {
            "amqp_url": self.amqp_url,
            "management_url": self.management_url,
            "user": self.broker_user,
            "password_file": self.broker_password_file,
        }
        return {name: value for name, value in given.items() if value is not None}


BROKER_OPTIONS = {
    "amqp_url": "--amqp-url",
    "management_url": "--management-url",
    "user": "--broker-user",
    "password_file": "--broker-password-file",
}


def with_options(config: HubConfig, given: Given) -> HubConfig:
    """`config` with what the command line says in its place.

    An option of one kind of broker takes the place of all that the file says of the other kind. Raises UsageError for
    both kinds on one command line, and for an existing broker that is not told in full.
    """
    listen = replace(
        config.listen,
        host=config.listen.host if given.host is None else given.host,
        port=config.listen.port if given.port is None else given.port,
        tls=_tls(config.listen.tls, given),
    )
    config = replace(
        _with_broker(config, given),
        listen=listen,
        database=given.database or config.database,
        log_file=given.log_file or config.log_file,
        log_format="json" if given.json_logs else config.log_format,
        debug=given.debug or config.debug,
    )
    if config.broker is not None and config.database is None:
        raise UsageError("With --amqp-url the hub needs --database", stage=Stage.HUB)
    return config


def _tls(configured: TlsConfig | None, given: Given) -> TlsConfig | None:
    certificate = given.tls_certificate or (configured.certificate if configured else None)
    key = given.tls_key or (configured.key if configured else None)
    if certificate is None and key is None:
        return None
    if certificate is None or key is None:
        missing = "--tls-key" if key is None else "--tls-certificate"
        raise UsageError(f"HTTPS needs {missing} too", stage=Stage.HUB)
    from endpoint.config.hub import TlsConfig

    return TlsConfig(certificate, key)


def _with_broker(config: HubConfig, given: Given) -> HubConfig:
    if not given.broker:
        return config if given.embedded is None else replace(config, directory=given.embedded, broker=None)
    broker = (vars(config.broker) if config.broker else {}) | given.broker
    missing = [option for name, option in BROKER_OPTIONS.items() if name not in broker]
    if missing:
        raise UsageError(f"An existing broker needs {' and '.join(missing)} too", stage=Stage.HUB)
    if given.embedded is not None:
        raise UsageError("--embedded and --amqp-url exclude each other", stage=Stage.HUB)
    from endpoint.config.hub import BrokerConfig

    return replace(config, directory=None, broker=BrokerConfig(**broker))


def existing_broker(config: HubConfig) -> ExistingBroker | None:
    """The broker that the hub doesn't start itself, with its password. Raises ConfigError where that can't be read."""
    if config.broker is None:
        return None
    from endpoint.hub.server import ExistingBroker

    file = config.broker.password_file
    try:
        password = file.read_text().strip()
    except (OSError, UnicodeDecodeError) as e:
        raise ConfigError(f"The password in {file} can't be read: {e}", stage=Stage.HUB) from e
    return ExistingBroker(config.broker.amqp_url, config.broker.management_url, config.broker.user, password)
