"""Where two identities reach one local account: by what the rules can do, or among identities that are given.

Nothing is concluded from how rules look: identities are made up from them (`mapping_probes.py`) and mapped with all of
the rules in order, so every collision comes with two identities that show it. What no made-up identity shows is not
found; a program's answers can't be foreseen at all.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field

from endpoint.manager.mapping_probes import (
    UNIQUE_FIELDS,
    Names,
    NotUnderstood,
    Probe,
    fields_of,
    first_names,
    names_for,
    probes,
)
from endpoint.manager.mapping_rules import TriedRule, first_hit, ready
from endpoint.manager.mapping_types import Document, Hit, Program, Rule, Rules

MOST_NAMES = 100
MOST_TRIALS = 400_000  # of rules on made-up identities: seconds
CHOSEN_BY_PEOPLE = frozenset({"name", "organization"})


@dataclass(frozen=True)
class Guest:
    """Somebody who reaches an account: how they are called, and what decided."""

    who: str
    by: str


@dataclass(frozen=True)
class Collision:
    """One account that several identities reach."""

    account: str
    guests: tuple[Guest, ...]

    def __str__(self) -> str:
        ways = list(dict.fromkeys(guest.by for guest in self.guests))
        by = ways[0] if len(ways) == 1 else f"{'; '.join(ways[:-1])}; and {ways[-1]}"
        who = " and ".join(guest.who for guest in self.guests[:2])
        more = f" (and {len(self.guests) - 2} more)" if len(self.guests) > 2 else ""
        return f"{by}: {who}{more} become {self.account}"


@dataclass
class Report:
    """The collisions, and notes on what could not be looked at, or what no rule can make sure."""

    collisions: list[Collision] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)


def possible_collisions(documents: Sequence[Document]) -> Report:
    """What the rules of `documents` can do."""
    rules = [rule for document in documents if isinstance(document, Rules) for rule in document.rules]
    report = Report(notes=[*_programs(documents), *_fields(rules)])
    tried = ready(rules)
    budget = _Budget(max(1, MOST_TRIALS // max(1, len(rules))))
    reached: dict[str, list[tuple[Probe, Hit]]] = {}
    _try(rules, tried, first_names, reached, budget, report.notes)
    accounts = list(reached)[:MOST_NAMES]  # what one rule leads to, others may lead to too
    _try(rules, tried, lambda rule: names_for(rule, accounts), reached, budget, [])
    if budget.spent:
        report.notes.append(f"There are many rules: not all pairs of them were tried, only {budget.size} identities")
    report.collisions = list(_collisions(reached))
    return report


def collisions_among(found: Iterable[tuple[str, str, Hit]]) -> list[Collision]:
    """The collisions among people of whom it is known where they lead: (how they are called, who they are, hit).

    Two identities of one person are no collision.
    """
    reached: dict[str, dict[str, Guest]] = {}
    for who, person, hit in found:
        reached.setdefault(hit.output, {}).setdefault(person, Guest(who, str(hit)))
    return [Collision(account, tuple(guests.values())) for account, guests in reached.items() if len(guests) > 1]


class _Budget:
    def __init__(self, size: int) -> None:
        self.size = size
        self._left = size

    @property
    def spent(self) -> bool:
        return self._left <= 0

    def take(self) -> bool:
        self._left -= 1
        return self._left > 0


def _try(
    rules: Sequence[Rule],
    tried: Sequence[TriedRule],
    names: Callable[[Rule], list[Names]],
    reached: dict[str, list[tuple[Probe, Hit]]],
    budget: _Budget,
    notes: list[str],
) -> None:
    """Map identities that are made up for each rule, and note where they lead."""
    for rule in rules:
        try:
            for probe in probes(rule, names(rule)):
                if not budget.take():
                    return
                hit = first_hit(tried, [probe.identity])
                if hit is not None:
                    reached.setdefault(hit.output, []).append((probe, hit))
        except NotUnderstood as error:
            notes.append(f"{rule}: not looked at, as its match has {error}")


def _collisions(reached: dict[str, list[tuple[Probe, Hit]]]) -> Iterator[Collision]:
    """One for each set of rules that lead to one account, with the first identities that show it."""
    told: set[tuple[str, ...]] = set()
    for account, arrivals in reached.items():
        by_way: dict[str, dict[str, None]] = {}
        for probe, hit in arrivals:
            by_way.setdefault(str(hit), {}).setdefault(probe.text)
        for way, people in by_way.items():
            if len(people) > 1 and (way,) not in told:
                told.add((way,))
                yield Collision(account, tuple(Guest(who, way) for who in people))
        firsts = _different(by_way)
        ways = tuple(guest.by for guest in firsts)
        if len(firsts) > 1 and ways not in told:
            told.add(ways)
            yield Collision(account, firsts)


def _different(by_way: dict[str, dict[str, None]]) -> tuple[Guest, ...]:
    """For each way one person, each another one."""
    chosen: dict[str, Guest] = {}
    for way, people in by_way.items():
        who = next((who for who in people if who not in chosen), None)
        if who is not None:
            chosen[who] = Guest(who, way)
    return tuple(chosen.values())


def _programs(documents: Sequence[Document]) -> Iterator[str]:
    for document in documents:
        if isinstance(document, Program):
            yield f"{document}: what it answers can't be foreseen"


def _fields(rules: Sequence[Rule]) -> Iterator[str]:
    """Rules that go by what is nobody's own."""
    for rule in rules:
        names = fields_of(rule.source)
        if names & UNIQUE_FIELDS:
            continue
        if chosen := sorted(names & CHOSEN_BY_PEOPLE):
            yield f"{rule}: it goes by {', '.join(chosen)} alone, which people choose themselves"
        elif names:
            yield f"{rule}: it goes by {', '.join(sorted(names))} alone, which two identities may share"
