"""Every file that an administrator writes, checked with those that it names: for `check-config`, and before a start."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from endpoint.config import paths
from endpoint.config.check import errors, problems
from endpoint.config.faults import Fault
from endpoint.config.model import ManagerConfig, manager_config, read_text
from endpoint.config.parse import Document, parse_json, parse_yaml
from endpoint.config.report import InvalidConfig, Problem, located
from endpoint.config.schemas import blocks
from endpoint.errors import ConfigError

if TYPE_CHECKING:
    from endpoint.config.site_mapping import Judge
    from endpoint.config.trial import Facts

# kind: what messages call it
KINDS = {
    "endpoint": "configuration of an endpoint",
    "user": "configuration of a user endpoint",
    "template": "template of user endpoints' configurations",
    "user-options-schema": "schema of user options",
    "user-environment": "environment of user endpoints",
    "identity-mapping": "identity mapping",
    "user-options-default": "options for the default template",
    "hub": "configuration of a hub",
    "site": "document of a site",
    "policy": "policy of a multi-user endpoint",
}
_BY_NAME = {
    paths.CONFIG: "endpoint",
    paths.PLAIN_TEMPLATE: "template",
    paths.SCHEMA: "user-options-schema",
    paths.ENVIRONMENT: "user-environment",
    paths.IDENTITY_MAPPING: "identity-mapping",
    paths.EXAMPLE_IDENTITY_MAPPING: "identity-mapping",
    "hub.yaml": "hub",
    "policy.json": "policy",
    "site.yml": "site",
    "site.yaml": "site",
}
# Options that only one kind of document has, at its top.
_BY_OPTION = {"engine": "user", "endpoints": "site", "listen": "hub", "broker": "hub"}


@dataclass(frozen=True)
class Report:
    """What was found in one file; `notes` are sentences about what could not be checked, or how it was read."""

    file: str
    kind: str
    problems: tuple[Problem, ...] = ()
    notes: tuple[str, ...] = ()
    text: str = field(default="", repr=False)

    @property
    def valid(self) -> bool:
        """Whether there are no problems but warnings."""
        return not errors(list(self.problems))

    def to_dict(self) -> dict[str, Any]:
        """`{"file", "kind", "valid", "problems": [...], "notes": [str]}`, for `--json`."""
        found = [problem.to_dict() for problem in self.problems]
        return {"file": self.file, "kind": self.kind, "valid": self.valid, "problems": found, "notes": list(self.notes)}


@dataclass
class Examiner:
    """Reports on files, each once.

    facts: asked once a template is to be rendered; None leaves rendering out.
    follow: whether files that a file names, or that belong to it, are examined too.
    judge: tells what an identity mapping in a site document does; None leaves that out.
    applied: whether a site document is to be applied now, and so what it installs has to be there.
    """

    facts: Callable[[], Facts] | None
    follow: bool = True
    judge: Judge | None = None
    applied: bool = False
    reports: dict[str, Report] = field(default_factory=dict)

    def folder(self, folder: Path) -> None:
        """An endpoint's directory. Raises ConfigError where there is nothing to examine."""
        names = (paths.CONFIG, paths.TEMPLATE, paths.PLAIN_TEMPLATE)
        if not any((folder / name).is_file() for name in names):
            raise ConfigError(f"There are no configuration files of an endpoint in {folder}.")
        if (folder / paths.CONFIG).is_file():
            self.file(folder / paths.CONFIG, "endpoint")
        else:
            self._of_endpoint(folder, manager_config(parse_yaml("", paths.CONFIG), folder))

    def file(self, path: Path, kind: str | None = None) -> None:
        """One file; `kind` is one of `KINDS`, by default what its name or its content says."""
        if str(path) in self.reports:
            return
        try:
            text = read_text(path)
        except ConfigError as error:
            unread = Problem(str(path), 1, 1, "", error.failure.reason.rstrip("."))
            self.reports[str(path)] = Report(str(path), kind or _BY_NAME.get(path.name, "endpoint"), (unread,))
            return
        self.text(text, path, kind or kind_of(path, text))

    def text(self, text: str, path: Path, kind: str) -> None:
        """As `file`, for a text that was read already; relative names in it are looked for beside `path`."""
        self.reports[str(path)] = Report(str(path), kind, text=text)  # so that a circle of references ends
        if kind == "template":
            self._template(text, path, path.parent / paths.SCHEMA, None)
            return
        document = (parse_json if path.suffix == ".json" else parse_yaml)(text, str(path))
        if kind == "user-options-schema":
            from endpoint.config.user_options import metaschema_faults

            found = [*document.faults, *metaschema_faults(document.data)] if document.data is not None else []
            self.found(path, located(found or document.faults, str(path), document.position))
            return
        if document.data is None:  # an empty file says what an empty mapping says
            document = replace(document, data=[] if kind == "identity-mapping" else {})
        found_here = problems(document, kind)
        if kind == "identity-mapping":
            from endpoint.config.mapping_faults import mapping_faults

            found_here += located(mapping_faults(document.data), str(path), document.position)
        self.found(path, found_here)
        if kind == "endpoint":
            self._endpoint(document, path)
        if kind == "site":
            from endpoint.config.site_check import check_site

            check_site(self, document, path)
        else:
            self._references(document, kind, path)

    def _endpoint(self, document: Document, path: Path) -> None:
        """The files around a `config.yaml`; and that it is none of the older kind."""
        report = self.reports[str(path)]
        older = isinstance(document.data, dict) and "engine" in document.data
        if not report.valid and not older:
            document = parse_yaml("", str(path))  # the files around it can be looked at all the same
        try:
            config = manager_config(document, path.parent, existing=self.follow)
        except InvalidConfig as error:
            self.reports[str(path)] = replace(report, problems=error.problems)
            return
        if self.follow:
            self._of_endpoint(path.parent, config)

    def _of_endpoint(self, folder: Path, config: ManagerConfig) -> None:
        template = paths.template_path(folder, config.user_config_template_path)
        schema = config.user_config_schema_path or folder / paths.SCHEMA
        mapping = config.identity_mapping_config_path
        if template.is_file() and str(template) not in self.reports:
            text = read_text(template)
            self.reports[str(template)] = Report(str(template), "template", text=text)
            self._template(text, template, schema, config)
        for path, kind in (
            (schema, "user-options-schema"),
            (folder / paths.ENVIRONMENT, "user-environment"),
            (mapping, "identity-mapping"),
        ):
            if path is not None and path.is_file():
                self.file(path, kind)

    def _template(self, text: str, path: Path, schema_path: Path, config: ManagerConfig | None) -> None:
        from endpoint.config.trial import tried  # Jinja, which a configuration alone doesn't need

        schema = options_schema(schema_path)
        trial = tried(text, path, schema, config, self.facts)
        notes = list(trial.notes)
        if schema is None and trial.variables is not None:
            names = ", ".join(sorted(trial.variables - {"_GC"})) or "none"
            notes.append(f"there is no {schema_path.name} beside it; the options that it knows are: {names}")
        self.found(path, trial.problems, notes)
        if schema is not None and trial.variables is not None and self.follow and schema_path.is_file():
            self.file(schema_path, "user-options-schema")
            self.unused(schema_path, schema, trial.variables)

    def unused(self, path: Path, schema: dict[str, Any], variables: frozenset[str]) -> None:
        """Tell of options in the schema at `path` that its template does not use."""
        document = parse_json(read_text(path), str(path))
        unused = [
            Fault(("properties", name), "the template does not use this option", warning=True)
            for name in schema.get("properties", {})
            if name not in variables
        ]
        self.found(path, located(unused, str(path), document.position))

    def _references(self, document: Document, kind: str, path: Path) -> None:
        if not self.follow:
            return
        missing = []
        for place, value, named_kind in named_files(document.data, kind):
            named = path.parent / value
            if not named.exists():
                if kind != "endpoint":  # whose own check has told it
                    missing.append(Fault(place, f"the file {value} is not there"))
            elif named_kind in KINDS and kind != "endpoint":
                self.file(named, named_kind)
        self.found(path, located(missing, str(path), document.position))

    def found(self, path: Path, found: Iterable[Problem], notes: Iterable[str] = ()) -> None:
        """Add to the report on `path`, which is there."""
        report = self.reports[str(path)]
        ordered = sorted({*report.problems, *found}, key=lambda problem: (problem.line, problem.column, problem.path))
        said = tuple(dict.fromkeys((*report.notes, *notes)))
        self.reports[str(path)] = replace(report, problems=tuple(ordered), notes=said)


