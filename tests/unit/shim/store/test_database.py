import asyncio
import sqlite3

import pytest

from shim.errors import Internal
from shim.store import meta
from shim.store.database import Database


@pytest.fixture
def database(tmp_path):
    database = Database.open(str(tmp_path / "wherry.db"), [meta.SCHEMA])
    yield database
    database.close()


async def test_a_write_is_seen_by_a_new_connection(database, tmp_path):
    await database.write(lambda connection: meta.put(connection, "boot", "1"))
    await database.write(lambda connection: meta.put(connection, "boot", "2"))
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
