"""`start` with privileges: this program is replaced by the monitor, before it has read anything of the endpoint's.

Whoever owns the directory could otherwise have root follow what stands in it (docs/privileges.md, "Starting").
"""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import NoReturn

from endpoint.cli.common import Settings
from endpoint.errors import ConfigError, Stage

MONITOR = "endpoint.privileged.monitor"
CAP_SETGID, CAP_SETUID = 6, 7


def belongs_to_monitor(endpoint_dir: Path) -> bool:
    """Whether an endpoint that this process starts is run by a monitor: it may become others, and the directory is
    another's."""
    return is_privileged() and owner_of(endpoint_dir) != os.geteuid()


def is_privileged() -> bool:
    """Whether this process could become another user."""
    return os.geteuid() == 0 or all(_capabilities() >> number & 1 for number in (CAP_SETUID, CAP_SETGID))


def owner_of(endpoint_dir: Path) -> int:
    """The user id of who owns the directory; raises ConfigError."""
    try:
        return endpoint_dir.stat().st_uid
    except OSError as error:
        raise ConfigError(
            f"The endpoint's directory {endpoint_dir} can't be read: {error.strerror}", stage=Stage.CONFIGURE
        ) from error


def command(endpoint_dir: Path, policy: str | None, manager_arguments: Sequence[str]) -> list[str]:
    """The monitor's command line."""
    chosen = ["--policy", str(Path(policy).absolute())] if policy else []
    place = ["--endpoint-dir", str(endpoint_dir.absolute())]
    return [sys.executable, "-I", "-m", MONITOR, endpoint_dir.name, *place, *chosen, "--", *manager_arguments]


def become_monitor(
    settings: Settings, endpoint_dir: Path, *, policy: str | None, endpoint_uuid: str | None, ready_fd: int | None
) -> NoReturn:
    """Replace this process by the monitor of the endpoint in `endpoint_dir`."""
    arguments = [*flags(settings), *(["--endpoint-uuid", endpoint_uuid] if endpoint_uuid else [])]
    if ready_fd is not None:
        os.set_inheritable(ready_fd, True)
        arguments += ["--ready-fd", str(ready_fd)]
    sys.stdout.flush()
    argv = command(endpoint_dir, policy, arguments)
    os.execv(argv[0], argv)  # noqa: S606 - that is the point


def flags(settings: Settings) -> list[str]:
    """The options that every command understands, as they were given."""
    given = {"--debug": settings.debug, "--log-to-console": settings.log_to_console, "--no-color": not settings.color}
    return [flag for flag, wanted in given.items() if wanted]


def _capabilities() -> int:
    """The effective capabilities of this process, as a number."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith("CapEff:"):
            return int(line.split()[1], 16)
    return 0
