"""The images that are here: rows and names in memory, answered without waiting, changed only after the database was."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from shim.errors import InvalidArgument, NotFound, WherryError
from shim.image import oci
from shim.image.record import ImageRecord
from shim.image.reference import parse_reference, tag_only

if TYPE_CHECKING:
    from collections.abc import Iterable

    from shim.image.content import ContentStore
    from shim.image.layers import LayerStore
    from shim.store.images import ImageRow

_ID = re.compile(r"(?:sha256:)?([0-9a-f]{1,64})")


class Catalog:
    """Images by id and by name; belongs to the event loop's thread."""

    def __init__(self, content: ContentStore, layers: LayerStore, pinned: Iterable[str]) -> None:
        self._content = content
        self._layers = layers
        self._pinned = {str(parse_reference(name)) for name in pinned}
        self._rows: dict[str, ImageRow] = {}
        self._names: dict[str, str] = {}
        self._records: dict[str, ImageRecord] = {}

    def add(self, row: ImageRow, names: Iterable[str]) -> None:
        """Publish an image and its names, which may have belonged to others; raise WherryError when it is incomplete."""
        self._layers.chain(row.top)
        config = oci.parse_config(self._content.read(row.id), f"the configuration of image {row.id}")
        self._rows[row.id] = row
        self._records[row.id] = ImageRecord(
            id=row.id, repo_tags=(), repo_digests=(), size=row.size, config=config, pinned=False,
            created=oci.created_ns(config), chain_id=row.top,
        )  # fmt: skip
        self.name(row.id, names)

    def name(self, image_id: str, names: Iterable[str]) -> None:
        """Point names at an image."""
        changed = {image_id}
        for name in names:
            before = self._names.get(name)
            if before is not None:
                changed.add(before)
            self._names[name] = image_id
        for key in changed:
            self._refresh(key)

    def drop(self, image_id: str) -> None:
        """Forget an image and its names."""
        self._rows.pop(image_id, None)
        self._records.pop(image_id, None)
        self._names = {name: target for name, target in self._names.items() if target != image_id}

    def row(self, image_id: str) -> ImageRow:
        """Give an image's row; raise NotFound."""
        row = self._rows.get(image_id)
        if row is None:
            raise NotFound(f"image {image_id} is not here")
        return row

    def rows(self) -> tuple[ImageRow, ...]:
        """Give all rows."""
        return tuple(self._rows.values())

    def records(self) -> list[ImageRecord]:
        """Give all images, the newest first."""
        newest = sorted(self._rows.values(), key=lambda row: (-row.stored_ns, row.id))
        return [self._records[row.id] for row in newest]

    def resolve(self, text: str) -> ImageRecord:
        """Find an image by id, name or id prefix; raise NotFound, or InvalidArgument when malformed or ambiguous."""
        if not text:
            raise InvalidArgument("an image must be named")
        match = _ID.fullmatch(text[:128])
        if match and (record := self._records.get(f"sha256:{match[1]}")):
            return record
        try:
            return self._records[self._by_name(text)]
        except (KeyError, InvalidArgument) as error:
            if match is None:
                if isinstance(error, WherryError):
                    raise
                raise NotFound(f"image {text!r} is not here") from None
        found = [record for key, record in self._records.items() if key.startswith(f"sha256:{match[1]}")]
        if len(found) > 1:
            raise InvalidArgument(f"image id {text!r} is ambiguous: {len(found)} ids begin with it")
        if not found:
            raise NotFound(f"image {text!r} is not here")
        return found[0]

    def _by_name(self, text: str) -> str:
        reference = parse_reference(text)
        if reference.digest:
            return self._names[reference.with_digest(reference.digest)]
        return self._names[str(tag_only(reference))]

    def _refresh(self, image_id: str) -> None:
        record = self._records.get(image_id)
        if record is None:
            return
        names = sorted(name for name, target in self._names.items() if target == image_id)
        tags = tuple(name for name in names if "@" not in name)
        self._records[image_id] = ImageRecord(
            id=image_id,
            repo_tags=tags,
            repo_digests=tuple(name for name in names if "@" in name),
            size=record.size,
            config=record.config,
            pinned=not self._pinned.isdisjoint(names),
            created=record.created,
            chain_id=record.chain_id,
        )
