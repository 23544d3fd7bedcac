"""The tasks of a run, what they note about themselves, and messages that are no good."""

from __future__ import annotations

import itertools
import json
import uuid
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from bench.fault_client import Published
from endpoint.wire.codec import encode
from endpoint.wire.messages import Task
from tests.support.user_endpoint import headers, packed

Kind = Literal["task", "deadly", "garbage"]


def noted(path, number, seconds):  # type: ignore[no-untyped-def]  # its source travels to a worker
    import os
    import time

    notes = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
    os.write(notes, b"start %d %d\n" % (number, os.getpid()))
    time.sleep(seconds)
    os.write(notes, b"end %d %d\n" % (number, os.getpid()))
    os.close(notes)
    return number


def deadly(path, number, seconds):  # type: ignore[no-untyped-def]
    import os
    import time

    notes = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
    os.write(notes, b"start %d %d\n" % (number, os.getpid()))
    # In the middle of what others do: those that began with it end, and the next ones begin, after `seconds`.
    time.sleep(1.5 * seconds)
    os._exit(3)


@dataclass(frozen=True)
class Item:
    """One message for the endpoint. task_id: None where an answer can't be expected, since it has none to read."""

    kind: Kind
    number: int
    task_id: str | None
    message: Published


@dataclass
class Notes:
    """What tasks wrote: how often each was started and ended, and where it runs now."""

    starts: Counter[int] = field(default_factory=Counter)
    ends: Counter[int] = field(default_factory=Counter)
    running: dict[int, int] = field(default_factory=dict)  # number -> PID of the process it was started in

    @classmethod
    def read(cls, path: Path) -> Notes:
        notes = cls()
        for line in path.read_text().splitlines() if path.exists() else ():
            what, number, pid = line.split()
            if what == "start":
                notes.starts[int(number)] += 1
                notes.running[int(number)] = int(pid)
            else:
                notes.ends[int(number)] += 1
                notes.running.pop(int(number), None)
        return notes


def tasks(path: Path, count: int, seconds: float) -> list[Item]:
    """`count` tasks that note themselves in `path` and take `seconds` each."""
    return [_item("task", noted, path, number, seconds) for number in range(count)]


def with_deadly(items: list[Item], path: Path, seconds: float) -> list[Item]:
    """The tasks with two in between that end the process they run in."""
    third = len(items) // 3
    first, second = (_item("deadly", deadly, path, len(items) + index, seconds) for index in range(2))
    return [*items[:third], first, *items[third : 2 * third], second, *items[2 * third :]]


def with_garbage(items: list[Item]) -> list[Item]:
    """The tasks with one piece of garbage after each third one."""
    kinds = itertools.cycle(range(len(_garbage(str(uuid.uuid4()), str(uuid.uuid4())))))
    mixed = []
    for index, item in enumerate(items):
        mixed.append(item)
        if index % 3 == 0:
            mixed.append(_garbage_item(next(kinds), len(items) + index))
    return mixed


def _item(kind: Kind, function: Any, path: Path, number: int, seconds: float) -> Item:
    task_id = str(uuid.uuid4())
    body = encode(Task(task_id, packed(function, (str(path), number, seconds), {})))
    return Item(kind, number, task_id, (body, headers(task_id)))


def _garbage_item(kind: int, number: int) -> Item:
    task_id = str(uuid.uuid4())
    body, message_headers = _garbage(task_id, str(uuid.uuid4()))[kind]
    readable = message_headers is not None and message_headers.get("task_uuid") == task_id
    return Item("garbage", number, task_id if readable else None, (body, message_headers))


def _garbage(task_id: str, another: str) -> list[Published]:
    good = headers(task_id)
    unfit = json.dumps({"message_type": "dance", "data": {}}).encode()
    buffer = packed(noted, ("/nowhere/at/all", 0, 0), {})
    return [
        (b"", good),
        (b"\x00\xff\xfe" * 100, good),
        (b"\x01{not json", good),
        (b"\x01" + unfit, good),
        (b"\x01" + b"[" * 20_000, good),
        (encode(Task(another, buffer)), good),
        (b"\x01{}", None),
        (b"\x01{}", {}),
        (b"garbage", {"task_uuid": "zz", "function_uuid": 5}),
        (b"\x01{}", {**good, "function_uuid": "not-a-uuid"}),
        (b"\x01{}", {**good, "resource_specification": "{"}),
    ]
