"""What `idmap explain` found, as plain values and as text."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from endpoint.cli.common import table
from endpoint.cli.idmap_place import Place, Refused, account_of
from endpoint.cli.idmap_table import Identities, named
from endpoint.errors import redact

if TYPE_CHECKING:
    from endpoint.manager.mapping import Explanation

MOST_LINES = 40  # of rules that don't fit


def explanation(place: Place, identities: Identities, explanations: Sequence[Explanation]) -> dict[str, Any]:
    """All that is known, for `--json`.

    `{"identities", "documents", "decides", "local_user", "refusal", "admitted"}`; `refusal` has a code, a reason
    for the user, and a detail for the admin.
    """
    from endpoint.manager.mapping import first_of

    documents = [_document(each) for each in explanations]
    hit = first_of(explanations)
    known: dict[str, Any] = {"identities": identities, "documents": documents, "decides": hit and asdict(hit)}
    if hit is None:
        return known | {"local_user": None, "refusal": asdict(_nobody(identities, explanations)), "admitted": False}
    account = account_of(place, hit, named(identities))
    user = account.user.for_template()["local"] if account.user else None
    refusal = asdict(account.refusal) if account.refusal else None
    return known | {"local_user": user, "refusal": refusal, "admitted": refusal is None}


def _nobody(identities: Identities, explanations: Sequence[Explanation]) -> Refused:
    for each in explanations:
        if each.problem:
            reason = "The endpoint can't find out at the moment which local account you have"
            return Refused("LOOKUP_FAILED", reason, redact(f"document {each.document.document}: {each.problem}"))
    return Refused("IDENTITY_NOT_MAPPED", f"This endpoint has no local account for {named(identities)}", "")


def _document(each: Explanation) -> dict[str, Any]:
    from endpoint.manager.mapping_types import Program

    document = each.document
    if isinstance(document, Program):
        outputs = [{"identity": who, "output": output} for who, output in each.answer.outputs] if each.answer else []
        plain = {"document": document.document, "kind": "program", "command": list(document.command)}
        return plain | {"outputs": outputs, "problem": each.problem}
    rules = {rule.number: rule for rule in document.rules}
    trials = [
        asdict(trial)
        | {"outcome": trial.outcome.value}
        | {key: getattr(rules[trial.rule], key) for key in ("source", "match")}
        | {"template": rules[trial.rule].output}
        for trial in each.trials
    ]
    return {"document": document.document, "kind": "rules", "trials": trials, "problem": each.problem}


def as_text(found: Mapping[str, Any]) -> str:
    """The same for people: what was tried, what decides, and what becomes of it."""
    names = {str(identity["id"]): named([identity]) for identity in found["identities"]}
    rows: list[list[str]] = []
    for document in found["documents"]:
        rows += _program_rows(document, names) if document["kind"] == "program" else _rule_rows(document, names)
    lines = [table(["Document", "Rule", "Identity", "Looks at", "Outcome"], _shortened(rows))] if rows else []
    return "\n".join([*lines, "", *_decision(found, names)])


def _rule_rows(document: Mapping[str, Any], names: Mapping[str, str]) -> list[list[str]]:
    number = str(document["document"])
    if document["problem"]:
        return [[number, "-", "-", "-", document["problem"]]]
    return [
        [
            number,
            str(trial["rule"]),
            names.get(trial["identity"], trial["identity"]),
            f"{trial['source']} = {trial['text']}" if trial["text"] is not None else trial["source"],
            f"hit: {trial['output']}" if trial["outcome"] == "hit" else trial["outcome"],
        ]
        for trial in document["trials"]
    ]


def _program_rows(document: Mapping[str, Any], names: Mapping[str, str]) -> list[list[str]]:
    common = [str(document["document"]), "-"]
    name = document["command"][0]
    if document["problem"]:
        return [[*common, "-", name, document["problem"]]]
    said = [
        [*common, names.get(each["identity"], each["identity"]), name, f"hit: {each['output']}"]
        for each in document["outputs"]
    ]
    return said or [[*common, "-", name, "knows nobody"]]


def _shortened(rows: Sequence[list[str]]) -> list[list[str]]:
    """All that fits, and the first of what doesn't."""
    misses = [row for row in rows if row[4] == "no match"]
    left_out = {id(row) for row in misses[MOST_LINES:]}
    shown = [row for row in rows if id(row) not in left_out]
    return shown + [["...", "", "", f"{len(left_out)} more", "no match"]] * bool(left_out)


def _decision(found: Mapping[str, Any], names: Mapping[str, str]) -> list[str]:
    lines = []
    decides = found["decides"]
    if decides:
        rule = f", rule {decides['rule']}" if decides["rule"] else ""
        who = names.get(decides["identity"], decides["identity"])
        lines += [f"Decides:     document {decides['document']}{rule}, for {who}"]
        lines += _rule_lines(found, decides)
    else:
        lines += ["Decides:     nothing"]
    if user := found["local_user"]:
        groups = ", ".join(map(str, user["groups"]))
        lines.append(f"Local user:  {user['uname']}, uid {user['uid']}, gid {user['gid']}, groups {groups}")
    elif decides:
        lines.append(f"Local user:  {decides['output']}, whom this machine does not have")
    refusal = found["refusal"]
    if refusal is None:
        return [*lines, "Policy:      may have a user endpoint"]
    lines.append(f"Refused:     {refusal['reason']} [{refusal['code']}]")
    return lines + ([f"             {refusal['detail']}"] if refusal["detail"] else [])


def _rule_lines(found: Mapping[str, Any], decides: Mapping[str, Any]) -> list[str]:
    for document in found["documents"]:
        for trial in document.get("trials", ()):
            same = (trial["document"], trial["rule"]) == (decides["document"], decides["rule"])
            if same and trial["identity"] == decides["identity"]:
                groups = ", ".join(f"{{{number}}} = {text}" for number, text in enumerate(trial["groups"]))
                return [
                    f"  source     {trial['source']} = {trial['text']}",
                    f"  match      {trial['match']}{': ' + groups if groups else ''}",
                    f"  output     {trial['template']} = {trial['output']}",
                ]
    return []
