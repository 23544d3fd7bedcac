"""The templates of a site document, tried with the options that the document lets users send."""

from __future__ import annotations

import re
from pathlib import Path as FilePath
from typing import TYPE_CHECKING, Any

from endpoint.config.examine import Report
from endpoint.config.faults import Fault, Path, Position
from endpoint.config.parse import Document, parse_yaml
from endpoint.config.report import Problem, located
from endpoint.config.site_document import Site, mapping, text
from endpoint.config.site_files import SiteTemplate, options_schema, parent_config, site_template
from endpoint.config.user_options import metaschema_faults
from endpoint.errors import ConfigError

if TYPE_CHECKING:
    from endpoint.config.examine import Examiner

KINDS = frozenset({"templated", "multi-user"})
_IN_TEXT = re.compile(r" \(user_config_template\.yaml(\.j2)?:\d+\)")  # a line of a text that nobody has seen


def check_templates(examiner: Examiner, site: Site, document: Document, path: FilePath) -> None:
    """Try every template, and report what is wrong where it stands: in its file, or in the document."""
    for name, endpoint in site.present.items():
        if text(endpoint.get("kind")) in KINDS:
            place: Path = ("endpoints", name)
            _check_schema(examiner, endpoint, document, path, place)
            _check_template(examiner, site, endpoint, document, path, place)


def _check_schema(
    examiner: Examiner, endpoint: dict[str, Any], document: Document, path: FilePath, place: Path
) -> None:
    data = mapping(endpoint.get("user_options_schema")).get("data")
    if isinstance(data, dict):
        here = (*place, "user_options_schema", "data")
        found = [Fault((*here, *fault.path), fault.message, fault.hint) for fault in metaschema_faults(data)]
        examiner.found(path, located(found, str(path), document.position))


def _check_template(
    examiner: Examiner, site: Site, endpoint: dict[str, Any], document: Document, path: FilePath, place: Path
) -> None:
    try:
        template = site_template(site, endpoint)
    except ConfigError:
        return  # that it can't be read is told of every file
    if template is None or not (examiner.follow or template.option):
        return
    if endpoint.get("template") is None and not endpoint.get("user_options_schema"):
        return  # the program's own, with the schema that goes with it
    from endpoint.config.trial import tried

    schema = options_schema(site, endpoint)
    if schema is not None and metaschema_faults(schema):
        schema = None
    trial = tried(template.text, template.path, schema, parent_config(site, endpoint), examiner.facts)
    found = _located(examiner, template, trial.problems, document, path, place)
    examiner.found(found, (), [] if template.option else trial.notes)
    if not trial.problems:
        faults = _after(template, schema, trial.variables or frozenset(), place, endpoint)
        examiner.found(path, located(faults, str(path), document.position))


def _located(
    examiner: Examiner,
    template: SiteTemplate,
    problems: tuple[Problem, ...],
    document: Document,
    path: FilePath,
    place: Path,
) -> FilePath:
    """Report a template's problems; returns the file that has them."""
    if template.option:
        own = parse_yaml(template.text, template.name) if template.option[0] == "template" else Document(None, "")
        here = (*place, *template.option)
        faults = [Fault((*here, *_path_at(own, one)), _IN_TEXT.sub("", one.message), one.hint) for one in problems]
        examiner.found(path, located(faults, str(path), document.position))
        return path
    if str(template.path) not in examiner.reports:
        examiner.reports[str(template.path)] = Report(str(template.path), "template", text=template.text)
    examiner.found(template.path, problems)
    return template.path


def _path_at(document: Document, problem: Problem) -> Path:
    """The value of a template that is data at which a problem of its text stands."""
    exact = [path for path, at in document.positions.items() if at == Position(problem.line, problem.column)]
    before = [path for path, at in document.positions.items() if at.line <= problem.line]
    if exact:
        return max(exact, key=len)
    return max(before, key=lambda path: (document.positions[path].line, len(path)), default=())


def _after(
    template: SiteTemplate,
    schema: dict[str, Any] | None,
    variables: frozenset[str],
    place: Path,
    endpoint: dict[str, Any],
) -> list[Fault]:
    """What is wrong with a template that renders."""
    if _takes_in_others(template):
        hint = "write what is in the others into this one"
        return [Fault((*place, "template"), "it takes in other templates, which don't come to the host with it", hint)]
    given = mapping(endpoint.get("user_options_schema"))
    here = (*place, "user_options_schema", *(("data", "properties") if "data" in given else ()))
    unused = [name for name in mapping((schema or {}).get("properties")) if name not in variables]
    if text(given.get("file")):
        return [Fault(here, f"the template does not use the option {name!r} of it", warning=True) for name in unused]
    return [Fault((*here, name), "the template does not use this option", warning=True) for name in unused if given]


def _takes_in_others(template: SiteTemplate) -> bool:
    from jinja2 import meta

    from endpoint.config.sandbox import Sandbox

    parsed = Sandbox(template.path.parent).parse(template.text)
    return any(True for _ in meta.find_referenced_templates(parsed))
