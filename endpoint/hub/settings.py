"""What a hub is told when it starts. Defaults and descriptions are in `hub.schema.json`, nowhere else."""

from __future__ import annotations

from dataclasses import dataclass, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from endpoint.config.hub import HubConfig


@dataclass(frozen=True)
class HubSettings:
    """How one hub behaves; times in seconds, sizes in bytes (payloads and results are ASCII, so characters too).

    Each field is the option of that name in the block `times`, `logins` or `limits` of the hub's file, with `_s` behind
    it where the option counts seconds.
    """

    database: Path
    start_wait_s: float
    offline_wait_s: float
    refresh_start_s: float
    revive_every_s: float
    command_wait_s: float
    command_expiry_s: int
    confirm_wait_s: float
    missed_heartbeats: float
    heartbeat_slack_s: float
    lock_s: float
    keep_tasks_s: float
    keep_user_endpoints_s: float
    tidy_every_s: float
    code_lifetime_s: float
    token_lifetime_s: int
    refresh_lifetime_s: float
    refresh_overlap_s: float
    max_payload: int
    max_function: int
    max_body: int
    max_tasks: int
    prefetch: int


def settings_from(config: HubConfig, database: Path) -> HubSettings:
    """The settings of a hub with `config` and with its data in `database`."""
    given = {**config.times, **config.logins, **config.limits}
    # A whole number may stand in the file as `180.0`.
    numbers: dict[str, Any] = {
        field.name: (int if field.type == "int" else float)(given[field.name.removesuffix("_s")])
        for field in fields(HubSettings)
        if field.name != "database"
    }
    return HubSettings(database=database, **numbers)
