"""The interchange's part in telling which block has a task: it says so when it gives the task to a pool of workers."""

from __future__ import annotations

import pickle
from typing import Any

from endpoint.engines.interchange_cancel import Cancelling
from endpoint.engines.interchange_names import PLACES, TELL_PLACES


class Placing(Cancelling):
    """With the command `TELL_PLACES`: from then on packets with `PLACES` in front are among the results.

    Such a packet holds, pickled, a list of (task's number, block, host); it comes before the results of its tasks.
    """

    def __init__(self, **configuration: Any) -> None:
        super().__init__(**configuration)
        self._telling = False
        self._commands[TELL_PLACES] = self._tell_places

    def _tell_places(self) -> bool:
        self._telling = True
        return True

    def process_tasks_to_send(self, interesting_managers: set[bytes], monitoring_radio: Any) -> None:
        """Give tasks that wait to the pools that are free."""
        had = {pool: len(manager["tasks"]) for pool, manager in self._ready_managers.items()} if self._telling else {}
        super().process_tasks_to_send(interesting_managers, monitoring_radio)
        places = [
            (number, self._ready_managers[pool]["block_id"], self._ready_managers[pool]["hostname"])
            for pool, count in had.items()
            for number in self._ready_managers[pool]["tasks"][count:]
        ]
        if places:
            self.results_outgoing.send(PLACES + pickle.dumps(places))
