"""Rows of images, their names, layers, and the containers that stand on them.

    image        one configuration (its id is the digest of that) and the manifest it came with
    image_ref    a name (repository:tag or repository@digest) of an image
    image_layer  which blobs, in order, an image was made of
    layer        an unpacked layer: its chain id and its directory
    snapshot     a container's root on top of an image's layers; keeps the layers when the image is removed

A layer without an image, a snapshot or a pull that needs it is garbage; `unused_layers` finds it.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import sqlite3

SCHEMA = """
CREATE TABLE IF NOT EXISTS image (
    id TEXT PRIMARY KEY, manifest TEXT NOT NULL, media_type TEXT NOT NULL, top TEXT NOT NULL,
    size INTEGER NOT NULL, stored_ns INTEGER NOT NULL) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS image_ref (
    name TEXT PRIMARY KEY, image_id TEXT NOT NULL REFERENCES image(id) ON DELETE CASCADE) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS image_layer (
    image_id TEXT NOT NULL REFERENCES image(id) ON DELETE CASCADE, position INTEGER NOT NULL, chain_id TEXT NOT NULL,
    digest TEXT NOT NULL, size INTEGER NOT NULL, media_type TEXT NOT NULL, PRIMARY KEY (image_id, position)) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS layer (
    chain_id TEXT PRIMARY KEY, parent TEXT NOT NULL, diff_id TEXT NOT NULL, name TEXT NOT NULL UNIQUE,
    bytes INTEGER NOT NULL, inodes INTEGER NOT NULL, tar_bytes INTEGER NOT NULL, root TEXT NOT NULL, lost TEXT NOT NULL
    ) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS snapshot (
    container_id TEXT PRIMARY KEY, image_id TEXT NOT NULL, top TEXT NOT NULL, directory TEXT NOT NULL) WITHOUT ROWID;
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class LayerRow:
    """An unpacked layer."""

    chain_id: str
    parent: str
    """Chain id of the layer below, "" for a base."""
    diff_id: str
    name: str
    """Of its directory; short, because overlayfs takes all of them in one option."""
    bytes: int
    inodes: int
    tar_bytes: int
    root: tuple[int, int, int]
    """Mode, uid and gid of "/" as seen from this layer."""
    lost: str
    """Why its tar cannot be made again, "" when it can."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ImageLayerRow:
    """One layer as the image's manifest describes it."""

    chain_id: str
    digest: str
    size: int
    media_type: str


