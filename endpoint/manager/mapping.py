"""From Globus identities to the name of a local user: a mapping file's documents, asked in order.

The order is the official endpoint's: the first document that knows any of somebody's identities decides. Within a
document of rules, the first rule that fits any of them, and then the first of these; a program decides its own order.
A document that can't answer ends the search, since a later one might give another account.
"""

from __future__ import annotations

import asyncio
import json
import os
import stat
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from endpoint.errors import ConfigError, MappingError
from endpoint.manager.mapping_answers import Answers
from endpoint.manager.mapping_process import RuleProcess, Unanswered
from endpoint.manager.mapping_program import ProgramAnswer, Programs
from endpoint.manager.mapping_refusals import LookupFailed
from endpoint.manager.mapping_types import Document, Hit, Identity, Program, Rules, Trial, documents_of

LARGEST_FILE = 8 * 1024 * 1024  # bytes
MOST_IDENTITIES = 50  # of one person
MOST_BYTES = 256 * 1024  # all of them, as JSON
KEEP_HIT_S = 60.0  # what a program said
KEEP_MISS_S = 5.0
KEEP_FAILURE_S = 5.0
KEEP_SLOW_S = 60.0  # whose identities a rule takes too long for


@dataclass(frozen=True)
class MappingFile:
    """A mapping file's documents, and the warnings about them."""

    documents: tuple[Document, ...]
    warnings: tuple[str, ...] = ()

    def __str__(self) -> str:
        rules = sum(len(document.rules) for document in self.documents if isinstance(document, Rules))
        programs = sum(isinstance(document, Program) for document in self.documents)
        said = [f"{rules} rule{'s' * (rules != 1)}"]
        return " and ".join(said + [f"{programs} program{'s' * (programs != 1)}"] * bool(programs))


def read_mapping(path: Path, manager_uid: int | None = None) -> MappingFile:
    """Read and check a mapping file. Raises MappingError that tells all that is wrong with it.

    manager_uid: whose the file may be without a warning, beside root's; by default this process's, the manager.
    """
    from endpoint.config.check import problems
    from endpoint.config.mapping_faults import mapping_faults
    from endpoint.config.model import read_text
    from endpoint.config.parse import parse_json, parse_yaml
    from endpoint.config.report import located, refusal

    try:
        doubts = _doubts(path, os.getuid() if manager_uid is None else manager_uid)
        document = (parse_json if path.suffix == ".json" else parse_yaml)(read_text(path), str(path))
        found = problems(document, "identity-mapping")
        found += located(mapping_faults(document.data), str(path), document.position)
        if bad := [problem for problem in found if not problem.warning]:
            raise refusal(bad)
    except (ConfigError, OSError) as error:
        failure = error.failure if isinstance(error, ConfigError) else None
        raise MappingError(
            f"The identity mapping can't be used: {failure.reason if failure else error}",
            hint=(failure and failure.hint) or f"Check it with: globus-compute-endpoint check-config {path}",
            detail=failure.detail if failure else "",
        ) from error
    return MappingFile(documents_of(document.data), (*doubts, *map(str, found)))


def _doubts(path: Path, manager_uid: int) -> list[str]:
    """Warnings about the file itself: who can write it can be anybody. Raises ConfigError where that is everyone."""
    try:
        found = path.stat()
    except FileNotFoundError:
        return []  # reading it will tell
    if found.st_size > LARGEST_FILE:
        raise ConfigError(f"{path} is larger than {LARGEST_FILE} bytes")
    if found.st_mode & stat.S_IWOTH:
        raise ConfigError(f"Everybody can write {path}, and so be any local user", hint=f"chmod o-w {path}")
    doubts = []
    if found.st_mode & stat.S_IWGRP:
        doubts.append(f"{path}: warning: its group can write it, and so be any local user")
    if found.st_uid not in (0, manager_uid):
        doubts.append(f"{path}: warning: it belongs to the user id {found.st_uid}, who can be any local user by it")
    return doubts


@dataclass(frozen=True)
class Explanation:
    """What one document said: a document of rules has `trials`, a program an `answer`."""

    document: Document
    trials: tuple[Trial, ...] = ()
    answer: ProgramAnswer | None = None
    problem: str = ""


