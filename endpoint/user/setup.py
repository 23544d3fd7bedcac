"""The administrator's shell commands around a user endpoint's life: `endpoint_setup` and `endpoint_teardown`."""

from __future__ import annotations

import asyncio
import logging

from endpoint.errors import ConfigError, Stage

log = logging.getLogger(__name__)

SHOWN_OUTPUT = 2_000


async def run_command(option: str, command: str | None) -> None:
    """Run one of the two, with its output in the log; raises ConfigError when it fails. Nothing happens for None."""
    if not command:
        return
    log.info("Running %s", option)
    process = await asyncio.create_subprocess_shell(
        command,
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )
    output, _ = await process.communicate()
    text = output.decode(errors="replace").strip()
    log.info("%s ended with status %s\n%s", option, process.returncode, text)
    if process.returncode:
        raise ConfigError(
            f"The command in '{option}' ended with status {process.returncode}",
            hint=f"Correct '{option}' in the endpoint's template",
            detail=text[-SHOWN_OUTPUT:],
            stage=Stage.EXEC,
        )
