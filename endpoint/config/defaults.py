"""What `configure` writes: the directory of a new endpoint, which works as it is."""

from __future__ import annotations

import importlib.resources
import io
import itertools
import json
import re
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ruamel.yaml import YAML
from ruamel.yaml.scalarstring import DoubleQuotedScalarString

from endpoint.config import paths
from endpoint.config.bundle import editor_file
from endpoint.config.load import load_yaml
from endpoint.config.model import read_text
from endpoint.config.schemas import load_schema
from endpoint.errors import ConfigError, Stage

OWNER_ONLY = 0o600
WORLD_READABLE = 0o644
LONGEST_LINE = 4096
# What a YAML language server takes for the name of the schema, in a comment.
_MODELINE = re.compile(r"#\s+(yaml-language-server\s*:|\$schema:)")


@dataclass(frozen=True)
class Sources:
    """Files of the administrator's that `configure` copies in place of our own; None: ours."""

    config: Path | None = None
    template: Path | None = None
    schema: Path | None = None
    environment: Path | None = None
    identity_mapping: Path | None = None


@dataclass(frozen=True)
class EndpointFiles:
    """What `configure` wrote."""

    config: Path
    template: Path
    schema: Path
    environment: Path
    identity_mapping: Path | None


def write_endpoint_dir(
    folder: Path,
    *,
    multi_user: bool = False,
    data_template: bool = False,
    high_assurance: bool = False,
    pam: bool = False,
    display_name: str | None = None,
    email: str | None = None,
    authentication_policy: str | None = None,
    subscription_id: str | None = None,
    sources: Sources = Sources(),
) -> EndpointFiles:
    """Make `folder` (mode 0700) with the files of an endpoint called as it is.

    multi_user: also write an identity mapping, and let other users read the template.
    data_template: the template is YAML with expressions in its values, not text that becomes YAML.
    pam: users must pass PAM, unless a source says something else of it.
    Raises ConfigError when the folder is there, when a source can't be read, or when it can't be written; in the last
    two cases nothing stays behind.
    """
    problem = paths.name_problem(folder.name)
    if problem:
        raise ConfigError(f"{problem}.", stage=Stage.CONFIGURE, code="BAD_NAME")
    try:
        folder.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        folder.mkdir(mode=0o700)
    except FileExistsError as error:
        raise ConfigError(
            f"There is an endpoint {folder.name!r} already ({folder}).",
            hint="Choose another name, or remove it with `globus-compute-endpoint delete`",
            stage=Stage.CONFIGURE,
            code="EXISTS",
        ) from error
    except OSError as error:
        raise ConfigError(f"The directory {folder} can't be made: {error.strerror}.", stage=Stage.CONFIGURE) from error
    files = _files(folder, multi_user, data_template, sources)
    settings = {
        "display_name": display_name,
        "email": email,
        "identity_mapping_config_path": str(files.identity_mapping) if files.identity_mapping else None,
        "authentication_policy": authentication_policy,
        "high_assurance": high_assurance or None,
        # With several users the log is root's, and its place is in the monitor's policy.
        "audit_log_path": str(folder / paths.AUDIT_LOG) if high_assurance and not multi_user else None,
        "subscription_id": subscription_id,
        "public": True if multi_user else None,
        "pam": {"enable": True} if pam else None,
    }
    try:
        _write_all(files, sources, settings)
    except ConfigError:
        shutil.rmtree(folder)
        raise
    except OSError as error:
        shutil.rmtree(folder)
        raise ConfigError(f"{error.filename} can't be written: {error.strerror}.", stage=Stage.CONFIGURE) from error
    return files


def _files(folder: Path, multi_user: bool, data_template: bool, sources: Sources) -> EndpointFiles:
    mapping = paths.IDENTITY_MAPPING if sources.identity_mapping else paths.EXAMPLE_IDENTITY_MAPPING
    return EndpointFiles(
        config=folder / paths.CONFIG,
        template=folder / (paths.PLAIN_TEMPLATE if data_template else paths.TEMPLATE),
        schema=folder / paths.SCHEMA,
        environment=folder / paths.ENVIRONMENT,
        identity_mapping=folder / mapping if multi_user else None,
    )


def _write_all(files: EndpointFiles, sources: Sources, settings: dict[str, Any]) -> None:
    _write(files.config, with_modeline(config_text(sources.config, settings), "endpoint"), OWNER_ONLY)
    if files.template.name == paths.PLAIN_TEMPLATE:
        template = with_modeline(_text(sources.template, "default_data_template.yaml"), "user-template")
    else:
        template = _text(sources.template, "default_template.yaml.j2")
    _write(files.template, template, WORLD_READABLE if files.identity_mapping else OWNER_ONLY)
    _write(files.schema, read_text(sources.schema) if sources.schema else options_schema_text(), OWNER_ONLY)
    environment = _text(sources.environment, "default_environment.yaml")
    _write(files.environment, with_modeline(environment, "user-environment"), OWNER_ONLY)
    if files.identity_mapping:
        _write(files.identity_mapping, _text(sources.identity_mapping, "default_identity_mapping.json"), OWNER_ONLY)


def with_modeline(text: str, schema: str) -> str:
    """`text`, which is YAML, below the line that tells editors which schema it follows; as it is if it has one."""
    beginning = itertools.takewhile(lambda line: line.startswith("#") or not line.strip(), text.splitlines())
    if any(map(_MODELINE.match, beginning)):
        return text
    path = editor_file(schema)
    # A path ends at the first space there; a URI can't have one.
    where = path.as_uri() if re.search(r"\s", str(path)) else str(path)
    return f"# yaml-language-server: $schema={where}\n{text}"


def options_schema_text() -> str:
    """The schema of the user options of our template, as `configure` writes it."""
    schema = {key: value for key, value in load_schema("user-options-default").items() if key != "$id"}
    return json.dumps(schema, indent=2) + "\n"


def config_text(source: Path | None, settings: dict[str, Any]) -> str:
    """The text of `config.yaml`: `source` as it is, or our own beginning, with those `settings` that are not None.

    Comments of the source stay. Raises ConfigError when it is no mapping.
    """
    text = read_text(source) if source else "# How this endpoint registers, and who may use it.\n"
    chosen = {
        # In quotes, as `yes` or `on` alone would be read back as a truth value.
        key: DoubleQuotedScalarString(value) if isinstance(value, str) else value
        for key, value in settings.items()
        if value is not None
    }
    data = load_yaml(text, str(source or paths.CONFIG)).data
    if data is not None and not isinstance(data, dict):
        raise ConfigError(f"{source}: the configuration must be a mapping.", stage=Stage.CONFIGURE)
    for name in ("public", "pam"):
        if data and name in data:
            chosen.pop(name, None)
    if not data:
        return text + (_dump(chosen) if chosen else "")
    yaml = _yaml()
    written = yaml.load(text)
    written.pop("engine", None)
    written.update(chosen)
    return _dump(written)


def _yaml() -> YAML:
    yaml = YAML(typ="rt")
    yaml.preserve_quotes = True
    yaml.width = LONGEST_LINE
    return yaml


def _dump(data: Any) -> str:
    stream = io.StringIO()
    _yaml().dump(data, stream)
    return stream.getvalue()


def _text(source: Path | None, ours: str) -> str:
    if source is not None:
        return read_text(source)
    return importlib.resources.files("endpoint.config").joinpath(ours).read_text(encoding="utf-8")


def _write(path: Path, text: str, mode: int) -> None:
    path.touch(mode=OWNER_ONLY)
    path.write_text(text, encoding="utf-8")
    path.chmod(mode)