class IdentityMapping:
    """One version of a mapping file, at work. Call `close` in the end."""

    def __init__(self, file: MappingFile, programs: Programs) -> None:
        self.file = file
        self._programs = programs
        self._process = RuleProcess(
            [rule for document in file.documents if isinstance(document, Rules) for rule in document.rules]
        )
        self._said: Answers[ProgramAnswer] = Answers(_keep_s)
        self._found: Answers[Hit | str] = Answers(lambda found: KEEP_SLOW_S if isinstance(found, str) else 0.0)
        self._users = 0
        self._retired = False

    async def __aenter__(self) -> IdentityMapping:
        self._users += 1
        return self

    async def __aexit__(self, *_error: object) -> None:
        self._users -= 1
        if self._retired and not self._users:
            await self.close()

    async def start(self) -> None:
        """Have the process for rules ready. Raises LookupFailed."""
        try:
            if any(isinstance(document, Rules) for document in self.file.documents):
                await self._process.start()
        except Unanswered as error:
            raise _failed(str(error)) from error

    async def find(self, identities: Sequence[Identity]) -> Hit | None:
        """Who somebody with `identities` is here; None where no document knows. Raises LookupFailed."""
        key = json.dumps(list(identities), sort_keys=True)
        for document in self.file.documents:
            if isinstance(document, Program):
                answer = await self._answer(document, identities, key)
                hit = answer.hit(document)
            else:
                hit = await self._first_hit(document, identities, key)
            if hit is not None:
                return hit
        return None

    async def explain(self, identities: Sequence[Identity]) -> list[Explanation]:
        """What every document says, also after the one that decides."""
        return [await self._explain(document, identities) for document in self.file.documents]

    async def retire(self) -> None:
        """Close once nobody uses it any more: another version has taken over."""
        self._retired = True
        if not self._users:
            await self.close()

    async def close(self) -> None:
        """End all processes that work for it."""
        await asyncio.gather(self._said.close(), self._found.close())
        await self._process.close()

    async def _answer(self, program: Program, identities: Sequence[Identity], key: str) -> ProgramAnswer:
        answer = await self._said.get((program.document, key), lambda: self._programs.ask(program, identities))
        if answer.problem:
            raise _failed(answer.problem)
        return answer

    async def _first_hit(self, document: Rules, identities: Sequence[Identity], key: str) -> Hit | None:
        async def ask() -> Hit | str:
            try:
                return await self._process.first_hit(document.document, identities) or _NOBODY
            except Unanswered as error:
                return f"document {document.document}: {error}"

        found = await self._found.get((document.document, key), ask)
        if isinstance(found, str):
            raise _failed(found)
        return None if found is _NOBODY else found

    async def _explain(self, document: Document, identities: Sequence[Identity]) -> Explanation:
        if isinstance(document, Program):
            answer = await self._programs.ask(document, identities)
            return Explanation(document, answer=answer, problem=answer.problem)
        try:
            return Explanation(document, tuple(await self._process.trials(document.document, identities)))
        except Unanswered as error:
            return Explanation(document, problem=str(error))


_NOBODY = Hit("", "", 0)


def _keep_s(answer: ProgramAnswer) -> float:
    if answer.problem:
        return KEEP_FAILURE_S
    return KEEP_HIT_S if answer.outputs else KEEP_MISS_S


def _failed(problem: str) -> LookupFailed:
    return LookupFailed(
        "The endpoint can't find out at the moment which local account you have",
        detail=f"No later document was asked, as it might give another account. {problem}",
    )


def first_of(explanations: Sequence[Explanation]) -> Hit | None:
    """Who `find` finds, by what `explain` told; None also where a problem ends the search."""
    for each in explanations:
        if each.problem:
            return None
        if isinstance(each.document, Program):
            hit = each.answer.hit(each.document) if each.answer else None
        else:
            hits = (_hit(trial) for trial in each.trials)
            hit = next((found for found in hits if found), None)
        if hit is not None:
            return hit
    return None


def _hit(trial: Trial) -> Hit | None:
    return None if trial.output is None else Hit(trial.identity, trial.output, trial.document, trial.rule)


def identities_problem(identities: Sequence[Any]) -> str | None:
    """Why these can't be somebody's identities, or None: what comes from outside is bounded before it is used."""
    if len(identities) > MOST_IDENTITIES:
        return f"{len(identities)} identities are more than the {MOST_IDENTITIES} allowed"
    size = len(json.dumps(list(identities)))
    return f"identities of {size} bytes are more than the {MOST_BYTES} allowed" if size > MOST_BYTES else None
