"""The settings of the image store, as they stand in the daemon's configuration below [image]."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import Any

MIB = 1024 * 1024
GIB = 1024 * MIB


def _setting(default: Any, doc: str) -> Any:
    return dataclasses.field(default=default, metadata={"doc": doc})


@dataclass(frozen=True, slots=True, kw_only=True)
class ImageConfig:
    """How images are fetched, unpacked and kept. Times are seconds, sizes bytes."""

    registry_config_dirs: tuple[str, ...] = _setting(
        ("/etc/wherry/certs.d", "/etc/containerd/certs.d"),
        "directories of HOST/hosts.toml in containerd's format; the first that has HOST or _default wins",
    )
    platform: str = _setting("", "os/architecture[/variant] of images; empty: this machine's")
    parallel_layers: int = _setting(3, "layers that one pull fetches and unpacks at once")
    connect_timeout: float = _setting(15.0, "seconds until a connection to a registry must stand")
    stall_timeout: float = _setting(30.0, "seconds without a byte after which a transfer is cut and resumed")
    slow_timeout: float = _setting(300.0, "seconds that each MiB of a transfer may take before it is cut and resumed; 0: any")
    retries: int = _setting(5, "attempts after the first for one manifest or blob, over all its breaks")
    retry_delay: float = _setting(0.2, "seconds before the second attempt; it doubles, up to 5")
    keep_compressed_blobs: bool = _setting(False, "keep layers as the registry sent them, beside the unpacked ones")
    pinned: tuple[str, ...] = _setting((), "images that garbage collection must never remove")
    max_layer_bytes: int = _setting(64 * GIB, "bytes that one layer may have uncompressed")
    max_layer_entries: int = _setting(2_000_000, "files that one layer may have")
    max_ratio: int = _setting(500, "compression ratio beyond which a layer over 256 MiB counts as a bomb")
    max_layers: int = _setting(500, "layers that one image may have; overlayfs mounts no more")
