"""Units of systemd as texts: one template for each service, for `enable-on-boot`, Ansible's roles and the tests.

The templates are package data; Ansible's roles link to them and render them with a dictionary `unit` of the same keys
as the classes here.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from endpoint.errors import ConfigError, Stage

DATA = Path(__file__).parent / "data"
ENDPOINT_TEMPLATE = DATA / "globus-compute-endpoint.service.j2"
HUB_TEMPLATE = DATA / "compute-hub.service.j2"
BROKER_TEMPLATE = DATA / "rabbitmq-server.conf.j2"
COMPUTE_DIR = "/var/lib/globus-compute-endpoint"  # of an endpoint of several users, where nothing else is said
CLIENT_DIRECTORY = "/etc/globus-compute-endpoint"  # root's, with NAME.client_id and NAME.client_secret
KINDS = ("multi-user", "single-user", "templated")
LONGEST_UNIT_NAME = 255
_PLAIN = frozenset("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789:_.-")


@dataclass(frozen=True)
class EndpointUnit:
    """What the unit of an endpoint is made from.

    kind: multi-user, single-user or templated. scope: `system`, or `user` for a user's own service manager. user: who
    the endpoint of one user runs as. program: an absolute path. compute_dir: where the endpoint's directory is; None:
    where the program looks by itself. client_*: the client identity; the id as text or in a file, the secret in a file
    of root's, or encrypted in /etc/credstore.encrypted. restart_delay, stop_timeout: seconds. limits: `limits` of
    site.schema.json. slice: the unit is in it, and the slice has the limits.
    """

    name: str
    kind: str
    scope: str
    program: str
    user: str | None = None
    compute_dir: str | None = None
    environment: Mapping[str, str] = field(default_factory=dict)
    client_id: str | None = None
    client_id_file: str | None = None
    client_secret_file: str | None = None
    client_secret_credential: str | None = None
    restart_delay: int = 30
    stop_timeout: int = 90
    limits: Mapping[str, Any] = field(default_factory=dict)
    slice: str | None = None


@dataclass(frozen=True)
class HubUnit:
    """What the hub's unit is made from.

    config: hub.yaml. directory: its data. port: where it listens; below 1024 it may. embedded: RabbitMQ runs inside.
    The rest is as for an endpoint.
    """

    program: str
    user: str
    config: str
    directory: str
    port: int | None = None
    embedded: bool = False
    broker_password_file: str | None = None
    broker_password_credential: str | None = None
    tls_key_file: str | None = None
    tls_key_credential: str | None = None
    environment: Mapping[str, str] = field(default_factory=dict)
    stop_timeout: int = 90
    limits: Mapping[str, Any] = field(default_factory=dict)


def endpoint_unit(unit: EndpointUnit) -> str:
    """The whole text of the endpoint's unit. Raises ConfigError for a value that can't stand in a unit."""
    return _rendered(ENDPOINT_TEMPLATE, unit)


def hub_unit(unit: HubUnit) -> str:
    """The whole text of the hub's unit. Raises ConfigError for a value that can't stand in a unit."""
    return _rendered(HUB_TEMPLATE, unit)


def broker_drop_in(limits: Mapping[str, Any] | None = None) -> str:
    """What is added to the distribution's rabbitmq-server.service."""
    return _text(BROKER_TEMPLATE, {"limits": dict(limits or {})})


def unit_name(endpoint: str) -> str:
    """The unit of an endpoint. What can't stand in a unit's name is written as systemd-escape(1) does.

    Raises ConfigError where it gets too long.
    """
    escaped = "".join(
        letter if letter in _PLAIN else "".join(f"\\x{byte:02x}" for byte in letter.encode()) for letter in endpoint
    )
    name = f"globus-compute-endpoint@{escaped}.service"
    if len(name) > LONGEST_UNIT_NAME:
        raise ConfigError(
            f"The name {endpoint} is too long for a unit of systemd",
            hint="Choose a shorter name",
            stage=Stage.CONFIGURE,
            code="BAD_NAME",
        )
    return name


def _rendered(template: Path, unit: EndpointUnit | HubUnit) -> str:
    values = asdict(unit)
    for name, value in values.items():
        if isinstance(value, str) and not value.isprintable():
            raise ConfigError(
                f"{name} can't stand in a unit of systemd: it has a character that is not printed",
                hint=f"Change {name}",
                stage=Stage.CONFIGURE,
                code="BAD_UNIT_VALUE",
            )
    return _text(template, values)


def _text(template: Path, unit: Mapping[str, Any]) -> str:
    """As Ansible's module `template` does it."""
    from jinja2 import Environment, StrictUndefined

    environment = Environment(  # noqa: S701 - units are no HTML
        undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=False, keep_trailing_newline=True
    )
    return environment.from_string(template.read_text(encoding="utf-8")).render(unit=unit)
