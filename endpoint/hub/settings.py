"""What a hub is told when it starts."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

MIB = 1024 * 1024


@dataclass(frozen=True)
class HubSettings:
    """How one hub behaves; times in seconds, sizes in bytes (payloads and results are ASCII, so characters too).

    start_wait_s stays under the 60 s after which the SDK's own HTTP client gives up, so that a user reads our sentence
    and not a timeout's.
    """

    database: Path
    start_wait_s: float = 45.0  # for the first heartbeat of a user endpoint
    offline_wait_s: float = 8.0  # for a sign of life of a manager that seems to be away
    refresh_start_s: float = 10.0  # a start command to a user endpoint that runs is repeated at most this often
    command_wait_s: float = 20.0  # for the broker's confirmation of a command
    confirm_wait_s: float = 10.0  # for its confirmation of tasks, which are stored already
    missed_heartbeats: float = 2.0  # so many may be missing before an endpoint counts as offline
    heartbeat_slack_s: float = 10.0
    lock_s: float = 60.0  # how long a stopped endpoint may not register again
    keep_tasks_s: float = 14 * 86400  # results that nobody deletes; a task that nobody runs fails after the same time
    keep_user_endpoints_s: float = 30 * 86400  # queues and broker user of one that is not used any more
    tidy_every_s: float = 6 * 3600
    token_lifetime_s: int = 48 * 3600
    code_lifetime_s: float = 600.0
    refresh_lifetime_s: float = 90 * 86400  # of a refresh token that is not used
    # Programs that share a file of tokens refresh the same one, each when its access token ends: so long a refresh
    # token is good after its first use.
    refresh_overlap_s: float = 48 * 3600
    max_payload: int = 10 * MIB  # one task's packed arguments
    max_function: int = 10 * MIB
    max_body: int = 64 * MIB  # a whole request: a batch of many tasks
    max_tasks: int = 10_000  # in one submission
    prefetch: int = 500  # results and heartbeats that wait for the database
    command_expiry_s: int = 180  # a manager refuses older commands
