"""What the rules in a site document do, by the code that carries them out in an endpoint: for `check-config`."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

from endpoint.config.site_mapping import Shared

_RULE = re.compile(r"document (\d+), rule (\d+)")


class Rules:
    """A `Judge`; see there."""

    def shared(self, data: Sequence[Any]) -> tuple[list[Shared], list[str]]:
        from endpoint.manager.mapping_collisions import possible_collisions
        from endpoint.manager.mapping_types import documents_of

        report = possible_collisions(documents_of(data))
        found = [
            Shared(one.account, str(one), tuple(place for guest in one.guests for place in _places(guest.by)))
            for one in report.collisions
        ]
        return found, report.notes

    def user(self, data: Sequence[Any], identity: Any) -> tuple[str | None, bool]:
        from endpoint.cli.idmap_table import identities_of
        from endpoint.manager.mapping_rules import first_hit, ready
        from endpoint.manager.mapping_types import Program, documents_of

        identities = identities_of(identity)
        for document in documents_of(data):
            if isinstance(document, Program):
                return None, False
            if hit := first_hit(ready(document.rules), identities):
                return hit.output, True
        return None, True


def _places(told: str) -> list[tuple[int, int]]:
    return [(int(document) - 1, int(rule) - 1) for document, rule in _RULE.findall(told)]
