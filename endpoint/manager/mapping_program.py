"""Programs that know which local user an identity is: asked with a time limit, several at once, answers kept briefly.

The protocol is Globus Connect Server's, in the form that the official endpoint uses: the program gets `-c CONNECTOR -s
ENDPOINT -a`, reads all of somebody's identities from standard input, and prints a list of ids with local users. What it
prints first counts. Nothing printed, or an empty list: it knows nobody.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import shlex
import signal
import subprocess
from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import IO, Any

from endpoint.errors import redact
from endpoint.manager.local_user import LocalUser
from endpoint.manager.mapping_types import Hit, Identity, Program, identity_id

POSIX_CONNECTOR = "145812c8-decc-41f1-83cf-bb2a85a2a70b"  # "local accounts", by the identity mapping guide
MOST_SECONDS = 5.0
MOST_OUTPUT = 64 * 1024  # bytes
MOST_SHOWN = 500  # characters of what a program wrote, in a log
MOST_AT_ONCE = 8
_SECRET_WORDS = ("SECRET", "TOKEN", "PASSWORD", "PASSWD", "CREDENTIALS")


@dataclass(frozen=True)
class ProgramAnswer:
    """What a program said: ids with local users, in its order; or the problem that it had."""

    outputs: tuple[tuple[str, str], ...] = ()
    problem: str = ""

    def hit(self, program: Program) -> Hit | None:
        """Who the program says it is."""
        return Hit(*self.outputs[0], document=program.document) if self.outputs else None


class Programs:
    """Runs the programs of one endpoint.

    limit_s: how long each may take. run_as: for root, who must not run what another user's file names.
    """

    def __init__(self, endpoint_id: str, *, limit_s: float = MOST_SECONDS, run_as: LocalUser | None = None) -> None:
        self._options = ("-c", POSIX_CONNECTOR, "-s", endpoint_id, "-a")
        self._limit_s = limit_s
        self._run_as = run_as
        self._places = asyncio.Semaphore(MOST_AT_ONCE)

    async def ask(self, program: Program, identities: Sequence[Identity]) -> ProgramAnswer:
        """The program's answer for somebody with `identities`."""
        from globus_identity_mapping.mappers.external_program import identity_mapping_input_schema

        question = identity_mapping_input_schema.dumps({"identities": list(identities)}).encode()
        async with self._places:
            try:
                printed = await _run((*program.command, *self._options), question, self._limit_s, self._run_as)
            except _Failed as failed:
                return ProgramAnswer(problem=f"{shlex.join(program.command)}: {failed}")
        return _read(program, printed, {identity_id(identity) for identity in identities})


class _Failed(Exception):
    """A program did not answer; says why."""


def _read(program: Program, printed: bytes, asked: set[str]) -> ProgramAnswer:
    from globus_identity_mapping.mappers.external_program import identity_mapping_output_schema
    from marshmallow import ValidationError

    if not printed.strip():
        return ProgramAnswer()
    name = shlex.join(program.command)
    try:
        answer = identity_mapping_output_schema.loads(printed.decode())
        found = tuple((str(each["id"]), str(each["output"])) for each in answer["result"])
    except (ValidationError, ValueError, KeyError, TypeError, RecursionError) as error:
        why = f"{type(error).__name__}: {error}"
        return ProgramAnswer(problem=f"{name}: what it printed is no answer: {_shown(why)}")
    if any(identity not in asked for identity, _ in found):
        return ProgramAnswer(problem=f"{name}: it answered for an identity that it was not asked for")
    return ProgramAnswer(found)


async def _run(command: Sequence[str], question: bytes, limit_s: float, run_as: LocalUser | None) -> bytes:
    """What the program printed. Raises _Failed; nothing of its process group is left then."""
    async with _output() as (printed, to_print), _output() as (complaints, to_complain):
        with _memory_file(question) as stdin, to_print, to_complain:
            process = await _started(command, stdin, to_print, to_complain, run_as)
        finished = False
        try:
            answer, complaint = await asyncio.wait_for(_heard(process, printed, complaints), limit_s)
            finished = True
        except asyncio.TimeoutError:
            raise _Failed(f"no answer in {limit_s:g} s") from None
        finally:
            if not finished:
                await _end(process)
    if process.returncode:
        said = f", and said: {_shown(complaint.decode(errors='replace'))}" if complaint.strip() else ""
        raise _Failed(f"it ended with status {process.returncode}{said}")
    return answer


