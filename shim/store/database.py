"""The one database of wherryd and its one writer.

Everything wherryd must know after a crash stands in `wherry.db` under the root directory. SQLite runs in WAL mode with
synchronous=NORMAL: a commit costs no fsync, a killed daemon loses nothing, and a power cut loses at most the newest
transactions, never consistency (https://www.sqlite.org/wal.html). Recovery copes with newest rows missing, because
resources without a row are removed.

All writes go through one thread, so the event loop never waits for a disk and two transactions never collide. Reads
happen once, at start; later questions are answered from the stores' memory.
"""

from __future__ import annotations

import asyncio
import contextlib
import importlib
import importlib.util
import os
import sqlite3
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Self, TypeVar

from shim.errors import Internal, ResourceExhausted, Unavailable

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

T = TypeVar("T")

VERSION = 1
"""The layout that this program writes, kept in PRAGMA user_version; a newer database is refused."""

SCHEMA_MODULES = ("shim.store.meta", "shim.store.pods", "shim.store.containers", "shim.store.images")
"""Modules that own tables; each has SCHEMA, statements that are harmless when repeated."""


RESERVED = 1001 * (4096 + 24) + 32
"""Bytes of the log of changes at its largest: SQLite writes it back and starts over after a thousand pages."""
KEPT = "-reserve"
"""Suffix of the file that holds the space of the log while no daemon runs."""


class Database:
    """A connection and its writer thread; made by `open`."""

    def __init__(self, connection: sqlite3.Connection, path: str) -> None:
        self._connection = connection
        self._path = path
        self._closed = False
        self._writer = ThreadPoolExecutor(max_workers=1, thread_name_prefix="wherry-db")

    @classmethod
    def open(cls, path: str, schemas: Iterable[str] | None = None) -> Self:
        """Open or create the database at `path` (0600) and bring its tables up to date.

        `schemas` replaces the tables of all stores, for tests of one. Raises Internal for a damaged or newer file,
        naming it.
        """
        try:
            _give_back(path)
            os.close(os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600))
            connection = sqlite3.connect(path, isolation_level=None, check_same_thread=False, cached_statements=256)
        except (OSError, sqlite3.Error) as error:
            raise Internal(f"database {path} cannot be opened: {error}") from error
        try:
            # One process only: without this the index of the log is a mapped file, and a full disk would be a SIGBUS.
            connection.execute("PRAGMA locking_mode=EXCLUSIVE")
            connection.execute("PRAGMA journal_mode=WAL")
            connection.execute("PRAGMA synchronous=NORMAL")
            connection.execute("PRAGMA foreign_keys=ON")
            connection.execute("PRAGMA cache_size=-1024")
            _migrate(connection, _all_schemas() if schemas is None else schemas)
        except sqlite3.Error as error:
            connection.close()
            raise Internal(f"database {path} cannot be used: {error}; move it away to start afresh") from error
        except BaseException:
            connection.close()
            raise
        _reserve(f"{path}-wal")
        return cls(connection, path)

    def read(self, fn: Callable[[sqlite3.Connection], T]) -> T:
        """Give fn(connection), at once; only for the time before the daemon serves, when nothing writes."""
        return fn(self._connection)

    async def write(self, fn: Callable[[sqlite3.Connection], T]) -> T:
        """Run fn(connection) as one transaction on the writer thread and give its result.

        Calls are carried out in the order in which they were made. Whatever fn raises undoes the transaction and is
        raised here; a full disk becomes ResourceExhausted. When the caller is cancelled, a transaction that has begun
        still completes.
        """
        return await asyncio.get_running_loop().run_in_executor(self._writer, self._transact, fn)

    def write_now(self, fn: Callable[[sqlite3.Connection], T]) -> T:
        """Run fn(connection) as one transaction and wait for it; only before the daemon serves."""
        return self._writer.submit(self._transact, fn).result()

    def close(self) -> None:
        """Finish what is queued and close; idempotent."""
        if self._closed:
            return
        self._closed = True
        self._writer.shutdown(wait=True)
        self._connection.close()
        _reserve(self._path + KEPT)  # the log is gone now, and its space must be there when we start again

    def _transact(self, fn: Callable[[sqlite3.Connection], T]) -> T:
        connection = self._connection
        try:
            connection.execute("BEGIN IMMEDIATE")
            try:
                result = fn(connection)
                connection.execute("COMMIT")
            except BaseException:
                with contextlib.suppress(sqlite3.Error):
                    connection.execute("ROLLBACK")
                raise
        except sqlite3.OperationalError as error:
            raise _operational(error) from error
        return result


def _reserve(path: str) -> None:
    """Give a file all the space it will need: on a full disk pods and images can still be removed, which is what frees it."""
    with contextlib.suppress(OSError):  # it is as full as that already
        fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            os.posix_fallocate(fd, 0, RESERVED)
        finally:
            os.close(fd)


def _give_back(path: str) -> None:
    with contextlib.suppress(FileNotFoundError):
        os.unlink(path + KEPT)


def _operational(error: sqlite3.OperationalError) -> Exception:
    if error.sqlite_errorcode == sqlite3.SQLITE_FULL:
        return ResourceExhausted("the database cannot be written: no space left on the device of the root directory")
    return Unavailable(f"the database cannot be written: {error}")


def _all_schemas() -> list[str]:
    return [str(importlib.import_module(name).SCHEMA) for name in SCHEMA_MODULES if importlib.util.find_spec(name)]


def _migrate(connection: sqlite3.Connection, schemas: Iterable[str]) -> None:
    (found,) = connection.execute("PRAGMA user_version").fetchone()
    if found > VERSION:
        raise Internal(f"the database has layout {found}, written by a newer wherryd; this one knows {VERSION}")
    for schema in schemas:
        connection.executescript(schema)
    connection.execute(f"PRAGMA user_version={VERSION}")
