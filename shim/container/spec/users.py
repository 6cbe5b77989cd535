"""Decide who a container runs as, from the CRI, the image's USER and the image's passwd and group."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from shim.container.spec.inputs import ResolvedUser
    from shim.container.spec.layers import RootfsReader
    from shim.gen.runtime.v1.api_pb2 import LinuxContainerSecurityContext


def resolve_user(reader: RootfsReader, security: LinuxContainerSecurityContext, image_user: str) -> ResolvedUser:
    """Give the ids, groups and home; reads files, so call it in a thread. Raises InvalidArgument."""
    raise NotImplementedError
