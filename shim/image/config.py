"""The settings of the image store, as they stand in the daemon's configuration below [image]."""

from __future__ import annotations

from dataclasses import dataclass

MIB = 1024 * 1024
GIB = 1024 * MIB


@dataclass(frozen=True, slots=True, kw_only=True)
class ImageConfig:
    """How images are fetched, unpacked and kept. Times are seconds, sizes bytes."""

    registry_config_dirs: tuple[str, ...] = ("/etc/wherry/certs.d", "/etc/containerd/certs.d")
    """Directories of HOST/hosts.toml, the first that has HOST (or _default) wins."""
    platform: str = ""
    """os/architecture[/variant]; empty: the host's."""
    parallel_layers: int = 3
    """Layers fetched and unpacked at once by one pull."""
    connect_timeout: float = 15.0
    stall_timeout: float = 30.0
    """A connection that gives no byte for this long is cut and resumed."""
    retries: int = 5
    """Attempts after the first for one manifest or blob, together over all its breaks."""
    retry_delay: float = 0.2
    """The first pause between attempts; it doubles, up to 5 s."""
    keep_compressed_blobs: bool = False
    """Keep what the registry sent for each layer (needs the disk space twice)."""
    pinned: tuple[str, ...] = ()
    """References that image garbage collection must never remove."""
    max_layer_bytes: int = 64 * GIB
    """Bytes of one layer's uncompressed tar."""
    max_layer_entries: int = 2_000_000
    max_ratio: int = 500
    """Uncompressed over compressed bytes that is believed once a layer is larger than 256 MiB."""
    max_layers: int = 500
    """Layers of one image (overlayfs mounts no more)."""
