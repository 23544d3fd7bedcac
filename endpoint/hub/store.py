"""The hub's database: the one place where transactions begin and end."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from sqlalchemy import URL, Connection, event
from sqlalchemy.engine.interfaces import DBAPIConnection
from sqlalchemy.exc import DatabaseError
from sqlalchemy.ext.asyncio import AsyncEngine, AsyncSession, async_sessionmaker, create_async_engine

from endpoint.errors import ConfigError, Stage
from endpoint.hub.models import Base

SCHEMA_VERSION = 1
BUSY_TIMEOUT_MS = 30_000


class Store:
    """A SQLite database in WAL mode; readers never wait, writers wait for each other.

    Within a process writers queue on a lock, so that they don't spin in the database; another process (the command
    line's `client create` beside a running service) is waited for by the busy timeout.
    """

    def __init__(self, engine: AsyncEngine) -> None:
        self._engine = engine
        self._sessions = async_sessionmaker(engine, expire_on_commit=False)
        self._one_writer = asyncio.Lock()

    @classmethod
    async def open(cls, path: Path) -> Store:
        """Open the database at `path`, made (mode 0600) with its tables where it is missing.

        Raises ConfigError when the file can't be used, or was written by another version.
        """
        try:
            path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
            os.close(os.open(path, os.O_CREAT | os.O_RDWR, 0o600))
        except OSError as error:
            raise ConfigError(
                f"The hub's database {path} can't be opened: {error.strerror}", stage=Stage.HUB
            ) from error
        engine = create_async_engine(URL.create("sqlite+aiosqlite", database=str(path)))
        event.listen(engine.sync_engine, "connect", _on_connect)
        event.listen(engine.sync_engine, "begin", _on_begin)
        store = cls(engine)
        try:
            await store._prepare(path)
        except DatabaseError as error:
            await store.close()
            raise ConfigError(f"The hub's database {path} can't be used: {error.orig}", stage=Stage.HUB) from error
        except ConfigError:
            await store.close()
            raise
        return store

    async def close(self) -> None:
        """Close every connection."""
        await self._engine.dispose()

    @asynccontextmanager
    async def reading(self) -> AsyncIterator[AsyncSession]:
        """A session that sees one state of the database throughout; what it changes is thrown away."""
        async with self._sessions() as session:
            yield session

    @asynccontextmanager
    async def writing(self) -> AsyncIterator[AsyncSession]:
        """A session whose changes are on disk when the block ends, or not made at all when it raises."""
        async with self._one_writer, self._sessions() as session, session.begin():
            # Taking the write lock at once: a reader that turns writer halfway can be refused without any waiting.
            await session.connection(execution_options={"immediate": True})
            yield session

    async def _prepare(self, path: Path) -> None:
        async with self.writing() as session:
            connection = await session.connection()
            found = (await connection.exec_driver_sql("PRAGMA user_version")).scalar_one()
            if found not in (0, SCHEMA_VERSION):
                raise ConfigError(
                    f"The hub's database {path} has layout {found}; this version reads layout {SCHEMA_VERSION}",
                    stage=Stage.HUB,
                )
            await connection.run_sync(Base.metadata.create_all)
            await connection.exec_driver_sql(f"PRAGMA user_version = {SCHEMA_VERSION}")


def _on_connect(connection: DBAPIConnection, _record: object) -> None:
    connection.isolation_level = None  # transactions begin where we say, below
    cursor = connection.cursor()
    for pragma in (
        "journal_mode = WAL",
        "synchronous = FULL",  # a result is acknowledged after its commit: the commit has to be on the disk
        "foreign_keys = ON",
        f"busy_timeout = {BUSY_TIMEOUT_MS}",
    ):
        cursor.execute(f"PRAGMA {pragma}")
    cursor.close()


def _on_begin(connection: Connection) -> None:
    options: dict[str, Any] = dict(connection.get_execution_options())
    connection.exec_driver_sql("BEGIN IMMEDIATE" if options.get("immediate") else "BEGIN")
