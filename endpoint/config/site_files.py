"""The files of an endpoint that a site document stands for: its template, and the schema of its users' options."""

from __future__ import annotations

import importlib.resources
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from endpoint.config import paths
from endpoint.config.defaults import options_schema_text
from endpoint.config.model import ManagerConfig, manager_config, read_text
from endpoint.config.parse import Document, parse_json
from endpoint.config.report import InvalidConfig
from endpoint.config.site_document import Site, mapping, text
from endpoint.config.write import dump_yaml

# What users may send where the site has a template, and no schema for it: nothing.
NO_OPTIONS = {
    "$schema": "https://json-schema.org/draft/2020-12/schema",
    "type": "object",
    "additionalProperties": False,
    "properties": {},
}
DEFAULT_TEMPLATE = "default_template.yaml.j2"
DEFAULT_ENVIRONMENT = "default_environment.yaml"


@dataclass(frozen=True)
class SiteTemplate:
    """A template: its text, the name that it gets on the host, and where it lies, or would lie, on this machine.

    option: the option of the endpoint in which it stands as data, or which it has to fit; None: it is in a file.
    """

    text: str
    name: str
    path: Path
    option: tuple[str, ...] | None = None


def site_template(site: Site, endpoint: dict[str, Any]) -> SiteTemplate | None:
    """The template of a templated or multi-user endpoint; None where its `template` is neither file nor data.

    Raises ConfigError where the file can't be read.
    """
    given = endpoint.get("template")
    if given is None:
        own = packaged(DEFAULT_TEMPLATE)
        return SiteTemplate(own, paths.TEMPLATE, site.folder / paths.TEMPLATE, ("user_options_schema",))
    if (data := mapping(given).get("data")) is not None:
        path = site.folder / paths.PLAIN_TEMPLATE
        return SiteTemplate(dump_yaml(data), paths.PLAIN_TEMPLATE, path, ("template", "data"))
    if not (file := text(mapping(given).get("file"))):
        return None
    name = paths.TEMPLATE if file.endswith(".j2") else paths.PLAIN_TEMPLATE
    return SiteTemplate(read_text(site.folder / file), name, site.folder / file)


def options_schema(site: Site, endpoint: dict[str, Any]) -> dict[str, Any] | None:
    """The schema of what users may send; None where it can't be read as one."""
    given = mapping(endpoint.get("user_options_schema"))
    if not given:
        ours = endpoint.get("template") is None and endpoint.get("kind") != "single-user"
        found: Any = json.loads(options_schema_text()) if ours else NO_OPTIONS
    elif file := text(given.get("file")):
        found = parse_json(read_text(site.folder / file), file).data if (site.folder / file).is_file() else None
    else:
        found = given.get("data")
    return found if isinstance(found, dict) else None


def parent_config(site: Site, endpoint: dict[str, Any]) -> ManagerConfig | None:
    """An endpoint's `config` as its template sees it; None where it is not valid."""
    try:
        return manager_config(Document(mapping(endpoint.get("config")), paths.CONFIG), site.folder, existing=False)
    except InvalidConfig:
        return None


def packaged(name: str) -> str:
    """A text that comes with the program."""
    return importlib.resources.files("endpoint.config").joinpath(name).read_text(encoding="utf-8")
