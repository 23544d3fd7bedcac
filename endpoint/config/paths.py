"""Where the files of an endpoint are: the directories and names that sites know from the official endpoint."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path

CONFIG = "config.yaml"
PYTHON_CONFIG = "config.py"
TEMPLATE = "user_config_template.yaml.j2"
PLAIN_TEMPLATE = "user_config_template.yaml"
SCHEMA = "user_config_schema.json"
ENVIRONMENT = "user_environment.yaml"
IDENTITY_MAPPING = "identity_mapping_config.json"
EXAMPLE_IDENTITY_MAPPING = "example_identity_mapping_config.json"
AUDIT_LOG = "audit.log"
ENDPOINT_JSON = "endpoint.json"
PID = "daemon.pid"
LOG = "endpoint.log"
STATUS = "status.json"  # how a user endpoint does

USER_DIR_VARIABLE = "GLOBUS_COMPUTE_USER_DIR"
LONGEST_NAME = 128


def compute_dir(config_dir: str | None, environ: Mapping[str, str] | None = None) -> Path:
    """The directory that holds one directory for each endpoint.

    `config_dir` (the option `--config-dir`) wins over the variable `GLOBUS_COMPUTE_USER_DIR` in `environ` (the
    process's own where it is None), which wins over `~/.globus_compute`.
    """
    environ = os.environ if environ is None else environ
    chosen = config_dir or environ.get(USER_DIR_VARIABLE)
    return Path(chosen).expanduser().absolute() if chosen else Path.home() / ".globus_compute"


def template_path(endpoint_dir: Path, configured: Path | None) -> Path:
    """The endpoint's template: the configured one, else the text template, else what has its name without `.j2`."""
    path = configured or endpoint_dir / TEMPLATE
    return path.with_suffix("") if path.suffix == ".j2" and not path.exists() else path


def name_problem(name: str) -> str | None:
    """Why `name` can't be an endpoint's name (it becomes a directory, and a word in shell commands), or None."""
    if not name:
        return "An endpoint's name can't be empty"
    if len(name) > LONGEST_NAME:
        return f"An endpoint's name has at most {LONGEST_NAME} characters; this one has {len(name)}"
    if name.startswith("."):
        return "An endpoint's name can't start with a dot"
    for bad in name:
        if bad in "\\/'\"" or bad.isspace() or not bad.isprintable():
            return f"An endpoint's name can't contain {bad!r}"
    return None
