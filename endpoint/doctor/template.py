"""The template with sample options: what comes out is what the stages behind this one test."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from endpoint.config.model import user_config, user_values
from endpoint.config.option_examples import example_options
from endpoint.config.rendering import Template, rendered
from endpoint.config.report import InvalidConfig, InvalidOptions, Problem
from endpoint.config.user_options import schema_faults
from endpoint.doctor.findings import Finding, failed, failure, not_tried, ok
from endpoint.doctor.situation import NotTried, Situation, Trial, shown
from endpoint.errors import ConfigError, EndpointError, ExitStatus, Mender
from endpoint.manager.templates import TemplateFiles, read_user_environment


def check(situation: Situation) -> Iterator[Finding]:
    """Leaves `trials`; from here on `environ`, and this process's own, have what user_environment.yaml sets."""
    config = situation.needed_config()
    files = TemplateFiles.read(situation.folder, config)
    variables = read_user_environment(situation.folder)
    situation.environ |= variables
    if situation.of_another and variables:
        yield not_tried(
            f"user_environment.yaml sets {', '.join(sorted(variables))}: another user's, so root does not follow it",
            "Run this command as the owner of the directory, too",
            names=sorted(variables),
        )
    elif variables:
        os.environ.update(variables)  # for the scheduler's commands, which user endpoints find with it
        yield ok(f"user_environment.yaml sets {', '.join(sorted(variables))}", names=sorted(variables))
    _go_where_user_endpoints_run(situation)
    for options, for_job in _samples(situation, files.options_schema):
        yield from _try(situation, files, options, for_job=for_job)


def _go_where_user_endpoints_run(situation: Situation) -> None:
    """Jobs begin where they were submitted."""
    wanted = situation.environ.get("CWD") or Path.home()
    with contextlib.suppress(OSError):  # the start of a user endpoint tells it
        os.chdir(wanted)


def _samples(situation: Situation, schema: dict[str, Any] | None) -> list[tuple[dict[str, Any], bool]]:
    """Sets of options, and whether somebody has written them for use."""
    if situation.wishes.user_options is not None:
        return [(dict(situation.wishes.user_options), True)]
    if schema is None:
        return [({}, True)]
    try:
        sets = example_options(schema)
    except (AttributeError, TypeError) as error:
        raise NotTried("the schema of the users' options is no schema") from error
    own = [one for one in schema.get("examples") or [] if isinstance(one, dict)]
    # Without examples of its own: the required options alone, and defaults for the rest.
    used = own or sets[:1]
    return [(options, options in used) for options in sets]


def _try(situation: Situation, files: TemplateFiles, options: dict[str, Any], *, for_job: bool) -> Iterator[Finding]:
    told = shown(options)
    if situation.wishes.user_options is None and files.options_schema:
        unfit = {str(fault.path[0]) for fault in schema_faults(options, files.options_schema) if fault.path}
        options = {name: value for name, value in options.items() if name not in unfit}
        if unfit:
            told = shown(options)
            yield not_tried(f"The options {', '.join(sorted(unfit))}: the schema has no example that fits")
    try:
        text, refused = rendered(
            Template(files.text, files.path.absolute()),
            user_options_schema=files.options_schema,
            user_options=options,
            user_runtime=dict(situation.facts().user_runtime),
            parent_config=asdict(situation.needed_config()),
            mapped_identity=situation.facts().mapped_identity,
            environ=situation.environ,
        )
    except EndpointError as error:
        yield failure(error, options=options)
        return
    if refused is not None:
        yield from _refused(refused, told, options)
        return
    try:
        engine = user_config(user_values(text, "the rendered configuration")).engine
    except ConfigError as error:
        yield failure(error, options=options)
        return
    trial = Trial(options, for_job, engine)
    situation.trials.append(trial)
    yield ok(f"Rendered {told}: {trial.summary}", options=options, engine=trial.summary, for_job=for_job)


def _refused(refused: InvalidConfig | InvalidOptions, told: str, options: Mapping[str, Any]) -> Iterator[Finding]:
    users = isinstance(refused, InvalidOptions)
    for problem in refused.problems:
        yield _problem(problem, told, options, users=users)


def _problem(problem: Problem, told: str, options: Mapping[str, Any], *, users: bool) -> Finding:
    return failed(
        f"Rendered {told}, it is not valid: {problem}",
        "Change these options" if users else "Correct the template; render-user-config shows what comes out",
        code="BAD_USER_OPTIONS" if users else "BAD_CONFIG",
        status=ExitStatus.BAD_CONFIG,
        mender=Mender.USER if users else Mender.ADMIN,
        options=dict(options),
        line=problem.line,
        column=problem.column,
    )
