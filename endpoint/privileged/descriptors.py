"""How many descriptors may be open: the monitor has two for each user endpoint, and its children need no more."""

from __future__ import annotations

import resource
from contextlib import suppress

ENOUGH = 65_536  # for 10,000 keepers, and all that a site may add


def raise_limit() -> tuple[int, int]:
    """Let this process have as many as it can; returns the limits that it was given, for its children."""
    soft, hard = given = resource.getrlimit(resource.RLIMIT_NOFILE)
    most = ENOUGH if hard == resource.RLIM_INFINITY else min(hard, ENOUGH)
    if soft != resource.RLIM_INFINITY and soft < most:
        with suppress(OSError, ValueError):  # then it has what it has
            resource.setrlimit(resource.RLIMIT_NOFILE, (most, hard))
    return given


def put_back(given: tuple[int, int]) -> None:
    """Give a child the limits that the monitor was given; raises OSError or ValueError."""
    if resource.getrlimit(resource.RLIMIT_NOFILE) != given:
        resource.setrlimit(resource.RLIMIT_NOFILE, given)
