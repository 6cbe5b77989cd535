"""Named objects with a row each: immutable metadata, one mutable status, a frozen view in memory.

A question is answered from memory and never waits. A change goes through `update`, the one function that computes a new
status from the present one, commits it and then publishes it; it is shielded, so a cancelled caller cannot make memory
and disk disagree.
"""

from __future__ import annotations

import asyncio
import dataclasses
import json
from typing import TYPE_CHECKING, Any, Generic, Protocol, Self, TypeVar

import structlog

from shim.errors import AlreadyExists, InvalidArgument, NotFound, WherryError

if TYPE_CHECKING:
    import sqlite3
    from collections.abc import Callable, Iterator

    from shim.store.database import Database

S = TypeVar("S")

log = structlog.get_logger()


class Item(Protocol[S]):
    """What a store keeps."""

    @property
    def id(self) -> str:
        """64 hexadecimal digits."""

    @property
    def name(self) -> str:
        """Unique among the living."""

    @property
    def status(self) -> S:
        """The mutable part."""

    def with_status(self, status: S) -> Self:
        """Give the same object with another status."""

    def encode(self) -> tuple[bytes, str, str]:
        """Give config, metadata and status as they stand in the row."""


I = TypeVar("I", bound=Item[Any])  # noqa: E741 - the item


def table(name: str) -> str:
    """Give the statement that makes the table of one kind of object."""
    return (
        f"CREATE TABLE IF NOT EXISTS {name} (id TEXT PRIMARY KEY, name TEXT NOT NULL UNIQUE, config BLOB NOT NULL,"
        " metadata TEXT NOT NULL, status TEXT NOT NULL) WITHOUT ROWID;"
    )


