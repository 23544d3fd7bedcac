"""Copies of a hub's database: made while the hub runs, and put back while it doesn't.

A copy is one SQLite file; its `user_version` is the layout of the tables, as in the database itself.
"""

from __future__ import annotations

import os
import sqlite3
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from endpoint.errors import ConfigError, Stage
from endpoint.hub.lock import only_one
from endpoint.hub.store import BUSY_TIMEOUT_MS, SCHEMA_VERSION

COUNTED = ("clients", "people", "endpoints", "functions", "tasks")
BESIDE = ("-wal", "-shm")  # what SQLite has beside a database in use


@dataclass(frozen=True)
class Copy:
    """A copy that is good. counts: rows by table."""

    bytes: int
    layout: int
    counts: dict[str, int]


def opened(database: Path) -> sqlite3.Connection:
    """A database to copy from, opened for reading with the rights that this process has now. Raises ConfigError."""
    with _told(database):
        connection = sqlite3.connect(f"{database.as_uri()}?mode=ro", uri=True, timeout=BUSY_TIMEOUT_MS / 1000)
        try:
            connection.execute("SELECT count(*) FROM sqlite_master").fetchone()  # only now SQLite opens its files
        except BaseException:
            connection.close()
            raise
        return connection


def check(connection: sqlite3.Connection, path: Path) -> Copy:
    """What is in a database; ConfigError where that is no hub's, one of another version, or damaged."""
    with _told(path):
        (layout,) = connection.execute("PRAGMA user_version").fetchone()
        tables = {name for (name,) in connection.execute("SELECT name FROM sqlite_master WHERE type = 'table'")}
        if not tables.issuperset(COUNTED):
            raise _bad(f"{path} is not the database of a hub")
        if layout != SCHEMA_VERSION:
            raise _bad(f"{path} has layout {layout}; this version reads layout {SCHEMA_VERSION}")
        found = connection.execute("PRAGMA quick_check(1)").fetchone()[0]
        if found != "ok":
            raise _bad(f"{path} is damaged: {found}")
        counts = {name: _count(connection, name) for name in COUNTED}
        pages, size = (connection.execute(f"PRAGMA {what}").fetchone()[0] for what in ("page_count", "page_size"))
    return Copy(pages * size, layout, counts)


def write_copy(source: sqlite3.Connection, target: Path) -> None:
    """Write all of `source`, as it is at one moment, to `target` (mode 0600), whole or not at all. Raises ConfigError.

    Whoever uses the source is not kept waiting.
    """
    temporary = target.with_name(f".{target.name}.{os.getpid()}")
    with _told(target):
        try:
            os.close(os.open(temporary, os.O_CREAT | os.O_EXCL | os.O_WRONLY | os.O_NOFOLLOW, 0o600))
            with closing(sqlite3.connect(temporary)) as copy:
                source.backup(copy)
                copy.execute("PRAGMA journal_mode = DELETE")  # one file, with nothing beside it
            _on_disk(temporary)
            temporary.replace(target)
            _on_disk(target.parent)
        finally:
            temporary.unlink(missing_ok=True)


def put_back(source: sqlite3.Connection, database: Path) -> Path | None:
    """Make `database` what `source` is; returns where the former one is now, if there was one.

    Raises AlreadyRunning while a hub runs on it, and ConfigError.
    """
    with only_one(database):
        fresh = database.with_name(f".{database.name}.restored")
        write_copy(source, fresh)
        with _told(database):
            former = _set_aside(database)
            fresh.replace(database)
            _on_disk(database.parent)
    return former


def _set_aside(database: Path) -> Path | None:
    if not database.exists():
        return None
    stamp = time.strftime("%Y%m%dT%H%M%SZ", time.gmtime())
    former = database.with_name(f"{database.name}.before-restore-{stamp}")
    with suppress(sqlite3.Error), closing(sqlite3.connect(database)) as connection:
        connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")  # it may be damaged, which is why somebody restores
    for suffix in (*BESIDE, ""):
        with suppress(FileNotFoundError):
            database.with_name(database.name + suffix).rename(former.with_name(former.name + suffix))
    return former


def _count(connection: sqlite3.Connection, table: str) -> int:
    return int(connection.execute(f"SELECT count(*) FROM {table}").fetchone()[0])  # noqa: S608 - names of ours


def _on_disk(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


@contextmanager
def _told(path: Path) -> Iterator[None]:
    try:
        yield
    except sqlite3.Error as error:
        raise _bad(f"{path} can't be used: {error}") from error
    except OSError as error:
        raise _bad(f"{error.filename or path} can't be used: {error.strerror}") from error


def _bad(sentence: str) -> ConfigError:
    return ConfigError(sentence, stage=Stage.HUB, code="BAD_DATABASE")
