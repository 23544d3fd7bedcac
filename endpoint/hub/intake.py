"""Deliveries that are dealt with many at a time, so that one commit serves all that have come meanwhile."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable

from sqlalchemy.exc import OperationalError, SQLAlchemyError

from endpoint.amqp.consumer import Delivery

log = logging.getLogger(__name__)

FIRST_PAUSE_S = 0.5
LONGEST_PAUSE_S = 30.0


class Intake:
    """Hands over whatever has come, in order; `handle` settles each delivery, or raises a database error.

    When the database can't write, the same deliveries are handed over again, later: unsettled, they hold back what the
    broker has. A delivery that can't be stored for its own sake is dropped.
    """

    def __init__(self, name: str, handle: Callable[[list[Delivery]], Awaitable[None]]) -> None:
        self._name = name
        self._handle = handle
        self._waiting: list[Delivery] = []
        self._any = asyncio.Event()
        self._pause_s = FIRST_PAUSE_S

    def put(self, delivery: Delivery) -> None:
        """Take a delivery; to be given to a link's consumer."""
        self._waiting.append(delivery)
        self._any.set()

    async def run(self) -> None:
        """Hand over until cancelled."""
        while True:
            await self._any.wait()
            self._any.clear()
            batch, self._waiting = self._waiting, []
            while batch and not await self._handled(batch):
                await asyncio.sleep(self._pause_s)  # a full or broken disk: nothing tells when it is well again
                self._pause_s = min(LONGEST_PAUSE_S, 2 * self._pause_s)
                batch = [delivery for delivery in batch if not delivery.settled]
            self._pause_s = FIRST_PAUSE_S

    async def _handled(self, batch: list[Delivery]) -> bool:
        try:
            await self._handle(batch)
        except OperationalError as error:
            log.error("%s can't be stored: %s", self._name, error.orig)
            return False
        except SQLAlchemyError as error:
            if len(batch) == 1:  # nothing is wrong with the database, so something is with the message
                log.error("One of %s was dropped, it can't be stored: %s", self._name, error, exc_info=error)
                batch[0].reject()
                return True
            for delivery in batch:
                if not await self._handled([delivery]):
                    return False
        return True
