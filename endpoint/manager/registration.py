"""Registering an endpoint: what is told to the web service, and what is kept of the answer."""

from __future__ import annotations

import os
import platform
import pwd
import socket
import uuid
from importlib import metadata
from pathlib import Path
from typing import Any

from endpoint.config.endpoint_json import store_endpoint_id, stored_endpoint_id
from endpoint.config.model import ManagerConfig
from endpoint.config.paths import CONFIG
from endpoint.errors import UnexpectedAnswer
from endpoint.manager.compute_service import ComputeService
from endpoint.manager.templates import TemplateFiles
from endpoint.wire.queues import Registration

# body field -> field of the configuration, for what is sent only where it says something
_OPTIONAL = {
    "allowed_functions": "allowed_functions",
    "authentication_policy": "authentication_policy",
    "subscription_uuid": "subscription_id",
    "admins": "admins",
}
# and for what is sent unless it was left open
_UNLESS_NONE = {"display_name": "display_name", "public": "public", "high_assurance": "high_assurance"}


def register(
    endpoint_dir: Path,
    config: ManagerConfig,
    endpoint_uuid: str | None = None,
    *,
    service: ComputeService | None = None,
    multi_user: bool = False,
) -> tuple[str, Registration]:
    """Register the endpoint in `endpoint_dir`, under `endpoint_uuid`, else the id it had before, else a new one.

    Writes endpoint.json. Returns the id and the answer, with the configured AMQP port in its URLs. Blocks. Raises
    RegistrationRefused, EndpointBlocked, UnexpectedAnswer, NetworkFailure, LoginError or ConfigError.
    """
    service = service or ComputeService.of(config, endpoint_dir)
    asked = endpoint_uuid or stored_endpoint_id(endpoint_dir)
    body = registration_body(endpoint_dir, config, multi_user=multi_user)
    registration = Registration.parse(service.register(asked, body), config.amqp_port)
    if asked is not None and registration.endpoint_id != str(uuid.UUID(asked)):
        raise UnexpectedAnswer(
            f"The service answered for the endpoint {registration.endpoint_id} when {asked} was registered"
        )
    if registration.command is None:
        raise UnexpectedAnswer("The service's answer has no command_queue_info, which a manager needs")
    store_endpoint_id(endpoint_dir, registration.endpoint_id)
    return registration.endpoint_id, registration


def registration_body(endpoint_dir: Path, config: ManagerConfig, *, multi_user: bool = False) -> dict[str, Any]:
    """The JSON body of a registration (protocol.md, section 4)."""
    body: dict[str, Any] = {"endpoint_name": endpoint_dir.name, "metadata": _metadata(endpoint_dir, config)}
    if multi_user:
        body["multi_user"] = True
    for name, option in _OPTIONAL.items():
        if value := getattr(config, option):
            body[name] = list(value) if isinstance(value, (list, tuple)) else value
    for name, option in _UNLESS_NONE.items():
        if (value := getattr(config, option)) is not None:
            body[name] = value
    return body


def _metadata(endpoint_dir: Path, config: ManagerConfig) -> dict[str, Any]:
    files = TemplateFiles.read(endpoint_dir, config)
    try:
        source = (endpoint_dir / CONFIG).read_text()
    except (OSError, UnicodeDecodeError):
        source = ""
    return {
        "endpoint_version": metadata.version("compute-endpoint"),
        "python_version": platform.python_version(),
        "hostname": socket.getfqdn(),
        "local_user": _user_name(),
        "endpoint_config": source,
        "user_config_template": files.text,
        "user_config_schema": files.options_schema,
    }


def _user_name() -> str:
    try:
        return pwd.getpwuid(os.getuid()).pw_name
    except KeyError:
        return str(os.getuid())
