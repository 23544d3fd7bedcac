"""Parsl's interchange with commands of ours, beside those that it has."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import zmq
from parsl.executors.high_throughput.interchange import Interchange

from endpoint.engines.interchange_names import DROP_WAITING, END_BLOCKS


class Commanded(Interchange):  # type: ignore[misc]
    """One thread does everything, so that a task is either waiting here or with a pool of workers.

    `DROP_WAITING`: forget the tasks that no pool has; the answer is the list of their numbers.
    `END_BLOCKS`, blocks: their jobs have ended, so whatever tasks their pools have are lost; no answer.
    """

    command_channel: Any

    def __init__(self, **configuration: Any) -> None:
        super().__init__(**configuration)
        # A pool tries our address with one socket, closes it, and comes with another of the same name. Where the end of
        # the first one is seen later, the second one would never be heard, and its pool wait for ever.
        self.manager_sock.setsockopt(zmq.ROUTER_HANDOVER, 1)
        self._commands: dict[str, Callable[..., Any]] = {
            DROP_WAITING: self._drop_waiting,
            END_BLOCKS: self._end_blocks,
        }

    def process_command(self, monitoring_radio: Any) -> None:
        """Answer a command, if one has come."""
        channel: Any = self.command_channel
        if self.socks.get(channel) != zmq.POLLIN:
            return
        command = channel.recv_pyobj()
        name, *arguments = command if isinstance(command, tuple) else (command,)
        if isinstance(name, str) and name in self._commands:
            channel.send_pyobj(self._commands[name](*arguments))
            return
        self.command_channel = _Received(channel, command)
        self.socks[self.command_channel] = zmq.POLLIN
        try:
            super().process_command(monitoring_radio)
        finally:
            del self.socks[self.command_channel]
            self.command_channel = channel

    def read_tasks(self) -> None:
        """Take in all tasks that have come."""
        while self.task_incoming.poll(0):
            self.socks[self.task_incoming] = zmq.POLLIN
            self.process_task_incoming()
        self.socks.pop(self.task_incoming, None)

    def _drop_waiting(self) -> list[int]:
        self.read_tasks()
        dropped = [entry[-1]["task_id"] for entry in self.pending_task_queue]
        self.pending_task_queue.clear()
        return dropped

    def _end_blocks(self, blocks: list[str]) -> None:
        for manager in self._ready_managers.values():
            if manager["block_id"] in blocks:
                manager["last_heartbeat"] = 0.0  # which Parsl looks at next


class _Received:
    """Stands for the socket of commands, of which one is read already."""

    def __init__(self, channel: Any, command: Any) -> None:
        self._command = command
        self.send_pyobj = channel.send_pyobj

    def recv_pyobj(self) -> Any:
        return self._command
