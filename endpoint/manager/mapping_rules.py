"""The rules of an identity mapping: what each makes of one Globus identity. Decisions only: no file, no process.

The rules are carried out by `globus-identity-mapping`, one rule at a time so that it can be told which rule decided,
and with three corrections, as what people write about themselves is hostile input there:

- `match` must fit all of the text, also where it has a `|` outside of parentheses (there, the official endpoint
  takes any text that begins with the first alternative);
- a field whose text is long, or has braces or control characters, counts as not there: braces in it would be filled
  in once more;
- a rule that needs a field which an identity doesn't have does not fit that identity; there, it ends its document.

Regular expressions can take for ever, so in a service they are tried in a process of their own: `mapping_process.py`.
"""

from __future__ import annotations

import functools
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from globus_identity_mapping.errors import IdentityMappingError
from globus_identity_mapping.mappers.expression import ExpressionIdentityMapping

from endpoint.manager.mapping_types import Hit, Identity, Outcome, Rule, Trial, identity_id

EXPRESSION = "expression_identity_mapping#1.0.0"
LONGEST_FIELD = 256  # characters of one field of an identity, as rules see it
STATUSES = ("used", "private")  # of identities that somebody has logged in with; rules look at no others


def readable(identity: Identity) -> dict[str, str]:
    """The fields that rules may look at."""
    fields = {key: value for key, value in identity.items() if isinstance(value, str) and _harmless(value)}
    return fields | {"id": identity_id(identity)}


def _harmless(text: str) -> bool:
    return len(text) <= LONGEST_FIELD and text.isprintable() and "{" not in text and "}" not in text


class TriedRule:
    """One rule, ready to be tried. Raises InvalidMappingError or ValueError for one that means nothing."""

    def __init__(self, rule: Rule) -> None:
        self.rule = rule
        self._mapper = _mapper(rule, rule.source, rule.output)

    @functools.cached_property
    def _reader(self) -> Any:
        return _mapper(Rule(0, 0, "", ".*", ""), self.rule.source, self.rule.source)

    def output(self, identity: Mapping[str, str]) -> str | None:
        """The local user for a `readable` identity; None where the rule doesn't fit it."""
        try:
            return next(iter(self._mapper.map_identities([identity])[0].values()), [None])[0]
        except (IdentityMappingError, IndexError):
            return None

    def trial(self, identity: Mapping[str, str]) -> Trial:
        """As `output`, and why."""
        output = self.output(identity)
        common = self.rule.document, self.rule.number, identity["id"]
        if identity.get("status") not in STATUSES:
            return Trial(*common, Outcome.UNUSED)
        try:
            text = self._reader.map_identity(identity)
        except (IdentityMappingError, IndexError):
            return Trial(*common, Outcome.NO_FIELD)
        found = self._mapper.mappings[0]["compiled_match"].match(text or "")
        if found is None:
            return Trial(*common, Outcome.NO_MATCH, text)
        if output is None:
            return Trial(*common, Outcome.NO_FIELD, text, found.groups())
        return Trial(*common, Outcome.HIT, text, found.groups(), output)


def _mapper(rule: Rule, source: str, output: str) -> Any:
    match = rule.match if rule.literal else f"(?:{rule.match})"  # so that a `|` in it ends where it does
    mapping = {
        "source": source,
        "match": match,
        "output": output,
        "ignore_case": rule.ignore_case,
        "literal": rule.literal,
    }
    return ExpressionIdentityMapping.from_mapping_document({"DATA_TYPE": EXPRESSION, "mappings": [mapping]})


def ready(rules: Iterable[Rule]) -> tuple[TriedRule, ...]:
    """All `rules`, ready to be tried."""
    return tuple(TriedRule(rule) for rule in rules)


def first_hit(rules: Iterable[TriedRule], identities: Iterable[Identity]) -> Hit | None:
    """The first rule that fits any of the identities, and of these the first: the official endpoint's order."""
    people = list(_people(identities))
    for tried in rules:
        for person in people:
            output = tried.output(person)
            if output is not None:
                return Hit(person["id"], output, tried.rule.document, tried.rule.number)
    return None


def trials(rules: Iterable[TriedRule], identities: Iterable[Identity]) -> Iterator[Trial]:
    """What each rule says of each identity, in the order in which they are tried; all, also after the first hit."""
    people = list(_people(identities))
    for tried in rules:
        for person in people:
            yield tried.trial(person)


def _people(identities: Iterable[Identity]) -> Iterator[dict[str, str]]:
    return (person for identity in identities if (person := readable(identity))["id"])
