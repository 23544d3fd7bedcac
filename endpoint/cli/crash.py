"""Where a traceback goes that nobody expected."""

from __future__ import annotations

import logging
import os
import tempfile
import time
import traceback
from logging.handlers import RotatingFileHandler
from pathlib import Path

from endpoint.cli.common import Settings
from endpoint.errors import redact

CRASH_LOG = "crash.log"


def keep_traceback(settings: Settings) -> str:
    """Keep the traceback of the exception being handled; answers the name of the file that has it.

    That is the log file where one is open already (whose caller logs the exception), else a file of its own in the
    compute directory, else one in the temporary directory.
    """
    for handler in logging.getLogger().handlers:
        if isinstance(handler, RotatingFileHandler):
            return handler.baseFilename
    text = f"{time.strftime('%Y-%m-%d %H:%M:%S')}\n{redact(traceback.format_exc())}\n"
    for directory in (_compute_dir(settings), Path(tempfile.gettempdir())):
        try:
            return _append(directory, text)
        except OSError:
            continue
    return "no file (neither the compute directory nor the temporary directory can be written)"


def _compute_dir(settings: Settings) -> Path:
    return Path(
        settings.config_dir or os.environ.get("GLOBUS_COMPUTE_USER_DIR") or Path.home() / ".globus_compute"
    ).expanduser()


def _append(directory: Path, text: str) -> str:
    name = CRASH_LOG if directory != Path(tempfile.gettempdir()) else f"compute-endpoint-{os.getuid()}-{CRASH_LOG}"
    path = directory / name
    # O_NOFOLLOW: in a shared temporary directory another user may have put a link here
    descriptor = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_NOFOLLOW, 0o600)
    with os.fdopen(descriptor, "a", encoding="utf-8") as file:
        file.write(text)
    return str(path)