class ObjectStore(Generic[I, S]):
    """All objects of one kind; belongs to the event loop's thread."""

    def __init__(self, database: Database, kind: str, decode: Callable[[str, bytes, str, str], I]) -> None:
        self._database = database
        self._kind = kind
        self._decode = decode
        self._items: dict[str, I] = {}
        self._names: dict[str, str] = {}
        self._locks: dict[str, asyncio.Lock] = {}

    def load(self) -> list[tuple[str, str]]:
        """Read every row into memory; give (id, error) of rows that cannot be understood, which stay on disk."""
        select = f"SELECT id, config, metadata, status FROM {self._kind}"  # noqa: S608 - the name is ours
        damaged = []
        for row in self._database.read(lambda connection: connection.execute(select).fetchall()):
            try:
                self._publish(self._decode(*row))
            except Exception as error:  # noqa: BLE001 - a damaged row must not stop the daemon, whatever is wrong with it
                damaged.append((str(row[0]), f"{type(error).__name__}: {error}"))
        return damaged

    def __iter__(self) -> Iterator[I]:
        """Go through a snapshot, so that the loop body may change the store."""
        return iter(tuple(self._items.values()))

    def __len__(self) -> int:
        return len(self._items)

    def __contains__(self, item_id: str) -> bool:
        return item_id in self._items

    def get(self, item_id: str) -> I:
        """Give the object with this id or unique id prefix; raise NotFound, or InvalidArgument when it is ambiguous."""
        item = self.find(item_id)
        if item is None:
            raise NotFound(f"{self._kind} {item_id!r} does not exist")
        return item

    def find(self, item_id: str) -> I | None:
        """Give the object with this id or unique id prefix, or None; raise InvalidArgument when it is empty or ambiguous."""
        item = self._items.get(item_id)
        if item is not None:
            return item
        if not item_id:
            raise InvalidArgument(f"{self._kind} id must not be empty")
        if len(item_id) >= 64:  # a whole id
            return None
        found = [key for key in self._items if key.startswith(item_id)]
        if len(found) > 1:
            raise InvalidArgument(f"{self._kind} id {item_id!r} is ambiguous: {len(found)} ids begin with it")
        return self._items[found[0]] if found else None

    def named(self, name: str) -> I | None:
        """Give the object with this name, or None."""
        item_id = self._names.get(name)
        return None if item_id is None else self._items[item_id]

    async def add(self, item: I) -> None:
        """Commit and publish a new object; raise AlreadyExists when its name is taken."""
        holder = self._names.get(item.name)
        if holder is not None:
            raise AlreadyExists(f"{self._kind} name {item.name!r} is taken by {holder}")
        self._publish(item)  # its name is taken, and it can be found, while the row is being written
        await asyncio.shield(self._insert(item))

    async def _insert(self, item: I) -> None:
        row = (item.id, item.name, *item.encode())
        insert = f"INSERT INTO {self._kind} VALUES (?, ?, ?, ?, ?)"  # noqa: S608 - the name is ours
        try:
            await self._database.write(lambda connection: connection.execute(insert, row))
        except BaseException:
            self._forget(item.id)
            raise

    async def update(self, item_id: str, change: Callable[[S], S], *, must_persist: bool = True) -> I:
        """Replace the status by change(status), commit, publish, and give the object; raise NotFound when it is gone.

        With must_persist=False a status that the disk refuses is published all the same, and only logged: what happened has
        happened, and recovery learns it from the monitor or the exit record.
        """
        return await asyncio.shield(self._update(item_id, change, must_persist))

    async def _update(self, item_id: str, change: Callable[[S], S], must_persist: bool) -> I:
        async with self._locks.setdefault(item_id, asyncio.Lock()):
            item = self._items.get(item_id)
            if item is None:
                self._locks.pop(item_id, None)
                raise NotFound(f"{self._kind} {item_id!r} does not exist")
            changed = item.with_status(change(item.status))
            if changed == item:
                return item
            status = changed.encode()[2]
            if not must_persist:
                self._items[item_id] = changed
            statement = f"UPDATE {self._kind} SET status = ? WHERE id = ?"  # noqa: S608 - the name is ours
            try:
                await self._database.write(lambda connection: connection.execute(statement, (status, item_id)))
            except WherryError as error:
                if must_persist:
                    raise
                log.warning("a status was not saved", kind=self._kind, id=item_id, error=str(error))
            self._items[item_id] = changed
            return changed

    async def rename(self, item_id: str, renamed: Callable[[I], I]) -> None:
        """Let an object have the name that `renamed` gives it; the one it had is free then. Raises NotFound when it is gone."""
        await asyncio.shield(self._rename(item_id, renamed))

    async def _rename(self, item_id: str, renamed: Callable[[I], I]) -> None:
        async with self._locks.setdefault(item_id, asyncio.Lock()):
            item = self.get(item_id)
            changed = renamed(item)
            values = (changed.name, changed.encode()[1], item_id)
            statement = f"UPDATE {self._kind} SET name = ?, metadata = ? WHERE id = ?"  # noqa: S608 - the name is ours
            await self._database.write(lambda connection: connection.execute(statement, values))
            self._names.pop(item.name, None)
            self._publish(changed)

    async def remove(self, item_id: str) -> None:
        """Delete the row and forget the object; harmless when it is gone."""
        await asyncio.shield(self._remove(item_id))

    async def _remove(self, item_id: str) -> None:
        def delete(connection: sqlite3.Connection) -> None:
            connection.execute(f"DELETE FROM {self._kind} WHERE id = ?", (item_id,))  # noqa: S608 - the name is ours

        await self._database.write(delete)
        self._forget(item_id)

    def _publish(self, item: I) -> None:
        self._items[item.id] = item
        self._names[item.name] = item.id

    def _forget(self, item_id: str) -> None:
        item = self._items.pop(item_id, None)
        self._locks.pop(item_id, None)
        if item is not None:
            self._names.pop(item.name, None)


def to_json(value: Any) -> str:
    """Write a dataclass of strings, numbers, byte strings, and tuples or dicts of strings as one JSON object."""
    fields = {}
    for field in dataclasses.fields(value):
        content = getattr(value, field.name)
        fields[field.name] = content.hex() if isinstance(content, bytes) else content
    return json.dumps(fields, separators=(",", ":"))


def from_json(kind: type[S], text: str, **more: Any) -> S:
    """Read what `to_json` wrote, with `more` beside it; keys that this version does not know are dropped."""
    values: dict[str, Any] = dict(more)
    table_ = json.loads(text)
    for field in dataclasses.fields(kind):  # type: ignore[arg-type]  # kind is a dataclass
        if field.name not in table_:
            continue
        content = table_[field.name]
        if field.type == "bytes":
            content = bytes.fromhex(content)
        elif isinstance(content, list):
            content = tuple(content)
        values[field.name] = content
    return kind(**values)
