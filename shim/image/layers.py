"""Unpacked layers: made once a chain id whoever asks, committed only when whole, removed when nobody needs them.

    layers/<name>           the directory overlayfs mounts; <name> counts in base 36
    layers/partial-<name>   one being made; removed at start
    layers/recipes/<name>   what makes the layer's tar again

A layer is committed in this order: unpack, finish from the layers below, syncfs, the layer below, rename, row. A crash at any
point leaves either a whole layer or an orphan that `start` removes. Layers that are unpacked at once share a syncfs.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

from shim.errors import FailedPrecondition, NotFound, ResourceExhausted
from shim.image.tasks import Joined, complete
from shim.spread import make_spread
from shim.store import images as rows

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from shim.image.config import ImageConfig
    from shim.image.content import Syncer
    from shim.image.jobs import Jobs
    from shim.store.database import Database

ROOT_MODE = 0o755
_DIGITS = "0123456789abcdefghijklmnopqrstuvwxyz"
_SPECIAL = ("recipes", "scratch", "empty")


@dataclass(frozen=True, slots=True, kw_only=True)
class LayerWant:
    """A layer somebody needs."""

    chain_id: str
    parent: str
    diff_id: str
    what: str
    """For messages: which layer of which image."""


class LayerSource(Protocol):
    """Where a layer's bytes come from."""

    async def unpack(self, params: dict[str, Any], recipe: int) -> dict[str, Any]:
        """Run the unpack job (shim.image.unpack.job) with these parameters on the bytes, and give its result."""

    def another(self) -> bool:
        """Say whether the same bytes can be had from somewhere else, from where the next `unpack` will take them."""


