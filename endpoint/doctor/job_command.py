"""The shell command of doctor's job: the same that starts a pool of workers, with another program in its place."""

from __future__ import annotations

import base64
import importlib.resources
import json
import zlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from endpoint.doctor.situation import Trial
from endpoint.engines.container_pool import set_up_container
from endpoint.engines.containers import Container
from endpoint.engines.launch import PARSL_SCRIPT
from endpoint.engines.lifeline import Lifeline
from endpoint.engines.worker_python import set_up_pool

# A pool's place is a module's: what the module `timeit` is given as the preparation, it runs, once.
MODULE = "timeit"


def probe_command(
    trial: Trial, provider: Any, folder: Path, lifeline: Lifeline | None, asked: Mapping[str, Any]
) -> str:
    """The command; may put lines in front of the provider's `worker_init`. Raises EngineFailure, ConfigError.

    folder: a directory of the job's own, as a run directory. asked: see `probe.py`.
    """
    template = f"{PARSL_SCRIPT} {_arguments(asked)}"
    engine = trial.engine
    container = Container.parse(
        engine.get("container_type"), engine.get("container_uri"), engine.get("container_cmd_options")
    )
    if container is None:
        command = set_up_pool(
            provider,
            template,
            module=MODULE,
            run_dir=folder,
            lifeline=lifeline,
            environment=engine.get("worker_environment"),
        )
    else:
        command = set_up_container(
            container,
            provider,
            template,
            module=MODULE,
            run_dir=folder,
            lifeline=lifeline,
            name=f"gce-doctor-{folder.name.lstrip('.')}",
        )
    return _filled(_filled(command))


def _filled(command: str) -> str:
    """As Parsl does it, twice."""
    return command.format(block_id="doctor")


def _arguments(asked: Mapping[str, Any]) -> str:
    """Without anything that a shell, a launcher or Parsl would read otherwise."""
    source = importlib.resources.files("endpoint.doctor").joinpath("probe.py").read_text("utf-8")
    program = f"{_without_docstring(source)}\nmain(json.loads({json.dumps(dict(asked))!r}))\n"
    packed = base64.b64encode(zlib.compress(program.encode(), 9)).decode()
    code = f"import base64,zlib;exec(zlib.decompress(base64.b64decode('{packed}')),dict())"
    return f'-n 1 -r 1 -s "{code}" pass'


def _without_docstring(source: str) -> str:
    return source.split('"""\n', 1)[1]
