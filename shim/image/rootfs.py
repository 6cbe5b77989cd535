"""Containers' roots: an upper directory over an image's layers, and what keeps those layers alive."""

from __future__ import annotations

import contextlib
import os
from typing import TYPE_CHECKING

from shim.errors import FailedPrecondition
from shim.image.record import RootfsSpec
from shim.store import images as rows

if TYPE_CHECKING:
    from collections.abc import Iterable

    from shim.image.jobs import Jobs
    from shim.image.layers import LayerStore
    from shim.image.record import ImageRecord
    from shim.store.database import Database


class Roots:
    """The roots of all containers."""

    def __init__(self, database: Database, layers: LayerStore, jobs: Jobs) -> None:
        self._database = database
        self._layers = layers
        self._jobs = jobs
        self._rows: dict[str, rows.SnapshotRow] = {}

    def start(self, known: Iterable[rows.SnapshotRow]) -> None:
        """Take over the rows read at start."""
        self._rows = {row.container_id: row for row in known}

    def containers(self) -> tuple[str, ...]:
        """Give the containers that have a root, or hold an image."""
        return tuple(dict.fromkeys(key.partition("/")[0] for key in self._rows))

    def tops(self) -> set[str]:
        """Give the chain ids that containers stand on."""
        return {row.top for row in self._rows.values()}

    async def prepare(self, container_id: str, image: ImageRecord, directory: str, *, read_only: bool) -> RootfsSpec:
        """Make the root of a container; the row comes first, so that a crash leaves nothing unknown."""
        chain = self._layers.chain(image.chain_id)
        held = self._rows.get(container_id)
        if held is not None and (held.top, held.directory) != (image.chain_id, directory):
            raise FailedPrecondition(f"container {container_id} has a root on another image already")
        row = rows.SnapshotRow(container_id=container_id, image_id=image.id, top=image.chain_id, directory=directory)
        self._rows[container_id] = row
        try:
            await self._database.write(lambda db: rows.put_snapshot(db, row))
            lower = tuple(self._layers.path(layer) for layer in chain) or (self._layers.empty,)
            if read_only:
                # overlayfs wants two directories when there is no upper one
                return RootfsSpec(lower=lower if len(lower) > 1 else (*lower, self._layers.empty), upper=None, work=None)
            upper, work = os.path.join(directory, "upper"), os.path.join(directory, "work")
            for path in (upper, work):
                os.makedirs(path, mode=0o700, exist_ok=True)
            mode, uid, gid = chain[0].root if chain else (0o755, 0, 0)
            os.chown(upper, uid, gid)
            os.chmod(upper, mode)
        except BaseException:
            await self.remove(container_id)
            raise
        return RootfsSpec(lower=lower, upper=upper, work=work)

    async def hold(self, container_id: str, image: ImageRecord) -> tuple[str, ...]:
        """Hold one more image for a container, under "CONTAINER/IMAGE", and give its layers, topmost first."""
        key = f"{container_id}/{image.id}"
        row = rows.SnapshotRow(container_id=key, image_id=image.id, top=image.chain_id, directory="")
        self._rows[key] = row
        await self._database.write(lambda db: rows.put_snapshot(db, row))
        return tuple(self._layers.path(layer) for layer in self._layers.chain(image.chain_id)) or (self._layers.empty,)

    async def remove(self, container_id: str) -> bool:
        """Remove a container's directories and rows; say whether it had any."""
        keys = tuple(key for key in self._rows if key.partition("/")[0] == container_id)
        if not keys:
            return False
        row = self._rows.get(container_id)
        if row is not None:
            left = [path for name in ("upper", "work") if not _removed(path := os.path.join(row.directory, name))]
            await self._jobs.remove(left)
        for key in keys:
            self._rows.pop(key, None)
        await self._database.write(lambda db: rows.delete_snapshots(db, keys))
        return True


def _removed(path: str) -> bool:
    """Remove a directory that the container left as overlayfs made it; say whether that was all."""
    for name in ("work", "index"):
        with contextlib.suppress(OSError):
            os.rmdir(os.path.join(path, name))
    try:
        os.rmdir(path)
    except FileNotFoundError:
        return True
    except OSError:
        return False
    return True