@dataclass(frozen=True, slots=True, kw_only=True)
class ImageRow:
    """An image without its names."""

    id: str
    manifest: str
    """Digest of its manifest in the content store."""
    media_type: str
    top: str
    """Chain id of the uppermost layer, "" for an image without layers."""
    size: int
    stored_ns: int
    layers: tuple[ImageLayerRow, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class SnapshotRow:
    """A container's root."""

    container_id: str
    image_id: str
    top: str
    directory: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Rows:
    """All there is, as read at start."""

    images: tuple[ImageRow, ...]
    refs: tuple[tuple[str, str], ...]
    layers: tuple[LayerRow, ...]
    snapshots: tuple[SnapshotRow, ...]


def read_all(connection: sqlite3.Connection) -> Rows:
    """Read every table of this module."""
    by_image: dict[str, list[ImageLayerRow]] = {}
    query = "SELECT image_id, chain_id, digest, size, media_type FROM image_layer ORDER BY image_id, position"
    for image_id, chain_id, digest, size, media_type in connection.execute(query):
        row = ImageLayerRow(chain_id=chain_id, digest=digest, size=size, media_type=media_type)
        by_image.setdefault(image_id, []).append(row)
    images = tuple(
        ImageRow(
            id=key, manifest=manifest, media_type=kind, top=top, size=size, stored_ns=at, layers=tuple(by_image.get(key, ()))
        )
        for key, manifest, kind, top, size, at in connection.execute(
            "SELECT id, manifest, media_type, top, size, stored_ns FROM image"
        )
    )
    layers = tuple(
        LayerRow(
            chain_id=chain, parent=parent, diff_id=diff, name=name, bytes=used, inodes=inodes, tar_bytes=tar,
            root=_root(json.loads(root)), lost=lost,
        )
        for chain, parent, diff, name, used, inodes, tar, root, lost in connection.execute(
            "SELECT chain_id, parent, diff_id, name, bytes, inodes, tar_bytes, root, lost FROM layer"
        )
    )  # fmt: skip
    snapshots = tuple(
        SnapshotRow(container_id=key, image_id=image, top=top, directory=directory)
        for key, image, top, directory in connection.execute("SELECT container_id, image_id, top, directory FROM snapshot")
    )
    refs = tuple((str(name), str(image)) for name, image in connection.execute("SELECT name, image_id FROM image_ref"))
    return Rows(images=images, refs=refs, layers=layers, snapshots=snapshots)


def _root(value: list[int]) -> tuple[int, int, int]:
    mode, uid, gid = value
    return mode, uid, gid


def put_layer(connection: sqlite3.Connection, row: LayerRow) -> None:
    """Add a layer."""
    connection.execute(
        "INSERT INTO layer (chain_id, parent, diff_id, name, bytes, inodes, tar_bytes, root, lost) VALUES (?,?,?,?,?,?,?,?,?)",
        (
            row.chain_id, row.parent, row.diff_id, row.name, row.bytes, row.inodes, row.tar_bytes,
            json.dumps(row.root), row.lost,
        ),
    )  # fmt: skip


def put_image(connection: sqlite3.Connection, row: ImageRow, names: tuple[str, ...]) -> None:
    """Add or replace an image, and point names at it that may have pointed elsewhere."""
    connection.execute(
        "INSERT INTO image (id, manifest, media_type, top, size, stored_ns) VALUES (?,?,?,?,?,?)"
        " ON CONFLICT (id) DO UPDATE SET manifest=excluded.manifest, media_type=excluded.media_type, size=excluded.size",
        (row.id, row.manifest, row.media_type, row.top, row.size, row.stored_ns),
    )
    connection.execute("DELETE FROM image_layer WHERE image_id = ?", (row.id,))
    connection.executemany(
        "INSERT INTO image_layer (image_id, position, chain_id, digest, size, media_type) VALUES (?,?,?,?,?,?)",
        [
            (row.id, position, layer.chain_id, layer.digest, layer.size, layer.media_type)
            for position, layer in enumerate(row.layers)
        ],
    )
    put_names(connection, row.id, names)


def put_names(connection: sqlite3.Connection, image_id: str, names: tuple[str, ...]) -> None:
    """Point names at an image."""
    connection.executemany(
        "INSERT INTO image_ref (name, image_id) VALUES (?,?) ON CONFLICT (name) DO UPDATE SET image_id=excluded.image_id",
        [(name, image_id) for name in names],
    )


def delete_images(connection: sqlite3.Connection, image_ids: tuple[str, ...]) -> None:
    """Remove images and their names; layers stay until they are unused."""
    connection.executemany("DELETE FROM image WHERE id = ?", [(image_id,) for image_id in image_ids])


def delete_layers(connection: sqlite3.Connection, chain_ids: tuple[str, ...]) -> None:
    """Remove layers."""
    connection.executemany("DELETE FROM layer WHERE chain_id = ?", [(chain_id,) for chain_id in chain_ids])


def put_snapshot(connection: sqlite3.Connection, row: SnapshotRow) -> None:
    """Add or replace a container's root."""
    connection.execute(
        "INSERT OR REPLACE INTO snapshot (container_id, image_id, top, directory) VALUES (?,?,?,?)",
        (row.container_id, row.image_id, row.top, row.directory),
    )


def delete_snapshots(connection: sqlite3.Connection, container_ids: tuple[str, ...]) -> None:
    """Remove containers' roots."""
    connection.executemany("DELETE FROM snapshot WHERE container_id = ?", [(key,) for key in container_ids])


def unused_layers(layers: dict[str, LayerRow], tops: set[str]) -> tuple[LayerRow, ...]:
    """Give the layers that no chain under `tops` contains, the uppermost first."""
    used: set[str] = set()
    for top in tops:
        chain = top
        while chain and chain not in used and chain in layers:
            used.add(chain)
            chain = layers[chain].parent
    unused = {key: row for key, row in layers.items() if key not in used}
    ordered: list[LayerRow] = []
    while unused:
        parents = {row.parent for row in unused.values()}
        leaves = [row for key, row in unused.items() if key not in parents]
        ordered.extend(leaves)
        unused = {key: row for key, row in unused.items() if key in parents}
        if not leaves:
            ordered.extend(unused.values())
            break
    return tuple(ordered)
