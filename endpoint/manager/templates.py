"""The files of an endpoint's directory that shape its user endpoints, read as they are."""

from __future__ import annotations

import json
import logging
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from endpoint.config.check import check
from endpoint.config.load import load_yaml
from endpoint.config.model import ManagerConfig
from endpoint.config.paths import ENVIRONMENT, SCHEMA, template_path
from endpoint.errors import ConfigError

log = logging.getLogger(__name__)

FROM_ACCOUNT = frozenset({"HOME", "USER", "PWD"})


@dataclass(frozen=True)
class TemplateFiles:
    """The template with where it lies, and the schema of the user's options (None: there is none)."""

    path: Path
    text: str
    options_schema: dict[str, Any] | None

    @classmethod
    def read(cls, endpoint_dir: Path, config: ManagerConfig) -> TemplateFiles:
        """Read both, from where the configuration says, else from `endpoint_dir`; raises ConfigError."""
        path = template_path(endpoint_dir, config.user_config_template_path)
        schema_path = Path(config.user_config_schema_path or endpoint_dir / SCHEMA)
        return cls(path=path, text=_read(path), options_schema=_read_schema(schema_path))


def read_user_environment(endpoint_dir: Path) -> dict[str, str]:
    """The variables of `user_environment.yaml`; none if the file isn't there. Raises ConfigError."""
    path = endpoint_dir / ENVIRONMENT
    if not path.exists():
        return {}
    data = check(load_yaml(_read(path), str(path)), "user-environment") or {}
    for name in sorted(FROM_ACCOUNT & data.keys()):
        log.warning("%s sets %s, which is not followed: it comes from the user's account", path, name)
    return {str(name): "" if value is None else str(value) for name, value in data.items() if name not in FROM_ACCOUNT}


def _read_schema(path: Path) -> dict[str, Any] | None:
    if not path.exists():
        return None
    try:
        schema = json.loads(_read(path))
    except ValueError as error:
        raise ConfigError(f"{path} is not JSON: {error}") from error
    if not isinstance(schema, dict):
        raise ConfigError(f"{path} is not a JSON object")
    return schema


def _read(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except OSError as error:
        raise ConfigError(
            f"The file {path.name} of the endpoint can't be read: {error.strerror}", detail=str(path)
        ) from error
    except UnicodeDecodeError as error:
        raise ConfigError(f"The file {path.name} of the endpoint is not UTF-8", detail=str(path)) from error
