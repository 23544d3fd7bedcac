"""What is wrong with the rules of an identity mapping beyond their form, by the package that carries them out.

Its `match` is no full regular expression: it has `.`, `?`, `*`, `|`, parentheses and a backslash before these. All else
stands for itself. What it refuses is an error here; what it takes, though the writer hardly meant it, is a warning.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any

from endpoint.config.faults import Fault, Path

EXPRESSION = "expression_identity_mapping#1.0.0"
_FIELD = re.compile(r"\{([^}]*)\}")
_ESCAPED = re.compile(r"\\.", re.DOTALL)
_ITSELF = re.compile(r"[\^$+\[\]{}]")
_MEANT = {
    "^": "all of the text must fit anyway: leave it out",
    "$": "all of the text must fit anyway: leave it out",
    "+": "there is only * (any number, also none) and ? (one or none)",
}
_NO_CLASSES = "there are no classes and no counts: . is any character, * any number of them"


def mapping_faults(data: Any) -> Iterator[Fault]:
    """The faults of a mapping file's data, whose form may be wrong too; that is not told here."""
    for number, document in enumerate(data if isinstance(data, list) else []):
        rules = document.get("mappings") if isinstance(document, dict) else None
        for index, rule in enumerate(rules if isinstance(rules, list) else []):
            if isinstance(rule, dict) and all(isinstance(rule.get(key), str) for key in ("source", "match", "output")):
                yield from _rule_faults(rule, (number, "mappings", index))


def _rule_faults(rule: Mapping[str, Any], place: Path) -> Iterator[Fault]:
    pattern = _compiled(rule)
    if isinstance(pattern, str):
        yield Fault((*place, "match"), pattern)
        return
    if not rule.get("literal"):
        yield from _match_warnings(rule["match"], (*place, "match"))
    if not _FIELD.search(rule["source"]):
        yield Fault((*place, "source"), "it names no field, so the rule is for everybody or nobody", warning=True)
    if any(_is_number(name) for name in _FIELD.findall(rule["source"])):
        yield Fault((*place, "source"), "only the output can have groups; this rule never fits", warning=True)
    for name in _FIELD.findall(rule["output"]):
        if _is_number(name) and not 0 <= int(name) < pattern.groups:
            has = f"has {pattern.groups}" if pattern.groups else "has none"
            message = f"there is no group {{{name}}}: the match {has}, counted from {{0}}"
            yield Fault((*place, "output"), f"{message}; this rule never fits", warning=True)


def _match_warnings(match: str, place: Path) -> Iterator[Fault]:
    bare = _ESCAPED.sub("", match)
    if found := _ITSELF.search(bare):
        sign = found[0]
        yield Fault(place, f"{sign} has no meaning here but itself", _MEANT.get(sign, _NO_CLASSES), warning=True)
    if _has_bare_alternatives(bare):
        yield Fault(
            place,
            "the official endpoint takes whatever begins with the first alternative",
            "put parentheses around alternatives: (a|b)",
            warning=True,
        )


def _has_bare_alternatives(match: str) -> bool:
    depth = 0
    for character in match:
        depth += {"(": 1, ")": -1}.get(character, 0)
        if character == "|" and depth == 0:
            return True
    return False


def _is_number(name: str) -> bool:
    try:
        int(name)
    except ValueError:
        return False
    return True


def _compiled(rule: Mapping[str, Any]) -> re.Pattern[str] | str:
    """The rule's pattern, or what is wrong with it."""
    from globus_identity_mapping.mappers.expression import ExpressionIdentityMapping

    kept = {key: rule[key] for key in ("source", "match", "output")}
    literal = rule.get("literal") is True
    try:
        # As written; and closed in, as it is tried: what ends a parenthesis or a line early means nothing there.
        for match in (kept["match"],) if literal else (kept["match"], f"(?:{kept['match']})"):
            mapping = kept | {"match": match, "literal": literal}
            document = {"DATA_TYPE": EXPRESSION, "mappings": [mapping]}
            pattern: re.Pattern[str] = ExpressionIdentityMapping.from_mapping_document(document).mappings[0][
                "compiled_match"
            ]
    except ValueError as error:  # InvalidMappingError is one
        why = error.args[-1] if len(error.args) > 1 else str(error).rpartition(" - ")[2]
        return f"not a pattern of this kind: {why}"
    except (RecursionError, OverflowError):
        return "not a pattern of this kind: it is too deep or too long"
    return pattern
