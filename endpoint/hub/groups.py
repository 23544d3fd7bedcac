"""The queues of task groups, which are made when a submission first asks for one."""

from __future__ import annotations

import time
from collections import OrderedDict

from endpoint.hub.broker_admin import BrokerAdmin

REMEMBERED = 10_000
BELIEVED_S = 3600.0  # far less than the time after which the broker drops a queue that nobody reads


class GroupQueues:
    """Makes group queues, and remembers for a while which ones are there: an executor submits many batches to one."""

    def __init__(self, broker: BrokerAdmin) -> None:
        self._broker = broker
        self._made: OrderedDict[str, float] = OrderedDict()

    async def ensure(self, group_id: str, owner_id: str) -> None:
        """Return when the group's queue is there."""
        now = time.monotonic()
        if now - self._made.get(group_id, -BELIEVED_S) < BELIEVED_S:
            return
        await self._broker.provision_group_queue(group_id, owner_id)
        self._made[group_id] = now
        self._made.move_to_end(group_id)
        while len(self._made) > REMEMBERED:
            self._made.popitem(last=False)
