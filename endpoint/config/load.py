"""From a text to data that can be used: parsed, or refused with everything that is wrong with it."""

from __future__ import annotations

from endpoint.config.parse import Document, parse_yaml
from endpoint.config.report import Problem, located, refusal


def load_yaml(text: str, source: str) -> Document:
    """Read one YAML document; `source` is how messages name it. An empty one is None.

    Raises ConfigError with `source:line:column` of everything that `parse_yaml` finds.
    """
    return readable(parse_yaml(text, source))


def readable(document: Document) -> Document:
    """The document itself; ConfigError where it has faults."""
    if document.faults:
        raise refusal(faults_of(document))
    return document


def faults_of(document: Document) -> list[Problem]:
    """What is wrong with the document's text, in order."""
    return located(document.faults, document.source, document.position)
