"""The two configurations as typed values. Defaults and descriptions are in the schemas, nowhere else."""

from __future__ import annotations

import logging
import uuid
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from endpoint.config.faults import Fault
from endpoint.config.paths import PYTHON_CONFIG
from endpoint.config.report import InvalidConfig, located, refusal
from endpoint.errors import ConfigError

if TYPE_CHECKING:
    from endpoint.config.parse import Document

# What parses and what checks is imported where it is used: a user endpoint whose manager has done both needs neither,
# and they take longer to load than all the rest of it.

log = logging.getLogger(__name__)

SHORTEST_HEARTBEAT = 5.0
LogFormat = Literal["text", "json"]


@dataclass(frozen=True)
class PamConfig:
    """The block `pam` of a manager's configuration."""

    enable: bool
    service_name: str


@dataclass(frozen=True)
class PathsConfig:
    """The block `paths` of a user endpoint's configuration."""

    endpoint_dir: str | None
    endpoint_log: str | None


@dataclass(frozen=True)
class EndpointConfig:
    """What a manager and a user endpoint both have."""

    display_name: str | None
    debug: bool
    high_assurance: bool
    amqp_port: int | None
    heartbeat_period: float
    environment: str | None
    local_compute_services: bool
    allowed_functions: tuple[str, ...] | None
    authentication_policy: str | None
    subscription_id: str | None
    admins: tuple[str, ...] | None
    log_format: LogFormat


@dataclass(frozen=True)
class ManagerConfig(EndpointConfig):
    """`config.yaml`; each field is the option of that name in `endpoint.schema.json`. Ids are lower case."""

    public: bool
    user_config_template_path: Path | None
    user_config_schema_path: Path | None
    identity_mapping_config_path: Path | None
    audit_log_path: Path | None
    pam: PamConfig
    mu_child_ep_grace_period_s: float
    max_blocks_per_user_endpoint: int | None
    max_block_requests_per_minute: int | None
    email: str | None
    force_mu_allow_same_user: bool


@dataclass(frozen=True)
class UserConfig(EndpointConfig):
    """A user endpoint's configuration; each field is the option of that name in `user.schema.json`. Ids are lower case.

    `engine` is the block as written, with defaults; None in it means what a missing option means.
    """

    engine: Mapping[str, Any]
    heartbeat_threshold: float
    shutdown_grace: float
    ack_deadline: float
    idle_heartbeats_soft: int
    idle_heartbeats_hard: int
    endpoint_setup: str | None
    endpoint_teardown: str | None
    paths: PathsConfig


def load_manager_config(path: Path) -> ManagerConfig:
    """Read a manager's `config.yaml`; where its directory is there and the file is not, everything is a default.

    Raises ConfigError: no such endpoint, unreadable, not valid, files that it names not there, or a file of the older
    kind, which configures the engine itself.
    """
    return manager_config(read_manager_document(path), path.parent)


def read_manager_document(path: Path) -> Document:
    """The text of a manager's `config.yaml` as data, not yet checked. Raises ConfigError."""
    folder = path.parent
    if not folder.is_dir():
        raise ConfigError(
            f"There is no endpoint {folder.name!r} (no directory {folder}).",
            hint=f"Make it with `globus-compute-endpoint configure {folder.name}`",
        )
    if (folder / PYTHON_CONFIG).exists():
        raise ConfigError(
            f"{folder / PYTHON_CONFIG}: a configuration that is a Python program is not read.",
            hint=f"Write its options to {path} in YAML, and move {PYTHON_CONFIG} away",
        )
    from endpoint.config.load import load_yaml

    return load_yaml(read_text(path, missing=""), str(path))


def manager_config(document: Document, folder: Path, *, existing: bool = True) -> ManagerConfig:
    """The typed value of a manager's configuration; relative file names are looked for in `folder`.

    existing: whether the files that it names must be there. Raises InvalidConfig.
    """
    if isinstance(document.data, dict) and "engine" in document.data:
        older = Fault(
            ("engine",),
            "this is a configuration of the older kind, without a template; the engine belongs into the template of "
            "the user endpoints' configuration",
        )
        raise InvalidConfig(
            located([older], document.source, document.position),
            hint=f"Run `globus-compute-endpoint migrate-to-template-capable {folder.name}`, which moves it there",
        )
    from endpoint.config.check import check

    values = check(document, "endpoint")
    for name in ("user_config_template_path", "user_config_schema_path", "identity_mapping_config_path"):
        found = _existing(document, folder, name, values[name]) if existing else values[name]
        values[name] = Path(found) if found else None
    values["audit_log_path"] = Path(values["audit_log_path"]) if values["audit_log_path"] else None
    values["pam"] = PamConfig(**values["pam"])
    return ManagerConfig(**_shared(values))


def load_user_config(text: str, source: str) -> UserConfig:
    """Read a user endpoint's configuration, as the template rendered it. Raises ConfigError that tells all problems."""
    return user_config(user_values(text, source))


def user_values(text: str, source: str) -> dict[str, Any]:
    """A user endpoint's configuration as plain values, checked and with defaults. Raises ConfigError."""
    from endpoint.config.check import check
    from endpoint.config.load import load_yaml

    values: dict[str, Any] = check(load_yaml(text, source), "user")
    return values


def user_config(checked: Mapping[str, Any]) -> UserConfig:
    """The typed value of what `user_values` gave, in this process or another one of the same version."""
    values = _shared(dict(checked))
    values["paths"] = PathsConfig(**values["paths"])
    values["heartbeat_threshold"] = max(values["heartbeat_threshold"], 2 * values["heartbeat_period"])
    for name in ("idle_heartbeats_soft", "idle_heartbeats_hard"):
        values[name] = max(0, values[name])
    return UserConfig(**values)


def read_text(path: Path, *, missing: str | None = None) -> str:
    """A configuration file's text; `missing` stands for a file that isn't there. Raises ConfigError."""
    try:
        return path.read_text(encoding="utf-8")
    except FileNotFoundError as error:
        if missing is not None:
            return missing
        raise ConfigError(f"The file {path} is missing.") from error
    except OSError as error:
        raise ConfigError(f"The file {path} can't be read: {error.strerror}.") from error
    except UnicodeDecodeError as error:
        raise ConfigError(f"The file {path} is not UTF-8 text (byte {error.start}).") from error


def _shared(values: dict[str, Any]) -> dict[str, Any]:
    """The options that both kinds have, in their typed form."""
    for name in ("allowed_functions", "admins"):
        if values[name] is not None:
            values[name] = tuple(_uuid(item) for item in values[name])
    for name in ("authentication_policy", "subscription_id"):
        values[name] = _uuid(values[name]) if values[name] else None
    if values["heartbeat_period"] < SHORTEST_HEARTBEAT:
        log.warning("A heartbeat_period of %s s is too short; it counts as %s s", values["heartbeat_period"], 5)
        values["heartbeat_period"] = SHORTEST_HEARTBEAT
    if values["display_name"] == "None":
        values["display_name"] = None  # files of mid-2023 have the word for no name
    return values


def _uuid(text: str) -> str:
    return str(uuid.UUID(text))


def _existing(document: Document, folder: Path, name: str, value: str | None) -> Path | None:
    """The file that the option `name` names; a relative one in the configuration's folder, else in the current one."""
    if not value:
        return None
    for candidate in (folder / value, Path(value)):
        if candidate.exists():
            return candidate.absolute()
    missing = Fault((name,), f"the file {value} is not there")
    raise refusal(located([missing], document.source, document.position))
