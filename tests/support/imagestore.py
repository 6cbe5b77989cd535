"""An image store of the test's own, with a real spawner and a real database, and looks at what it holds."""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

from shim.image.config import ImageConfig
from shim.image.service import ImageStore
from shim.spawner.jobs import KINDS
from shim.store.database import Database
from tests.support.monitors import spawner

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator

JOBS = {kind: KINDS[kind] for kind in ("unpack", "rmtree")}
QUICK: dict[str, Any] = {
    "registry_config_dirs": (),
    "retries": 3,
    "retry_delay": 0.01,
    "stall_timeout": 1.0,
    "connect_timeout": 2.0,
}


@contextlib.asynccontextmanager
async def image_store(root: Path, **settings: Any) -> AsyncIterator[ImageStore]:
    """Give a started store below `root`; started again on the same root it is a daemon's restart."""
    root.mkdir(parents=True, exist_ok=True)
    database = Database.open(str(root / "wherry.db"))
    try:
        async with spawner(JOBS) as (client, _process):
            store = ImageStore(ImageConfig(**(QUICK | settings)), str(root), database, client)
            assert await store.start() == []
            try:
                yield store
            finally:
                await store.stop()
    finally:
        database.close()


def remains(root: Path) -> list[str]:
    """Give what a store without images should not have: layers, recipes, documents, unfinished things, rows."""
    found = [str(path) for path in (root / "layers").iterdir() if path.name not in {"recipes", "scratch", "empty"}]
    found += [
        str(path) for folder in ("layers/recipes", "content/sha256", "content/partial") for path in (root / folder).iterdir()
    ]
    with tempfile.TemporaryDirectory(prefix="wherry-db") as copy:  # a store that is open keeps its database to itself
        for path in root.glob("wherry.db*"):
            shutil.copy(path, copy)
        return found + _rows(f"{copy}/wherry.db")


def _rows(path: str) -> list[str]:
    found: list[str] = []
    database = Database.open(path)
    try:
        for table in ("image", "image_ref", "image_layer", "layer", "snapshot"):
            query = f"SELECT count(*) FROM {table}"
            (count,) = database.read(lambda connection, query=query: connection.execute(query).fetchone())  # type: ignore[misc]  # bound now
            found += [f"{count} rows in {table}"] if count else []
    finally:
        database.close()
    return found


@contextlib.contextmanager
def mounted(lower: tuple[str, ...]) -> Iterator[Path]:
    """Give layers (topmost first) merged by the kernel, read-only."""
    with tempfile.TemporaryDirectory(prefix="wherry-merged") as target:
        folder = os.path.dirname(lower[0])
        options = "lowerdir=" + ":".join(os.path.relpath(path, folder) for path in (*lower, f"{folder}/empty"))
        subprocess.run(["mount", "-t", "overlay", "overlay", "-o", f"ro,{options}", target], check=True, cwd=folder)
        try:
            yield Path(target)
        finally:
            subprocess.run(["umount", target], check=True)
