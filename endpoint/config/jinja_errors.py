"""Jinja's exceptions as ours: whose fault it is, and which line of which template."""

from __future__ import annotations

import contextlib
import re
import traceback
from collections.abc import Iterator
from pathlib import Path

import jinja2

from endpoint.config.report import InvalidConfig, Problem
from endpoint.errors import EndpointError, Stage, UserOptionsError

_OUR_CLASSES = re.compile(r"'endpoint\.config\.user_values\.\w+ object'")
_OF_A_TEMPLATE = "<template>"


@contextlib.contextmanager
def translated(name: str, line: int | None = None) -> Iterator[None]:
    """Around the work with a template called `name`; `line`: where it stands in its file, for one that is a part of it.

    Raises UserOptionsError for something that was not given, ConfigError for anything that is wrong with the template.
    """
    try:
        yield
    except EndpointError:
        raise
    except jinja2.UndefinedError as error:
        missing = _OUR_CLASSES.sub("a user's value", str(error.message)).rstrip(".")
        source, within = _place(error, name, line)
        raise UserOptionsError(
            f"The endpoint's configuration template needs something that was not given: {missing} ({source}:{within}).",
            hint="Set the option in user_endpoint_config",
        ) from error
    except jinja2.TemplateSyntaxError as error:
        within = (line or 1) - 1 + error.lineno
        problem = Problem(error.name or name, within, 1, "", str(error.message))
        raise InvalidConfig([problem], stage=Stage.RENDER) from error
    except (
        jinja2.TemplateError,
        ArithmeticError,
        AttributeError,
        LookupError,
        RecursionError,
        TypeError,
        ValueError,
    ) as error:
        reason = str(error).rstrip(".") or type(error).__name__
        source, within = _place(error, name, line)
        problem = Problem(source, within, 1, "", f"the template can't be rendered: {reason}")
        raise InvalidConfig([problem], stage=Stage.RENDER) from error


def _place(error: BaseException, name: str, line: int | None) -> tuple[str, int]:
    """The name and the line of the innermost template in the error's traceback."""
    for frame in reversed(traceback.extract_tb(error.__traceback__)):
        if frame.name == "root":  # of an expression by itself: Jinja tells no lines inside these
            return name, line or 1
        if frame.filename == _OF_A_TEMPLATE:
            return name, (line or 1) - 1 + (frame.lineno or 1)
        if not frame.filename.endswith(".py"):  # Jinja names the files of included templates
            return Path(frame.filename).name, frame.lineno or 1
    return name, line or 1
