"""runtime.v1.ImageService: what each served RPC calls. Methods bear the RPCs' names in snake case."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from shim.errors import InvalidArgument, NotFound
from shim.gen.runtime.v1 import api_pb2
from shim.rpc import encode
from shim.rpc.streams import chunks

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from shim.image.record import FsUsage, ImageRecord
    from shim.image.registry.auth import Auth
    from shim.pod.node import Node


class ImageService:
    """Decode, call, encode."""

    def __init__(self, node: Node) -> None:
        self._images = node.images

    async def list_images(self, request: api_pb2.ListImagesRequest) -> api_pb2.ListImagesResponse:
        """List images; a filter names one, and none that matches is an empty list."""
        wanted = request.filter.image.image
        records = self._images.list()
        if wanted:
            found = self._find(wanted)
            records = [] if found is None else [found]
        return api_pb2.ListImagesResponse(images=[encode.image_item(record) for record in records])

    async def stream_images(self, request: api_pb2.StreamImagesRequest) -> AsyncIterator[api_pb2.StreamImagesResponse]:
        """List images, in parts."""
        listed = await self.list_images(api_pb2.ListImagesRequest(filter=request.filter))
        for part in chunks(listed.images):
            yield api_pb2.StreamImagesResponse(images=part)

    async def image_status(self, request: api_pb2.ImageStatusRequest) -> api_pb2.ImageStatusResponse:
        """Give one image; an answer without an image says that it is not here."""
        record = self._find(_named(request.image))
        if record is None:
            return api_pb2.ImageStatusResponse()
        info = {}
        if request.verbose:
            info["info"] = encode.image_info(record.chain_id, self._images.config_json(record.id))
        return api_pb2.ImageStatusResponse(image=encode.image_item(record), info=info)

    async def pull_image(self, request: api_pb2.PullImageRequest) -> api_pb2.PullImageResponse:
        """Pull an image."""
        image_id = await self._images.pull(_named(request.image), _auth(request))
        return api_pb2.PullImageResponse(image_ref=image_id)

    async def remove_image(self, request: api_pb2.RemoveImageRequest) -> api_pb2.RemoveImageResponse:
        """Remove an image with all its names; harmless when it is not here."""
        record = self._find(_named(request.image))
        if record is not None:
            await self._images.remove(record.id)
        return api_pb2.RemoveImageResponse()

    async def image_fs_info(self, _request: api_pb2.ImageFsInfoRequest) -> api_pb2.ImageFsInfoResponse:
        """Say how much disk images and containers take; both live on one file system."""
        usage = _usage(self._images.filesystem_usage())
        return api_pb2.ImageFsInfoResponse(image_filesystems=[usage], container_filesystems=[usage])

    def _find(self, reference: str) -> ImageRecord | None:
        try:
            return self._images.resolve(reference)
        except NotFound:
            return None


def _named(spec: api_pb2.ImageSpec) -> str:
    if not spec.image:
        raise InvalidArgument("image.image must name an image")
    return spec.image


def _auth(request: api_pb2.PullImageRequest) -> Auth | None:
    if not request.HasField("auth"):
        return None
    from shim.image.registry.auth import auth_from_cri  # noqa: PLC0415 - only pulls with credentials need it

    fields = ("username", "password", "auth", "server_address", "identity_token", "registry_token")
    return auth_from_cri(**{name: getattr(request.auth, name) for name in fields})


def _usage(usage: FsUsage) -> api_pb2.FilesystemUsage:
    return api_pb2.FilesystemUsage(
        timestamp=time.time_ns(),
        fs_id=api_pb2.FilesystemIdentifier(mountpoint=usage.mountpoint),
        used_bytes=api_pb2.UInt64Value(value=usage.used_bytes),
        inodes_used=api_pb2.UInt64Value(value=usage.inodes_used),
    )