async def _started(
    command: Sequence[str], stdin: int, to_print: IO[bytes], to_complain: IO[bytes], run_as: LocalUser | None
) -> asyncio.subprocess.Process:
    who: dict[str, Any] = {}
    if run_as is not None:
        who = {"user": run_as.uid, "group": run_as.gid, "extra_groups": run_as.groups}
    try:
        return await asyncio.create_subprocess_exec(
            *command,
            stdin=stdin,
            stdout=to_print,
            stderr=to_complain,
            env=environment_for_programs(os.environ),
            cwd="/",
            start_new_session=True,
            **who,
        )
    except (OSError, ValueError, subprocess.SubprocessError) as error:
        raise _Failed(f"it can't be started: {error}") from error


@contextlib.contextmanager
def _memory_file(content: bytes) -> Iterator[int]:
    """A descriptor to read `content` from, which needs nobody to write while it is read."""
    descriptor = os.memfd_create("identities")
    with os.fdopen(descriptor, "r+b", buffering=0) as file:
        file.write(content)
        file.seek(0)
        yield descriptor


@contextlib.asynccontextmanager
async def _output() -> AsyncIterator[tuple[asyncio.StreamReader, IO[bytes]]]:
    """A pipe that we can stop to read, whoever still holds its other end."""
    ours, theirs = os.pipe()
    reader = asyncio.StreamReader()
    with os.fdopen(theirs, "wb", buffering=0) as writer:
        transport, _ = await asyncio.get_running_loop().connect_read_pipe(
            lambda: asyncio.StreamReaderProtocol(reader), os.fdopen(ours, "rb", buffering=0)
        )
        try:
            yield reader, writer
        finally:
            transport.close()


async def _heard(
    process: asyncio.subprocess.Process, printed: asyncio.StreamReader, complaints: asyncio.StreamReader
) -> tuple[bytes, bytes]:
    """All that the program printed, and the end of what it complained of, once it has ended."""
    complaining = asyncio.create_task(_tail(complaints))
    try:
        answer = await _bounded(printed)
        complaint = await complaining
        await process.wait()
    finally:
        complaining.cancel()
    return answer, complaint


async def _bounded(stream: asyncio.StreamReader) -> bytes:
    printed = b""
    while more := await stream.read(MOST_OUTPUT):
        printed += more
        if len(printed) > MOST_OUTPUT:
            raise _Failed(f"it printed more than {MOST_OUTPUT} bytes")
    return printed


async def _tail(stream: asyncio.StreamReader) -> bytes:
    """The end of what comes; the rest is forgotten."""
    kept = b""
    while more := await stream.read(MOST_OUTPUT):
        kept = (kept + more)[-MOST_OUTPUT:]
    return kept


async def _end(process: asyncio.subprocess.Process) -> None:
    """Kill all of the program's group; it asked for nothing that needs a goodbye."""
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(process.pid, signal.SIGKILL)
    await process.wait()


def environment_for_programs(environ: Mapping[str, str]) -> dict[str, str]:
    """The manager's variables without those that hold secrets, or that tell who its parents are."""
    return {
        name: value
        for name, value in environ.items()
        if not any(word in name.upper() for word in _SECRET_WORDS) and name not in ("NOTIFY_SOCKET", "WATCHDOG_PID")
    }


def _shown(text: str) -> str:
    """One line of somebody's text, fit for a log."""
    line = redact(" ".join(text.split()))
    readable = "".join(character if character.isprintable() else "?" for character in line)
    return readable if len(readable) <= MOST_SHOWN else f"...{readable[-MOST_SHOWN:]}"
