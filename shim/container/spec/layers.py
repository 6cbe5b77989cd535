"""Read files of an image through its overlay layers without mounting them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from collections.abc import Sequence


class RootfsReader(Protocol):
    """A container's root as far as it can be read before it exists."""

    def read(self, path: str, *, limit: int) -> bytes | None:
        """Give the content of the regular file at `path`, None when it does not exist.

        Raises InvalidArgument when it is no regular file, longer than `limit` bytes or behind too many symbolic links.
        """
        ...


class LayeredRootfs:
    """The merged view of overlay layers, `layers` topmost first (also of a single directory)."""

    def __init__(self, layers: Sequence[str]) -> None:
        self._layers = tuple(layers)

    def read(self, path: str, *, limit: int) -> bytes | None:
        """See RootfsReader.read."""
        raise NotImplementedError
