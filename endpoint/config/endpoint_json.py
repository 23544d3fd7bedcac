"""endpoint.json: the id that the service gave an endpoint when it registered."""

from __future__ import annotations

import json
import os
import uuid
from pathlib import Path

from endpoint.config.paths import ENDPOINT_JSON
from endpoint.errors import ConfigError, Stage
from endpoint.lease import read_small


def stored_endpoint_id(endpoint_dir: Path) -> str | None:
    """The id in endpoint.json; None before the first registration. Raises ConfigError for a file that is broken."""
    path = endpoint_dir / ENDPOINT_JSON
    try:
        return str(uuid.UUID(json.loads(read_small(path))["endpoint_id"]))
    except FileNotFoundError:
        return None
    except OSError as error:
        raise ConfigError(f"{path} can't be read: {error.strerror}") from error
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise ConfigError(
            f"{path} is not a JSON object with an endpoint_id",
            hint="Restore it from a backup, or remove it: the next start then registers a new endpoint",
            detail=repr(error),
        ) from error


def store_endpoint_id(endpoint_dir: Path, endpoint_id: str) -> None:
    """Write endpoint.json; a crash leaves the old file or the new one."""
    path = endpoint_dir / ENDPOINT_JSON
    temporary = path.with_name(f".{ENDPOINT_JSON}.{os.getpid()}")
    try:
        temporary.write_text(json.dumps({"endpoint_id": endpoint_id}))
        temporary.replace(path)
    except OSError as error:
        raise ConfigError(
            f"{path} can't be written: {error.strerror}",
            hint="The endpoint is registered; without this file the next start would register another",
            stage=Stage.REGISTER,
        ) from error
