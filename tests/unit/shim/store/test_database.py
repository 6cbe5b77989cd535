import asyncio
import os
import shutil
import sqlite3

import pytest

from shim.errors import Internal
from shim.store import meta
from shim.store.database import KEPT, RESERVED, Database


@pytest.fixture
def database(tmp_path):
    database = Database.open(str(tmp_path / "wherry.db"), [meta.SCHEMA])
    yield database
    database.close()


async def test_a_write_is_seen_by_a_new_connection(database, tmp_path):
    await database.write(lambda connection: meta.put(connection, "boot", "1"))
    await database.write(lambda connection: meta.put(connection, "boot", "2"))
    database.close()
    other = Database.open(str(tmp_path / "wherry.db"), [meta.SCHEMA])
    assert other.read(lambda connection: meta.get(connection, "boot")) == "2"
    other.close()


async def test_a_failed_write_leaves_nothing(database):
    def fail(connection):
        meta.put(connection, "boot", "1")
        raise ValueError("no")

    with pytest.raises(ValueError, match="no"):
        await database.write(fail)
    assert await database.write(lambda connection: meta.get(connection, "boot")) is None


async def test_writes_are_carried_out_in_order(database):
    await asyncio.gather(*(database.write(lambda c, n=n: meta.put(c, "n", str(n))) for n in range(50)))
    assert database.read(lambda connection: meta.get(connection, "n")) == "49"


def test_a_newer_database_is_refused(tmp_path):
    path = str(tmp_path / "wherry.db")
    connection = sqlite3.connect(path)
    connection.execute("PRAGMA user_version=99")
    connection.close()
    with pytest.raises(Internal, match="layout 99"):
        Database.open(path, [])


def test_garbage_is_named(tmp_path):
    path = tmp_path / "wherry.db"
    path.write_bytes(b"garbage" * 1000)
    with pytest.raises(Internal, match="cannot be used"):
        Database.open(str(path), [])
    assert path.stat().st_size == 7000


async def test_the_space_of_the_log_is_always_ours(tmp_path):
    """A full disk must not keep rows from being deleted, which is what frees it."""
    path = str(tmp_path / "wherry.db")

    def blocks(suffix):
        return os.stat(path + suffix).st_blocks * 512

    database = Database.open(path, [meta.SCHEMA])
    assert blocks("-wal") >= RESERVED
    assert not os.path.exists(path + "-shm")  # a mapped file would be a SIGBUS on a full disk
    for round_ in range(3000):
        await database.write(lambda connection, r=round_: meta.put(connection, f"key {r % 7}", "x" * 2000))
    assert os.stat(path + "-wal").st_size <= RESERVED
    database.close()
    database.close()
    assert blocks(KEPT) >= RESERVED
    again = Database.open(path, [meta.SCHEMA])
    assert not os.path.exists(path + KEPT)
    assert again.read(lambda connection: meta.get(connection, "key 3")) == "x" * 2000
    again.close()


async def test_the_log_of_a_killed_daemon_is_read_back(database, tmp_path):
    await database.write(lambda connection: meta.put(connection, "boot", "1"))
    copy = tmp_path / "copy"
    copy.mkdir()
    for path in tmp_path.glob("wherry.db*"):
        shutil.copy(path, copy)
    other = Database.open(str(copy / "wherry.db"), [meta.SCHEMA])
    assert other.read(lambda connection: meta.get(connection, "boot")) == "1"
    other.close()
