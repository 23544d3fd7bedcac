"""In which Python the workers of a block run tasks: what a block's script says of it."""

from __future__ import annotations

import hashlib
import json
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from endpoint.engines import worker_zip
from endpoint.engines.launch import before_worker_init, pool_command
from endpoint.engines.lifeline import Lifeline
from endpoint.engines.parsl_parts import OWN_CONTAINERS
from endpoint.errors import ConfigError, EngineFailure

# What these start is an image, or a machine of its own, which has what it needs and sees nothing of ours.
APART = (*OWN_CONTAINERS, "AzureProvider")
_HERE = f"{sys.version_info.major}.{sys.version_info.minor}"


def set_up_pool(
    provider: Any,
    template: str,
    *,
    module: str,
    run_dir: Path,
    lifeline: Lifeline | None,
    environment: Mapping[str, Any] | None,
) -> str:
    """The command of a block's worker pool; may put lines in front of the provider's `worker_init`.

    lifeline: for blocks on this machine. environment: the engine's option `worker_environment`. Raises EngineFailure.
    """
    apart = type(provider).__name__ in APART
    wanted = environment if environment and is_needed(environment) and not apart else None
    init = provider.worker_init.strip()
    own = lifeline is not None and not init and not wanted
    script = None
    if not own and not apart:
        try:
            script = worker_zip.script_of(worker_zip.write(run_dir))
            specification = _write_specification(script.parent, wanted) if wanted else None
        except OSError as error:
            raise EngineFailure(f"The engine can't use its run directory {run_dir}: {error.strerror}") from error
        if init or wanted:
            provider.worker_init = before_worker_init(script, specification) + provider.worker_init
    return pool_command(template, module=module, lifeline=lifeline, own_environment=own, script=script)


def check_environment(environment: Mapping[str, Any] | None, provider: str, container: str | None) -> None:
    """Raises ConfigError where an option `worker_environment` asks for what an image would have to have in it."""
    where = f"container_type {container}" if container else provider
    asked = environment and (environment.get("requirements") or environment.get("path"))
    if asked and (container or provider in APART):
        raise ConfigError(
            f"The engine's worker_environment asks for packages, which doesn't go with {where}.",
            hint="Put what the functions need into the image",
        )


def is_needed(environment: Mapping[str, Any]) -> bool:
    """Whether tasks can't just as well run in the endpoint's own Python."""
    if environment.get("path") or environment.get("requirements") or environment.get("always"):
        return True
    python = environment.get("python")
    return bool(python) and ".".join(str(python).split(".")[:2]) != _HERE


def _write_specification(folder: Path, environment: Mapping[str, Any]) -> Path:
    text = json.dumps({"python": _HERE, **{key: value for key, value in environment.items() if value}}, sort_keys=True)
    path = folder / f"environment-{hashlib.sha256(text.encode()).hexdigest()[:16]}.json"
    worker_zip.put(path, text.encode())
    return path
