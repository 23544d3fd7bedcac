"""What the supervisor asks of whoever starts user endpoints: this process itself, or a monitor on its behalf."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Protocol

from endpoint.manager.commands import StartRequest
from endpoint.manager.local_user import LocalUser


class Process(Protocol):
    """The process of one user endpoint, from its start to its end."""

    @property
    def pid(self) -> int:
        """As the user endpoint itself sees it."""

    @property
    def logfile(self) -> str:
        """Where its log is, for an administrator."""

    async def wait(self) -> int:
        """Its exit status, or minus the number of the signal that ended it."""

    def terminate(self) -> None:
        """Ask it to end. No effect on one that has ended."""

    def kill(self) -> None:
        """End it, and what it has started."""

    def clean_up(self) -> None:
        """It ended, and could not end what it has started."""

    def log_tail(self) -> str:
        """The last that it wrote to its log; empty where that can't be read."""


class Credentials(Protocol):
    """The broker credentials of one user endpoint, which it takes from there when it needs newer ones."""

    key: str

    def write(self, amqp_creds: Mapping[str, Any]) -> None:
        """Replace them."""

    def close(self) -> None:
        """The user endpoint is gone, or another manager's."""


class Launcher(Protocol):
    """Starts user endpoints."""

    def credentials(self, name: str, key: str | None = None) -> Credentials:
        """Where the credentials of the user endpoint `name` go; `key` is that of one that runs already."""

    async def launch(self, request: StartRequest, user: LocalUser, credentials: Any) -> Process:
        """Start a user endpoint; raises UserOptionsError, ConfigError, SpawnFailure, or another EndpointError.

        credentials: what `credentials` returned for it.
        """

    async def follow(self, name: str) -> Process:
        """The process of one that a former manager has asked for; raises why it does not run, as `launch`."""
