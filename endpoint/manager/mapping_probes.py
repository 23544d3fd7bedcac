"""Identities made up from the rules of a mapping, to see where they lead.

For each rule: texts that its `match` fits, which differ from one another in one place each. What a name could be there
(`.*`) is one of a few names. The texts are put into the fields that the rule's `source` reads.
"""

from __future__ import annotations

import itertools
import re
import uuid
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

from endpoint.manager.mapping_types import Rule

DEFAULT_NAME = ("jdoe",)
OTHER = "x"  # what stands in a place instead of the name
MOST_TEXTS = 64  # of one part of a pattern
UNIQUE_FIELDS = frozenset({"id", "sub", "username"})

Names = tuple[str, ...]  # for the places of a pattern where a name can be, in turn

_FIELD = re.compile(r"\{([^}]*)\}")
_TOKEN = re.compile(r"\\(?P<escaped>.)|(?P<special>[.?*|()])|(?P<plain>.)", re.DOTALL)


class NotUnderstood(Exception):
    """A pattern uses what only Python's regular expressions have; says what."""


@dataclass(frozen=True)
class Probe:
    """A made-up identity, and the rule that it was made for."""

    rule: Rule
    text: str
    identity: dict[str, str]


def probes(rule: Rule, names: Iterable[Names]) -> Iterator[Probe]:
    """Identities that `rule` should fit, with each of `names` where names can be. Raises NotUnderstood."""
    seen = set()
    for row in names:
        for text in texts(rule, row):
            fields = _fields(rule.source, text)
            if fields is not None and text not in seen:
                seen.add(text)
                yield Probe(rule, text, _identity(fields))


def texts(rule: Rule, names: Names) -> list[str]:
    """Texts that the rule's pattern fits; the first has `names` wherever it can. Raises NotUnderstood."""
    if rule.literal:
        return [rule.match]
    return _Pattern(rule.match, names).read()


def first_names(rule: Rule) -> list[Names]:
    """What to try first: any name; and where the output joins two, names whose border can be anywhere in it."""
    between = _FIELD.split(rule.output)[2:-1:2]
    shifted = [names for joint in between for names in ((f"a{joint}b", "c"), ("a", f"b{joint}c"))]
    return [DEFAULT_NAME, *shifted]


def names_for(rule: Rule, accounts: Sequence[str]) -> list[Names]:
    """What must stand where a name can be, so that the rule's output is one of `accounts`, where that is simple."""
    before, _, after = _FIELD.sub("\0", rule.output).partition("\0")
    if "\0" in after or not _FIELD.search(rule.output):
        return []
    found: list[Names] = []
    for account in accounts:
        if account.startswith(before) and account.endswith(after) and len(account) > len(before) + len(after):
            found.append((account[len(before) : len(account) - len(after)],))
    return found


def fields_of(template: str) -> set[str]:
    """The fields of an identity that a source or an output names."""
    return {name for name in _FIELD.findall(template) if not name.lstrip("-").isdigit()}


def _fields(source: str, text: str) -> dict[str, str] | None:
    """What the identity's fields must be for `source` to give `text`; None where that can't be."""
    names = _FIELD.findall(source)
    unique = list(dict.fromkeys(names))
    pattern = ""
    for index, part in enumerate(_FIELD.split(source)):
        if index % 2 == 0:
            pattern += re.escape(part)
        else:
            number = unique.index(part)
            first = part not in _FIELD.split(source)[1:index:2]
            pattern += f"(?P<f{number}>.+?)" if first else f"(?P=f{number})"
    found = re.fullmatch(pattern, text, re.DOTALL)
    return {unique[int(key[1:])]: value for key, value in found.groupdict().items()} if found else None


def _identity(fields: dict[str, str]) -> dict[str, str]:
    """An identity with `fields`; user name and address are the same where only one is told, as they mostly are."""
    number = str(uuid.uuid5(uuid.NAMESPACE_OID, repr(sorted(fields.items()))))
    who = fields.get("username") or fields.get("email") or "somebody@invalid"
    return {"id": number, "sub": fields.get("id", number), "username": who, "email": who, "status": "used"} | fields


class _Pattern:
    """Reads one pattern, and makes texts of it: for each place where texts can differ, some that differ there."""

    def __init__(self, match: str, names: Names) -> None:
        self._tokens = [(found.lastgroup or "", found[found.lastgroup or 0]) for found in _TOKEN.finditer(match)]
        self._at = 0
        self._names = itertools.cycle(names)

    def read(self) -> list[str]:
        found = self._alternatives()
        if self._at < len(self._tokens):
            raise NotUnderstood("a parenthesis that opens nowhere")
        return found

    def _peek(self) -> tuple[str, str]:
        return self._tokens[self._at] if self._at < len(self._tokens) else ("end", "")

    def _alternatives(self) -> list[str]:
        found = self._sequence()
        while self._peek() == ("special", "|"):
            self._at += 1
            found = found + self._sequence()
        return _some(found)

    def _sequence(self) -> list[str]:
        parts = []
        while self._peek() not in (("end", ""), ("special", "|"), ("special", ")")):
            parts.append(self._repeated())
        return _in_a_row(parts)

    def _repeated(self) -> list[str]:
        any_character = self._peek() == ("special", ".")
        found = self._one()
        sign = self._peek()
        if sign == ("special", "*"):
            self._at += 1
            found = [next(self._names), OTHER] if any_character else [*found, "", *(text * 2 for text in found)]
        elif sign == ("special", "?"):
            self._at += 1
            found = [*found, ""]
        return _some(found)

    def _one(self) -> list[str]:
        kind, character = self._peek()
        self._at += 1
        if kind == "plain":
            return [character]
        if kind == "escaped":
            if character.isalnum():
                raise NotUnderstood(f"\\{character}")
            return [character]
        if character == ".":
            return [DEFAULT_NAME[0][0], OTHER]
        if character == "(":
            return self._group()
        raise NotUnderstood(f"a {character} at a place where it means nothing")

    def _group(self) -> list[str]:
        if self._peek() == ("special", "?"):
            raise NotUnderstood("a parenthesis that begins with ?")
        found = self._alternatives()
        if self._peek() != ("special", ")"):
            raise NotUnderstood("a parenthesis that is not closed")
        self._at += 1
        return found


def _in_a_row(parts: Sequence[list[str]]) -> list[str]:
    """The first of each part in a row, and for every other text of a part the same row with that text instead."""
    first = [part[0] for part in parts]
    rows = ["".join(first)]
    for index, part in enumerate(parts):
        rows += ["".join([*first[:index], text, *first[index + 1 :]]) for text in part[1:]]
    return _some(rows)


def _some(found: Sequence[str]) -> list[str]:
    return list(dict.fromkeys(found))[:MOST_TEXTS]
