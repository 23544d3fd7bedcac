"""What a block that failed has said: the end of its standard error, or of whatever else it left."""

from __future__ import annotations

import os
from pathlib import Path

from parsl.jobs.states import JobStatus

MOST_BYTES = 4096
MOST_LINES = 12
POOL_LOG = "manager.log"


def last_words(job: JobStatus, logdir: str, block: str) -> str:
    """The last lines of the job's standard error, else of its output, else of its pool's log, else what Parsl says."""
    for path in (job.stderr_path, job.stdout_path, _pool_log(Path(logdir) / f"block-{block}")):
        if path is not None and (text := _tail(path)):
            return text.replace(f"{Path(path).parent}/", "")  # the shell names its script, at length
    status = "" if job.exit_code is None else f" (exit status {job.exit_code})"
    return f"{job.message or 'nothing'}{status}"


def _tail(path: str | Path) -> str:
    """The last lines of a file of which another program may have made anything; empty where there are none."""
    try:
        with Path(path).open("rb") as lines:
            lines.seek(max(0, os.fstat(lines.fileno()).st_size - MOST_BYTES))
            text = lines.read(MOST_BYTES).decode(errors="replace")
    except OSError:
        return ""
    return "\n".join(text.strip().splitlines()[-MOST_LINES:])


def _pool_log(directory: Path) -> Path | None:
    """The newest log of a block's worker pools."""
    logs = list(directory.glob(f"*/{POOL_LOG}"))
    return max(logs, key=lambda log: log.stat().st_mtime, default=None)
