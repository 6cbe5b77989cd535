"""The Stream… RPCs: what a list RPC gives, in several messages, so that none grows beyond what a client accepts."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from typing import TypeVar

    from google.protobuf.message import Message

    M = TypeVar("M", bound=Message)

CHUNK_BYTES = 1024 * 1024
"""Size from which a message is sent; gRPC's own limit is 4 MiB, and one item is far smaller than the rest."""


def chunks(items: Iterable[M], limit: int = CHUNK_BYTES) -> Iterator[list[M]]:
    """Give the items in lists of about `limit` bytes; nothing when there are none."""
    part: list[M] = []
    size = 0
    for item in items:
        part.append(item)
        size += item.ByteSize()
        if size >= limit:
            yield part
            part, size = [], 0
    if part:
        yield part
