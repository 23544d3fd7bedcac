"""The process that tries the rules of an identity mapping; `mapping_process.py` starts it and asks.

A regular expression can take for ever on a text that was made for that, and Python can't stop it. The kernel can:
whatever one question takes more than its share of processor time for ends this process, and nothing else.

Lines of JSON on standard input and output: first the rules; then questions, each with its answer.
"""

from __future__ import annotations

import json
import signal
import sys
from dataclasses import asdict
from typing import Any

from endpoint.manager.mapping_rules import TriedRule, first_hit, ready, trials
from endpoint.manager.mapping_types import Rule

MOST_CPU_S = 1.0  # for one question


def main() -> None:
    """Answer until standard input ends."""
    rules: dict[int, list[TriedRule]] = {}
    for tried in ready(Rule(**rule) for rule in json.loads(sys.stdin.readline())):
        rules.setdefault(tried.rule.document, []).append(tried)
    for line in sys.stdin:
        signal.setitimer(signal.ITIMER_VIRTUAL, MOST_CPU_S)  # nobody handles SIGVTALRM, which ends the process
        answer = _answer(rules, json.loads(line))
        signal.setitimer(signal.ITIMER_VIRTUAL, 0)
        sys.stdout.write(json.dumps(answer) + "\n")
        sys.stdout.flush()


def _answer(rules: dict[int, list[TriedRule]], question: dict[str, Any]) -> Any:
    """`{"document", "identities", "all"}` -> the first hit or null; with `all` a list of all trials."""
    chosen = rules.get(question["document"], [])
    if question["all"]:
        return [asdict(trial) for trial in trials(chosen, question["identities"])]
    hit = first_hit(chosen, question["identities"])
    return asdict(hit) if hit else None


if __name__ == "__main__":
    main()
