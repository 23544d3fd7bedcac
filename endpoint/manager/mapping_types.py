"""An identity mapping as data: its documents, rules and programs, and what they say of somebody's identities."""

from __future__ import annotations

import enum
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

Identity = Mapping[str, Any]


class Outcome(str, enum.Enum):
    """What a rule says of an identity."""

    HIT = "hit"
    NO_MATCH = "no match"
    NO_FIELD = "no such field"  # the source or the output names a field, or a group, that is not there
    UNUSED = "never logged in"  # by the identity's status


@dataclass(frozen=True)
class Rule:
    """One rule; `document` and `number` are its places in the file and in its document, counted from 1."""

    document: int
    number: int
    source: str
    match: str
    output: str
    ignore_case: bool = False
    literal: bool = False

    def __str__(self) -> str:
        return f"document {self.document}, rule {self.number}"


@dataclass(frozen=True)
class Program:
    """A document that asks a program; `document` is its place in the file, counted from 1."""

    document: int
    command: tuple[str, ...]

    def __str__(self) -> str:
        return f"document {self.document}, program {self.command[0]}"


@dataclass(frozen=True)
class Rules:
    """A document of rules."""

    document: int
    rules: tuple[Rule, ...]


Document = Rules | Program


@dataclass(frozen=True)
class Hit:
    """Who was found: the id of the identity, the local user's name, and what decided."""

    identity: str
    output: str
    document: int
    rule: int | None = None  # none: a program

    def __str__(self) -> str:
        return f"document {self.document}, " + (f"rule {self.rule}" if self.rule else "program")


@dataclass(frozen=True)
class Trial:
    """What one rule said of one identity; `text` is what its source gave."""

    document: int
    rule: int
    identity: str
    outcome: Outcome
    text: str | None = None
    groups: tuple[str | None, ...] = ()
    output: str | None = None


def documents_of(data: Sequence[Mapping[str, Any]]) -> tuple[Document, ...]:
    """The documents of a mapping file's data, which was checked before."""
    return tuple(_document(number, document) for number, document in enumerate(data, 1))


def _document(number: int, document: Mapping[str, Any]) -> Document:
    if "command" in document:
        return Program(number, tuple(str(word) for word in document["command"]))
    rules = enumerate(document["mappings"], 1)
    return Rules(number, tuple(_rule(number, index, rule) for index, rule in rules))


def _rule(document: int, number: int, rule: Mapping[str, Any]) -> Rule:
    return Rule(
        document=document,
        number=number,
        source=rule["source"],
        match=rule["match"],
        output=rule["output"],
        ignore_case=rule.get("ignore_case", False),
        literal=rule.get("literal", False),
    )


def identity_id(identity: Identity) -> str:
    """The identity's id; empty for something without one, which is nobody."""
    found = identity.get("id") or identity.get("sub") or ""
    return found if isinstance(found, str) else ""
