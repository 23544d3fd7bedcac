"""The administrator's shell commands around a user endpoint's life: `endpoint_setup` and `endpoint_teardown`."""

from __future__ import annotations

import asyncio
import logging
import tempfile
from typing import IO

from endpoint.errors import ConfigError, Stage

log = logging.getLogger(__name__)

KEPT_OUTPUT = 20_000  # bytes of the end, for the log and the failure's detail
SHOWN_LINE = 300  # characters, for the user


async def run_command(option: str, command: str | None) -> None:
    """Run one of the two in a shell, with its output in the log; raises ConfigError when it fails.

    Nothing happens for None. Nobody waits for what the command leaves running behind it. The last line of a failed
    command's output is told to the user, who else knows only that their endpoint doesn't start.
    """
    if not command:
        return
    log.info("Running %s", option)
    with tempfile.TemporaryFile() as output:  # a pipe would be waited for as long as anybody holds it
        process = await asyncio.create_subprocess_shell(
            command, stdin=asyncio.subprocess.DEVNULL, stdout=output, stderr=asyncio.subprocess.STDOUT
        )
        status = await process.wait()
        text = _end_of(output)
    log.info("%s ended with status %s\n%s", option, status, text)
    if status:
        last = text.rpartition("\n")[2][-SHOWN_LINE:].rstrip(".")
        raise ConfigError(
            f"The command in '{option}' ended with status {status}" + (f": {last}" if last else ""),
            hint=f"Correct '{option}' in the endpoint's template",
            detail=text,
            stage=Stage.EXEC,
        )


def _end_of(output: IO[bytes]) -> str:
    """The end of what was written, without the line that the cut goes through."""
    size = output.seek(0, 2)
    output.seek(max(0, size - KEPT_OUTPUT))
    text = output.read().decode(errors="replace")
    return (text.partition("\n")[2] if size > KEPT_OUTPUT else text).strip()
