"""What the commands of `compute-hub` share that look into a hub's database beside the service."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

import click

from endpoint.errors import ConfigError, Stage

if TYPE_CHECKING:
    from endpoint.hub.store import Store

T = TypeVar("T")

DATABASE = "hub.db"
BROKER = "broker"
DEFAULT_DIRECTORY = Path("~/.compute_hub")

directory_option = click.option(
    "--directory",
    type=click.Path(path_type=Path, file_okay=False),
    default=DEFAULT_DIRECTORY,
    envvar="COMPUTE_HUB_DIR",
    show_default=True,
    help="The hub's directory: what `serve --embedded` was given. Also $COMPUTE_HUB_DIR.",
)
database_option = click.option(
    "--database",
    type=click.Path(path_type=Path, dir_okay=False),
    help=f"The hub's database, where it isn't {DATABASE} in the directory.",
)


def with_store(
    directory: Path, database: Path | None, action: Callable[[Store], Awaitable[T]], *, create: bool = False
) -> T:
    """What `action(store)` answers; `create` says that a database may be made where there is none."""
    import asyncio

    from endpoint.hub.store import Store

    path = (database or directory / DATABASE).expanduser().resolve()
    if not create and not path.exists():
        raise ConfigError(
            f"There is no hub database {path}",
            hint="Name the hub's directory with --directory; `compute-hub serve` makes one",
            stage=Stage.HUB,
        )

    async def act() -> T:
        store = await Store.open(path)
        try:
            return await action(store)
        finally:
            await store.close()

    return asyncio.run(act())


def end_broker_connections(directory: Path, database: Path | None, identity_id: str) -> None:
    """End what an identity that was deleted has open at the embedded broker of the hub in `directory`."""
    import asyncio

    broker = directory.expanduser() / BROKER
    if database is None and broker.is_dir():
        from endpoint.hub.server import end_connections

        asyncio.run(end_connections(broker, identity_id))
