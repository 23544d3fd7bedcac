"""What the commands of `compute-hub` share that look into a hub's database beside the service."""

from __future__ import annotations

import os
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
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

    # Now, and not when they are needed: the account may not get at where they lie.
    import aiosqlite  # noqa: F401
    import sqlalchemy.dialects.sqlite.aiosqlite  # noqa: F401

    from endpoint.hub.store import Store

    path = database_path(directory, database)
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

    with as_owner(path):
        return asyncio.run(act())


def database_path(directory: Path, database: Path | None) -> Path:
    """Where the database is, or would be."""
    return (database or directory / DATABASE).expanduser().absolute()


@contextmanager
def as_owner(path: Path) -> Iterator[None]:
    """As root, be the account that `path` belongs to (or its folder, where it is not there): the hub's files stay its.

    It also keeps root from following what that account may have put there.
    """
    with acting_as(_owner(path)):
        yield


@contextmanager
def acting_as(owner: tuple[int, int]) -> Iterator[None]:
    """As root, have the rights of another user and group for a while; nothing changes for anybody else."""
    uid, gid = owner
    if os.geteuid() != 0 or uid == 0:
        yield
        return
    groups, group = os.getgroups(), os.getegid()
    os.setgroups([])
    os.setegid(gid)
    os.seteuid(uid)
    try:
        yield
    finally:
        os.seteuid(0)
        os.setegid(group)
        os.setgroups(groups)


def _owner(path: Path) -> tuple[int, int]:
    try:
        status = path.lstat()  # whoever put a link there is meant, not whose file it leads to
    except FileNotFoundError:
        folder = next(parent for parent in path.parents if parent.exists())
        status = folder.stat()
    return status.st_uid, status.st_gid


def end_broker_connections(directory: Path, database: Path | None, identity_id: str) -> None:
    """End what an identity that was deleted has open at the embedded broker of the hub in `directory`."""
    import asyncio

    broker = directory.expanduser() / BROKER
    if database is None and broker.is_dir():
        from endpoint.hub.server import end_connections

        with as_owner(broker):
            asyncio.run(end_connections(broker, identity_id))
