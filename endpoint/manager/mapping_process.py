"""Asks the process that tries rules (`mapping_worker.py`); starts it anew when a question ended it."""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import os
import signal
import sys
from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

from endpoint.manager.mapping_types import Hit, Identity, Outcome, Rule, Trial

log = logging.getLogger(__name__)

LONGEST_ANSWER_S = 10.0  # by the clock, on a machine that is busy; the process's own limit is shorter
LONGEST_LINE = 64 * 1024 * 1024  # bytes; an answer with all trials is long
KEPT_VARIABLES = ("PATH", "LANG", "LC_ALL", "LD_LIBRARY_PATH")


class Unanswered(Exception):
    """The process gave no answer; says why."""


class RuleProcess:
    """Tries `rules`, one question at a time. Starts with the first question, or with `start`."""

    def __init__(self, rules: Sequence[Rule]) -> None:
        self._rules = (json.dumps([asdict(rule) for rule in rules]) + "\n").encode()
        self._process: asyncio.subprocess.Process | None = None
        self._turn = asyncio.Lock()

    async def start(self) -> None:
        """Have the process ready, so that the first question doesn't wait for it. Raises Unanswered."""
        async with self._turn:
            await self._started()

    async def first_hit(self, document: int, identities: Sequence[Identity]) -> Hit | None:
        """As `mapping_rules.first_hit`, of the rules of one document. Raises Unanswered."""
        answer = await self._ask({"document": document, "identities": identities, "all": False})
        return Hit(**answer) if answer else None

    async def trials(self, document: int, identities: Sequence[Identity]) -> list[Trial]:
        """As `mapping_rules.trials`, of the rules of one document. Raises Unanswered."""
        answer = await self._ask({"document": document, "identities": identities, "all": True})
        return [
            Trial(**each | {"outcome": Outcome(each["outcome"]), "groups": tuple(each["groups"])}) for each in answer
        ]

    async def close(self) -> None:
        """End the process, after the question that it works on."""
        async with self._turn:
            await self._end()

    async def _ask(self, question: dict[str, Any]) -> Any:
        async with self._turn:
            process = await self._started()
            answered = False
            try:
                line = await asyncio.wait_for(_exchange(process, question), LONGEST_ANSWER_S)
                answered = line.endswith(b"\n")
            except (OSError, ValueError, asyncio.TimeoutError) as error:
                raise Unanswered(f"the process that tries the rules doesn't answer: {error!r}") from error
            finally:  # also when somebody gave up waiting: its answer would be taken for the next one's
                status = None if answered else await self._end()
        if not answered:
            slow = status == -signal.SIGVTALRM
            raise Unanswered("a rule took too long" if slow else f"the process that tries the rules ended: {status}")
        return json.loads(line)

    async def _started(self) -> asyncio.subprocess.Process:
        if self._process is not None and self._process.returncode is None:
            return self._process
        try:
            process = await asyncio.create_subprocess_exec(
                *(sys.executable, "-I", "-m", "endpoint.manager.mapping_worker"),
                stdin=asyncio.subprocess.PIPE,
                stdout=asyncio.subprocess.PIPE,
                env={name: os.environ[name] for name in KEPT_VARIABLES if name in os.environ},
                cwd="/",
                start_new_session=True,
                limit=LONGEST_LINE,
            )
        except OSError as error:
            raise Unanswered(f"the process that tries the rules can't be started: {error}") from error
        self._process = process
        assert process.stdin is not None
        process.stdin.write(self._rules)
        return process

    async def _end(self) -> int | None:
        """Kill the process unless it has ended, and return how it ended."""
        process, self._process = self._process, None
        if process is None:
            return None
        if process.stdout is not None and not process.stdout.at_eof():
            with contextlib.suppress(ProcessLookupError):
                process.kill()
        return await process.wait()


async def _exchange(process: asyncio.subprocess.Process, question: dict[str, Any]) -> bytes:
    assert process.stdin is not None and process.stdout is not None
    process.stdin.write(json.dumps(question).encode() + b"\n")
    with contextlib.suppress(ConnectionError):  # it ended: the answer's end tells
        await process.stdin.drain()
    return await process.stdout.readline()
