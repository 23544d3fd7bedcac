"""Which strategies an endpoint lets its users' functions and arguments be written in.

A list names strategies by import path, or whole kinds by one of two words. Without a list, all are allowed.
A combined strategy allows itself, and of its members those that are in the list; where the list names no single
strategy of that kind, all of them. So a list of only combined strategies works, and a list that leaves out the
pickling strategies keeps them out inside a combined one too.
"""

from __future__ import annotations

from collections.abc import Iterable

from endpoint.worker.strategies import BY_NAME, STRATEGIES, Strategy

ALL_CODE = "globus_compute_sdk.*Code"
ALL_DATA = "globus_compute_sdk.*Data"
_WORDS = {ALL_CODE: True, ALL_DATA: False}
_MODULES = ("globus_compute_sdk.serialize", "globus_compute_sdk.serialize.concretes")
_ALIASES = {"DEFAULT_STRATEGY_CODE": "DillCode", "DEFAULT_STRATEGY_DATA": "DillDataBase64"}


def by_path(path: str) -> Strategy:
    """The strategy that an import path names; ValueError, with the nearest one that there is, for another path."""
    module, _, name = path.rpartition(".")
    strategy = BY_NAME.get(_ALIASES.get(name, name))
    if module in _MODULES and strategy is not None and strategy.selectable:
        return strategy
    import difflib

    near = difflib.get_close_matches(name, [one.name for one in STRATEGIES if one.selectable], 1, 0.5)
    hint = f"; did you mean {_MODULES[0]}.{near[0]}?" if near else ""
    raise ValueError(f"{path!r} is not a serialization strategy{hint}")


def check_allowed(names: Iterable[str] | None) -> None:
    """Raises ValueError, with a sentence, where `names` is no allow-list that an endpoint could work with."""
    Allowed(names)


class Allowed:
    """An allow-list, checked."""

    def __init__(self, names: Iterable[str] | None) -> None:
        """ValueError where a name is unknown, a word is mixed with strategies of its kind, or a kind is missing."""
        listed = list(names or ())
        if not all(isinstance(name, str) for name in listed):
            raise ValueError("The list of allowed serializers holds something other than import paths")
        words = [name for name in listed if name in _WORDS]
        single = [by_path(name) for name in listed if name not in _WORDS]
        for word in words:
            if any(one.for_code == _WORDS[word] for one in single):
                raise ValueError(
                    f"{word!r} allows all serialization strategies of its kind: no single one may be named too"
                )
        whole = {_WORDS[word] for word in words}
        self.strategies = {*single, *(one for one in STRATEGIES if one.selectable and one.for_code in whole)}
        if listed and len({one.for_code for one in self.strategies}) != 2:
            raise ValueError("The list of allowed serializers needs at least one for code and one for data")

    def permits(self, strategy: Strategy, inside: Strategy | None = None) -> bool:
        """Whether a text in `strategy` may be read; `inside` is the combined one that it was found in."""
        if not self.strategies or strategy in self.strategies:
            return True
        if inside is None or strategy.name not in inside.members:
            return False
        return not any(one.for_code == inside.for_code and not one.members for one in self.strategies)

    def refusal(self, strategy: Strategy, what: str) -> str:
        """The sentence for the user whose `what` is in a `strategy` that isn't permitted."""
        names = ", ".join(sorted(one.name for one in self.strategies if one.for_code == strategy.for_code))
        return (
            f"This endpoint does not allow the {strategy.kind} serialization strategy {strategy.name}, in which {what} "
            f"came. Allowed {strategy.kind} strategies: {names}"
        )
