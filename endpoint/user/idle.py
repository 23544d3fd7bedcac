"""When a user endpoint has been idle long enough to stop. Counted in heartbeats; pure."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass
class IdleWatch:
    """Two limits, in heartbeats without any movement (no task received, no result sent).

    soft: counts once at least one task has moved and none is outstanding; 0 means never stop for idleness.
    hard: counts whatever is outstanding; for endpoints that nobody used, and tasks that never end.
    """

    soft: int
    hard: int
    _quiet: int = 0
    _quiet_and_done: int = 0
    _seen: int = 0

    def heartbeat(self, *, received: int, answered: int) -> str | None:
        """To be called once a heartbeat with the totals so far; returns why to stop now, or None to go on."""
        if self.soft <= 0:
            return None
        moved = received + answered
        if moved != self._seen:
            self._seen, self._quiet, self._quiet_and_done = moved, 0, 0
            return None
        self._quiet += 1
        if received and answered >= received:
            self._quiet_and_done += 1
        if self._quiet_and_done >= self.soft:
            return f"idle for {self._quiet_and_done} heartbeats (idle_heartbeats_soft)"
        if self._quiet > max(self.hard, self.soft + 1):
            return f"no movement for {self._quiet} heartbeats (idle_heartbeats_hard)"
        return None