class LayerStore:
    """All layers under one directory."""

    def __init__(self, root: str, config: ImageConfig, database: Database, jobs: Jobs, syncer: Syncer) -> None:
        self.root = root
        self._config = config
        self._database = database
        self._jobs = jobs
        self._syncer = syncer
        self._layers: dict[str, rows.LayerRow] = {}
        self._making: Joined[None] = Joined()
        self._leases: Counter[str] = Counter()
        self._last = 0

    async def start(self, layers: Sequence[rows.LayerRow]) -> set[str]:
        """Adopt the committed layers, remove everything else; give the chain ids of rows whose directory is gone."""
        for folder in ("", *_SPECIAL):
            os.makedirs(os.path.join(self.root, folder), mode=ROOT_MODE if folder == "empty" else 0o700, exist_ok=True)
        make_spread(self.root)
        there = set(os.listdir(self.root))
        gone = {row.chain_id for row in layers if row.name not in there}
        self._layers = {row.chain_id: row for row in layers if row.chain_id not in gone}
        known = {row.name for row in self._layers.values()}
        recipes = set(os.listdir(os.path.join(self.root, "recipes")))
        self._last = max((_number(name) for name in there | recipes), default=0)
        for name in recipes - known:
            os.unlink(self.recipe_path(name))
        await self._jobs.remove([os.path.join(self.root, name) for name in sorted(there - known - set(_SPECIAL))])
        if gone:
            await self._database.write(lambda db: rows.delete_layers(db, tuple(gone)))
        return gone

    @property
    def parallel(self) -> int:
        """Layers that one pull may have in work at once."""
        return self._config.parallel_layers

    def get(self, chain_id: str) -> rows.LayerRow | None:
        """Give a committed layer, or None."""
        return self._layers.get(chain_id)

    def chain(self, top: str) -> tuple[rows.LayerRow, ...]:
        """Give the layers under and with `top`, topmost first; raise NotFound when one is missing."""
        found: list[rows.LayerRow] = []
        while top:
            row = self._layers.get(top)
            if row is None:
                raise NotFound(f"layer {top} is not stored; pull its image again")
            found.append(row)
            top = row.parent
        return tuple(found)

    def path(self, row: rows.LayerRow) -> str:
        """Give a layer's directory."""
        return os.path.join(self.root, row.name)

    def recipe_path(self, name: str) -> str:
        """Give the file of a layer's recipe."""
        return os.path.join(self.root, "recipes", name)

    @property
    def empty(self) -> str:
        """A directory that is always empty: the lower layer of an image without any."""
        return os.path.join(self.root, "empty")

    def usage(self) -> tuple[int, int]:
        """Give (bytes, inodes) of all layers."""
        return sum(row.bytes for row in self._layers.values()), sum(row.inodes for row in self._layers.values())

    @contextlib.contextmanager
    def lease(self, chain_ids: Iterable[str]) -> Iterator[None]:
        """Keep layers from `collect` while an image made of them is not yet stored."""
        held = list(chain_ids)
        self._leases.update(held)
        try:
            yield
        finally:
            self._leases.subtract(held)

    async def ensure(self, want: LayerWant, source: LayerSource) -> None:
        """Return when the layer is committed; callers who want the same one share the work.

        Ask for the layers of an image from the base up, and lease them all before. Raises FailedPrecondition,
        ResourceExhausted and what the source raises; then nothing of the layer is left.
        """
        if want.chain_id not in self._layers:
            await self._making.run(want.chain_id, lambda: self._make(want, source))

    async def stop(self) -> None:
        """Give up all unfinished layers."""
        await self._making.stop()

    async def collect(self, tops: set[str]) -> int:
        """Remove the layers that none of `tops` and no lease needs; give the bytes freed."""
        leased = {key for key, count in self._leases.items() if count > 0}
        self._leases = Counter({key: self._leases[key] for key in leased})
        unused = rows.unused_layers(self._layers, tops | leased)
        if not unused:
            return 0
        for row in unused:
            del self._layers[row.chain_id]
        await self._database.write(lambda db: rows.delete_layers(db, tuple(row.chain_id for row in unused)))
        for row in unused:
            with contextlib.suppress(FileNotFoundError):
                os.unlink(self.recipe_path(row.name))
        await self._jobs.remove([self.path(row) for row in unused])
        return sum(row.bytes for row in unused)

    async def _make(self, want: LayerWant, source: LayerSource) -> None:
        self._last += 1
        name = _base36(self._last)
        partial, final = os.path.join(self.root, f"partial-{name}"), os.path.join(self.root, name)
        recipe_path = self.recipe_path(name)
        try:
            result = await self._unpack_from_any(want, source, name)
            await self._syncer.barrier()
            row = self._row(want, name, result, await self._parent(want))
            if result["root"] is None:  # a directory's attributes and its name reach the disk in this order without a syncfs
                mode, uid, gid = row.root
                os.chown(partial, uid, gid)
                os.chmod(partial, mode)
            await complete(self._commit(row, partial, final))
        except BaseException as error:
            if want.chain_id not in self._layers:
                await complete(self._undo(recipe_path, [partial, final]))
            if isinstance(error, OSError):
                raise ResourceExhausted(f"{want.what} cannot be written below {self.root}: {error.strerror}") from error
            raise

    def _row(self, want: LayerWant, name: str, result: dict[str, Any], parent: rows.LayerRow | None) -> rows.LayerRow:
        mode, uid, gid = result["root"] or (parent.root if parent else (ROOT_MODE, 0, 0))
        return rows.LayerRow(
            chain_id=want.chain_id,
            parent=want.parent,
            diff_id=want.diff_id,
            name=name,
            bytes=result["bytes"] + os.stat(self.recipe_path(name)).st_size,
            inodes=result["inodes"] + 1,
            tar_bytes=result["tar"],
            root=(mode, uid, gid),
            lost=result["lost"],
        )

    async def _commit(self, row: rows.LayerRow, partial: str, final: str) -> None:
        os.rename(partial, final)
        await self._database.write(lambda db: rows.put_layer(db, row))
        self._layers[row.chain_id] = row

    async def _undo(self, recipe_path: str, paths: list[str]) -> None:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(recipe_path)
        await self._jobs.remove(paths)

    async def _unpack_from_any(self, want: LayerWant, source: LayerSource, name: str) -> dict[str, Any]:
        """Unpack the layer; bytes that are not what was promised are had from the next place, if there is one."""
        while True:
            try:
                return await self._unpack(want, source, name)
            except FailedPrecondition:
                if not source.another():
                    raise
            await self._undo(self.recipe_path(name), [os.path.join(self.root, f"partial-{name}")])

    async def _unpack(self, want: LayerWant, source: LayerSource, name: str) -> dict[str, Any]:
        partial = os.path.join(self.root, f"partial-{name}")
        os.mkdir(partial, 0o700)
        os.chmod(partial, ROOT_MODE)
        config = self._config
        params = {
            "op": "unpack",
            "path": partial,
            "what": want.what,
            "digest": "",
            "diff_id": want.diff_id,
            "max_bytes": config.max_layer_bytes,
            "max_entries": config.max_layer_entries,
            "max_ratio": config.max_ratio,
        }
        recipe = os.open(self.recipe_path(name), os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
        try:
            result = await source.unpack(params, recipe)
        finally:
            os.close(recipe)
        if result["links"] and not want.parent:
            raise NotFound(f"{want.what}: {result['links'][0][0]!r} is a hard link to a file that does not exist")
        if result["implicit"] or result["links"]:
            await self._fix(want, f"partial-{name}", result)
        return result

    async def _parent(self, want: LayerWant) -> rows.LayerRow | None:
        """Wait until the layer below is committed; None for a base."""
        if not want.parent:
            return None
        task = self._making.running(want.parent)
        if task is not None:
            await asyncio.wait([task])
        row = self._layers.get(want.parent)
        if row is None:
            raise NotFound(f"{want.what} cannot be finished: the layer below it failed")
        return row

    async def _fix(self, want: LayerWant, layer: str, result: dict[str, Any]) -> None:
        if await self._parent(want) is None:
            return
        fixed = await self._jobs.run(
            {
                "op": "fix",
                "what": want.what,
                "layers": self.root,
                "scratch": os.path.join(self.root, "scratch"),
                "layer": layer,
                "lower": [row.name for row in self.chain(want.parent)],
                "implicit": result["implicit"],
                "links": result["links"],
            }
        )
        result["bytes"] += fixed["bytes"]
        result["inodes"] += fixed["inodes"]
        result["lost"] = result["lost"] or fixed["lost"]


def _base36(number: int) -> str:
    text = ""
    while number:
        number, digit = divmod(number, 36)
        text = _DIGITS[digit] + text
    return text or "0"


def _number(name: str) -> int:
    try:
        return int(name.removeprefix("partial-"), 36) if name not in _SPECIAL else 0
    except ValueError:
        return 0
