"""What the rest of the daemon knows about images: frozen values, answered from memory."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from shim.image.reference import tagged_name

if TYPE_CHECKING:
    from shim.image.oci import OciImageConfig


@dataclass(frozen=True, slots=True, kw_only=True)
class ImageRecord:
    """An image."""

    id: str
    """sha256:… of its configuration; what CRI calls image_ref."""
    repo_tags: tuple[str, ...]
    repo_digests: tuple[str, ...]
    size: int
    """Bytes on disk of its layers and documents, shared ones included."""
    config: OciImageConfig
    pinned: bool
    created: int
    """Nanoseconds since the epoch, 0 when the image does not say."""
    chain_id: str
    """Chain id of the uppermost layer, "" for an image without layers."""

    def called(self, asked: str) -> str:
        """Give the name to show: of several tags the one the image was asked for by, else its first name, "" without one.

        kubelet compares it with the name in the pod: another tag of the same image looks like another image there.
        """
        names = self.repo_tags or self.repo_digests
        if len(names) > 1 and asked and tagged_name(asked) in names:
            return tagged_name(asked)
        return names[0] if names else ""


@dataclass(frozen=True, slots=True, kw_only=True)
class RootfsSpec:
    """What to mount as a container's root; see runtime.api.RootfsMount."""

    lower: tuple[str, ...]
    """Topmost first."""
    upper: str | None
    """None, like `work`: read-only."""
    work: str | None


@dataclass(frozen=True, slots=True, kw_only=True)
class FsUsage:
    """What the image store takes on its file system."""

    mountpoint: str
    used_bytes: int
    inodes_used: int


@dataclass(frozen=True, slots=True, kw_only=True)
class LayerProgress:
    """How far one layer is."""

    digest: str
    phase: str
    """waiting, downloading, unpacking, done or exists."""
    current: int
    """Bytes received."""
    total: int
    """Bytes the blob has, 0 when unknown."""
