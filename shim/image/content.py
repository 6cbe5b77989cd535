"""The content store: manifests and configurations (and compressed layers when they are kept) by digest, and syncfs.

content/<algorithm>/<hex>       verified bytes
content/partial/<n>             what is being written; removed at start
"""

from __future__ import annotations

import asyncio
import contextlib
import os
from typing import TYPE_CHECKING

from runtime.kernel.libc import function
from shim.errors import Internal, NotFound, ResourceExhausted
from shim.image.oci import verify

if TYPE_CHECKING:
    from collections.abc import Iterable

_syncfs = function("syncfs", "i")
ALLOCATION = 4096


class Syncer:
    """syncfs(2) of one file system, shared by all who ask while one is under way."""

    def __init__(self, path: str) -> None:
        self._path = path
        self._next: asyncio.Task[None] | None = None
        self._running: asyncio.Task[None] | None = None

    async def barrier(self) -> None:
        """Return when everything written before the call is on the disk; raise ResourceExhausted or OSError."""
        if self._next is None:
            self._next = asyncio.ensure_future(self._sync(self._running))
        await asyncio.shield(self._next)

    async def _sync(self, before: asyncio.Task[None] | None) -> None:
        if before is not None:
            await asyncio.wait([before])
        self._running, self._next = self._next, None
        await asyncio.to_thread(self._syncfs)

    def _syncfs(self) -> None:
        fd = os.open(self._path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            _syncfs(fd, path=self._path)
        except OSError as error:
            raise ResourceExhausted(f"the image store at {self._path} cannot be written to disk: {error.strerror}") from error
        finally:
            os.close(fd)


class ContentStore:
    """Small blobs as files; `index` knows their sizes."""

    def __init__(self, root: str) -> None:
        self._root = root
        self._partial = os.path.join(root, "partial")
        self._number = 0
        self._sizes: dict[str, int] = {}

    def start(self) -> None:
        """Make the directories, forget what was unfinished and learn what there is."""
        for folder in ("sha256", "sha512", "partial"):
            os.makedirs(os.path.join(self._root, folder), mode=0o700, exist_ok=True)
        for name in os.listdir(self._partial):
            os.unlink(os.path.join(self._partial, name))
        for algorithm in ("sha256", "sha512"):
            with os.scandir(os.path.join(self._root, algorithm)) as entries:
                self._sizes.update((f"{algorithm}:{entry.name}", entry.stat().st_size) for entry in entries)

    def path(self, digest: str) -> str:
        """Give the file of a blob, which may not exist."""
        algorithm, _, value = digest.partition(":")
        return os.path.join(self._root, algorithm, value)

    def has(self, digest: str) -> bool:
        """Say whether a blob is here."""
        return digest in self._sizes

    def read(self, digest: str) -> bytes:
        """Give a blob, verified; raise NotFound, or FailedPrecondition when it was damaged."""
        try:
            with open(self.path(digest), "rb") as file:
                data = file.read()
        except FileNotFoundError as error:
            raise NotFound(f"content {digest} is not stored") from error
        verify(digest, data, f"stored content {digest}")
        return data

    def put(self, digest: str, data: bytes) -> None:
        """Store verified bytes; on the disk only after a Syncer.barrier(); raise ResourceExhausted on a full disk."""
        if digest in self._sizes:
            return
        partial = self.new_partial()
        try:
            with open(partial, "wb") as file:
                file.write(data)
            self.adopt(partial, digest)
        except OSError as error:
            with contextlib.suppress(OSError):
                os.unlink(partial)
            raise ResourceExhausted(f"content {digest} cannot be stored: {error.strerror}") from error

    def new_partial(self) -> str:
        """Give the path of a new unfinished blob."""
        self._number += 1
        return os.path.join(self._partial, str(self._number))

    def adopt(self, partial: str, digest: str) -> None:
        """Give a finished blob its name; the caller has verified it; raise OSError."""
        size = os.stat(partial).st_size
        os.rename(partial, self.path(digest))
        self._sizes[digest] = size

    def keep_only(self, digests: Iterable[str]) -> None:
        """Remove every blob that is not among `digests`."""
        keep = set(digests)
        for digest in [digest for digest in self._sizes if digest not in keep]:
            try:
                os.unlink(self.path(digest))
            except FileNotFoundError:
                pass
            except OSError as error:
                raise Internal(f"content {digest} cannot be removed: {error.strerror}") from error
            del self._sizes[digest]

    def usage(self) -> tuple[int, int]:
        """Give (bytes, inodes) on disk."""
        return sum(-(-size // ALLOCATION) * ALLOCATION for size in self._sizes.values()), len(self._sizes)
