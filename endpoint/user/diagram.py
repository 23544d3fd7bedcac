"""The table of `tasks.py` as a page of the reference: `python -m endpoint.user.diagram FILE`."""

from __future__ import annotations

import sys
from pathlib import Path

from endpoint.user.tasks import TRANSITIONS, State

ENDS = (State.ANSWERED, State.HANDED_BACK, State.FORGOTTEN)
HEAD = """# The life of a task in a user endpoint

Made by `make reference` from the table in `endpoint/user/tasks.py`; don't edit it here. Each arrow is an event, and
behind the slash is what the endpoint does about it. The table below has all events, those too that change no state; one
that is not there for a state can't happen in it: it is an error of ours.

"""


def page() -> str:
    """The page in Markdown: a diagram of the changes of state, and a table of everything."""
    return f"{HEAD}```mermaid\n{diagram()}```\n\n{table()}"


def diagram() -> str:
    """Mermaid: the events that change a task's state."""
    lines = ["stateDiagram-v2"]
    for (before, event), (after, actions) in TRANSITIONS.items():
        if before is not after:
            done = f": {', '.join(action.value for action in actions)}" if actions else ""
            lines.append(f"    {_name(before)} --> {_name(after)}: {event.value}{done.replace(':', ' /')}")
    lines += [f"    {_name(state)} --> [*]" for state in ENDS]
    return "".join(f"{line}\n" for line in lines)


def table() -> str:
    """Markdown: a row for each entry of the table."""
    rows = ["| in state | event | to state | actions |", "|---|---|---|---|"]
    for (before, event), (after, actions) in TRANSITIONS.items():
        done = ", ".join(action.value for action in actions) or "-"
        rows.append(f"| {before.value if before else '(unknown)'} | {event.value} | {after.value} | {done} |")
    return "".join(f"{row}\n" for row in rows)


def _name(state: State | None) -> str:
    return "[*]" if state is None else state.value.replace("-", "_")


if __name__ == "__main__":
    Path(sys.argv[1]).write_text(page(), encoding="utf-8")
