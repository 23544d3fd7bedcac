"""A document against its schema: the parts `parse`, `validate` and `report`, put together."""

from __future__ import annotations

import logging
from typing import Any

from endpoint.config.deprecated import deprecations, modernized
from endpoint.config.parse import Document
from endpoint.config.report import Problem, located, refusal
from endpoint.config.schemas import with_defaults
from endpoint.config.validate import faults

log = logging.getLogger(__name__)


def problems(document: Document, schema_name: str) -> list[Problem]:
    """Everything that is wrong with `document` by the schema called `schema_name`, in the order of the text.

    Deprecated options are among them, as warnings.
    """
    found = list(document.faults)
    if document.data is not None or not found:  # a text that can't be read has nothing else to tell
        # What can't be read as it stands has been told; that it is of the wrong type too is nothing new.
        found += [fault for fault in faults(document.data, schema_name) if fault.path not in document.unread]
        found += deprecations(document.data, schema_name)
    return located(found, document.source, document.position)


def errors(found: list[Problem]) -> list[Problem]:
    """Those of `found` that are no warnings."""
    return [problem for problem in found if not problem.warning]


def check(document: Document, schema_name: str) -> Any:
    """The document's data as today's options, with defaults filled in (an empty document is an empty mapping).

    Warns in the log of deprecated options. Raises ConfigError that tells all problems.
    """
    found = problems(document, schema_name)
    if bad := errors(found):
        raise refusal(bad)
    for problem in found:
        log.warning("%s", problem)
    data = {} if document.data is None else document.data
    return with_defaults(modernized(data, schema_name), schema_name)