def kind_of(path: Path, text: str) -> str:
    """What a file is, by its name, its folder's name or its content; else an endpoint's configuration.

    Raises ConfigError for a JSON file whose name says nothing.
    """
    if path.name in _BY_NAME:
        return _BY_NAME[path.name]
    if path.suffix == ".j2" or path.name.startswith("user_config_template"):
        return "template"
    if path.name.endswith(paths.IDENTITY_MAPPING):
        return "identity-mapping"
    if path.name.endswith(".policy.json"):
        return "policy"
    if path.suffix == ".json":
        raise ConfigError(f"The name of {path} doesn't say what it is.", hint=f"Add --kind, one of: {', '.join(KINDS)}")
    folder = "template" if path.parent.name == "user-template" else path.parent.name
    if folder in KINDS:
        return folder
    for option, kind in _BY_OPTION.items():
        if re.search(rf"^{option}:", text, re.MULTILINE):
            return kind
    return "endpoint"


def options_schema(path: Path) -> dict[str, Any] | None:
    """The schema of user options in a file; None where it is not there, or is none."""
    from endpoint.config.user_options import metaschema_faults

    if not path.is_file():
        return None
    try:
        data = json.loads(read_text(path))
    except ValueError:
        return None
    return data if isinstance(data, dict) and not metaschema_faults(data) else None


def named_files(data: Any, kind: str) -> Iterator[tuple[tuple[str | int, ...], str, str]]:
    """Each option of a document that names a file, as (path, file, kind of the file); by `x-file` in the schema."""
    for path, block, options in blocks(data, kind):
        for key, schemas in options.items():
            value = block.get(key)
            named = next((schema["x-file"] for schema in schemas if "x-file" in schema), None)
            if named is not None and isinstance(value, str):
                yield (*path, key), value, named
