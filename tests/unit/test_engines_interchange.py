"""What waits in an interchange, when cancellations and tasks come by different sockets."""

from __future__ import annotations

from collections import OrderedDict
from typing import Any

from endpoint.engines.interchange_cancel import _Waiting


def entry(number: int, priority: float = float("inf")) -> tuple[Any, ...]:
    return (-priority, -number, {"task_id": number})


def test_a_task_that_was_cancelled_before_it_came_is_dropped_and_answered_once():
    dropped: list[int] = []
    to_come: OrderedDict[int, None] = OrderedDict({2: None})
    waiting = _Waiting(to_come, dropped.append)

    for number in (1, 2, 3):
        waiting.add(entry(number))

    assert dropped == [2]
    assert [one[-1]["task_id"] for one in waiting] == [3, 1]
    assert not to_come


def test_tasks_wait_in_parsls_order_the_most_urgent_first_and_then_the_oldest():
    waiting = _Waiting(OrderedDict(), lambda number: None)
    for one in (entry(1), entry(2), entry(3, priority=1), entry(4, priority=5)):
        waiting.add(one)

    assert [waiting.pop()[-1]["task_id"] for _ in range(4)] == [3, 4, 1, 2]
