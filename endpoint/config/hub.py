"""The file of `compute-hub serve --config` as a typed value. Defaults and descriptions are in `hub.schema.json`."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from endpoint.config.check import check
from endpoint.config.model import read_text
from endpoint.config.parse import parse_yaml

SCHEMA = "hub"
PATHS = ("directory", "database", "log_file")


@dataclass(frozen=True)
class TlsConfig:
    """The block `listen.tls`."""

    certificate: Path
    key: Path


@dataclass(frozen=True)
class ListenConfig:
    """The block `listen`."""

    host: str
    port: int
    tls: TlsConfig | None


@dataclass(frozen=True)
class BrokerConfig:
    """The block `broker`: a RabbitMQ that somebody else runs."""

    amqp_url: str
    management_url: str
    user: str
    password_file: Path


@dataclass(frozen=True)
class HubConfig:
    """Each field is the option of that name in `hub.schema.json`; paths have no `~` and don't depend on where we are.

    times, logins, limits: the blocks as written, with defaults; `endpoint.hub.settings` gives their options types.
    """

    listen: ListenConfig
    directory: Path | None
    database: Path | None
    broker: BrokerConfig | None
    log_file: Path | None
    log_format: Literal["text", "json"]
    debug: bool
    times: Mapping[str, float]
    logins: Mapping[str, float]
    limits: Mapping[str, float]


def load_hub_config(path: Path | None) -> HubConfig:
    """Read a hub's file; without one, everything is a default.

    Raises ConfigError: unreadable, or not valid, with all problems and their places.
    """
    text, source = ("", SCHEMA) if path is None else (read_text(path), str(path))
    values: dict[str, Any] = check(parse_yaml(text, source), SCHEMA)
    folder = Path() if path is None else path.parent
    for name in PATHS:
        values[name] = None if values[name] is None else _located(folder, values[name])
    values["listen"] = _listen(folder, values["listen"])
    if values["broker"] is not None:
        broker = values["broker"]
        values["broker"] = BrokerConfig(**broker | {"password_file": _located(folder, broker["password_file"])})
    return HubConfig(**values)


def _listen(folder: Path, values: Mapping[str, Any]) -> ListenConfig:
    tls = values["tls"]
    files = None if tls is None else TlsConfig(_located(folder, tls["certificate"]), _located(folder, tls["key"]))
    return ListenConfig(values["host"], int(values["port"]), files)


def _located(folder: Path, name: str) -> Path:
    return (folder.expanduser() / Path(name).expanduser()).absolute()
