"""Small container images made in memory: a static busybox, a few files, any layers a test wants. No registry, no network."""

from __future__ import annotations

import gzip
import hashlib
import io
import json
import tarfile
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tests.support.tools import find_tool

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

_WORDS = (
    "[ ash awk base64 basename cat chmod chown cp cut date dd df dirname du echo env expr false find free getopt grep "
    "gunzip gzip halt head hostname httpd id ifconfig init ip kill killall ln ls md5sum mkdir mkfifo mknod mktemp more "
    "mount mv nc netstat nproc nslookup od pidof ping printf ps pwd readlink realpath "
    "reboot rm rmdir sed seq setsid sh sha256sum sleep sort stat stty sync sysctl tail tar tee test time timeout top "
    "touch tr true truncate tty umount uname uniq unlink unshare uptime usleep vi watch wc wget which whoami xargs yes"
)
APPLETS = tuple(_WORDS.split())
"""Names under which the busybox of the test images can be called."""

OCI = {
    "manifest": "application/vnd.oci.image.manifest.v1+json",
    "index": "application/vnd.oci.image.index.v1+json",
    "config": "application/vnd.oci.image.config.v1+json",
    "": "application/vnd.oci.image.layer.v1.tar",
    "gzip": "application/vnd.oci.image.layer.v1.tar+gzip",
    "zstd": "application/vnd.oci.image.layer.v1.tar+zstd",
}
DOCKER = {
    "manifest": "application/vnd.docker.distribution.manifest.v2+json",
    "index": "application/vnd.docker.distribution.manifest.list.v2+json",
    "config": "application/vnd.docker.container.image.v1+json",
    "": "application/vnd.docker.image.rootfs.diff.tar",
    "gzip": "application/vnd.docker.image.rootfs.diff.tar.gzip",
    "zstd": "application/vnd.docker.image.rootfs.diff.tar.zstd",
}


def digest_of(data: bytes) -> str:
    """Give "sha256:<hex>" of some bytes."""
    return f"sha256:{hashlib.sha256(data).hexdigest()}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Layer:
    """One layer: an uncompressed tar and how it travels ("", "gzip" or "zstd")."""

    tar: bytes
    compression: str = "gzip"

    @property
    def blob(self) -> bytes:
        """The bytes a registry holds; the same bytes each time."""
        if self.compression == "gzip":
            return gzip.compress(self.tar, 6, mtime=0)
        if self.compression == "zstd":
            import zstandard

            return zstandard.ZstdCompressor().compress(self.tar)
        return self.tar


@dataclass(frozen=True, slots=True, kw_only=True)
class TestImage:
    """An image: layers bottom first, and the `config` part of its configuration (Cmd, Env, User …)."""

    layers: tuple[Layer, ...]
    config: Mapping[str, Any] = field(default_factory=dict)
    media: Mapping[str, str] = field(default_factory=lambda: OCI)
    architecture: str = "amd64"

    __test__ = False  # pytest would take the name for a class of tests

    @property
    def config_blob(self) -> bytes:
        """The configuration, whose digest is the image's id."""
        document = {
            "architecture": self.architecture,
            "os": "linux",
            "created": "2024-01-01T00:00:00Z",
            "config": dict(self.config),
            "rootfs": {"type": "layers", "diff_ids": [digest_of(layer.tar) for layer in self.layers]},
            "history": [{"created_by": "tests"} for _ in self.layers],
        }
        return json.dumps(document).encode()

    @property
    def id(self) -> str:
        """The image id that CRI shows."""
        return digest_of(self.config_blob)

    @property
    def manifest(self) -> bytes:
        """The manifest."""
        document = {
            "schemaVersion": 2,
            "mediaType": self.media["manifest"],
            "config": _descriptor(self.media["config"], self.config_blob),
            "layers": [_descriptor(self.media[layer.compression], layer.blob) for layer in self.layers],
        }
        return json.dumps(document).encode()

    def blobs(self) -> dict[str, bytes]:
        """Give configuration and layers by digest."""
        return {digest_of(blob): blob for blob in (self.config_blob, *(layer.blob for layer in self.layers))}


def _descriptor(media_type: str, blob: bytes) -> dict[str, Any]:
    return {"mediaType": media_type, "digest": digest_of(blob), "size": len(blob)}


def entry(path: str, content: bytes | str = b"", **attributes: Any) -> tuple[tarfile.TarInfo, bytes]:
    """Make one tar entry; attributes are TarInfo's (mode, uid, gid, type, linkname, devmajor …)."""
    data = content.encode() if isinstance(content, str) else content
    info = tarfile.TarInfo(path)
    info.size = len(data)
    info.mode = 0o755 if attributes.get("type") == tarfile.DIRTYPE else 0o644
    info.mtime = 1_700_000_000
    for name, value in attributes.items():
        setattr(info, name, value)
    return info, data


def folder(path: str, mode: int = 0o755) -> tuple[tarfile.TarInfo, bytes]:
    """Make one tar entry for a directory."""
    return entry(path, type=tarfile.DIRTYPE, mode=mode)


def layer(entries: Iterable[tuple[tarfile.TarInfo, bytes]], compression: str = "gzip") -> Layer:
    """Pack entries into a layer, in their order."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=tarfile.PAX_FORMAT) as archive:
        for info, data in entries:
            archive.addfile(info, io.BytesIO(data) if info.isreg() else None)
    return Layer(tar=buffer.getvalue(), compression=compression)


def files_layer(files: Mapping[str, bytes | str], compression: str = "gzip") -> Layer:
    """Pack plain files (path → content) with their directories into a layer."""
    parents = sorted({str(parent) for path in files for parent in Path(path).parents if str(parent) != "."})
    entries = [folder(parent) for parent in parents] + [entry(path, content) for path, content in files.items()]
    return layer(entries, compression)


def busybox_entries() -> list[tuple[tarfile.TarInfo, bytes]]:
    """Give a small root: static busybox with its applets as hard links, users, and the usual directories."""
    binary = Path(find_tool("busybox")).read_bytes()
    entries = [folder(name) for name in ("bin", "dev", "etc", "home", "proc", "root", "run", "sys", "usr", "var", "var/log")]
    entries.append(folder("tmp", 0o1777))
    entries.append(entry("bin/busybox", binary, mode=0o755))
    entries += [entry(f"bin/{name}", type=tarfile.LNKTYPE, linkname="bin/busybox", mode=0o755) for name in APPLETS]
    entries.append(
        entry(
            "etc/passwd",
            "root:x:0:0:root:/root:/bin/sh\nnobody:x:65534:65534:nobody:/:/bin/false\napp:x:1000:1001:app:/home:/bin/sh\n",
        )
    )
    entries.append(entry("etc/group", "root:x:0:\nnogroup:x:65534:\napp:x:1001:\naudio:x:29:app\nvideo:x:44:app,nobody\n"))
    return entries


def busybox_image(*, config: Mapping[str, Any] | None = None, extra: tuple[Layer, ...] = (), **attributes: Any) -> TestImage:
    """Make the image most tests use; `extra` layers go on top."""
    base = layer(busybox_entries())
    defaults = {"Env": ["PATH=/bin:/usr/bin"], "Cmd": ["/bin/sh"]}
    return TestImage(layers=(base, *extra), config=defaults | dict(config or {}), **attributes)


def unpack_busybox(root: Path) -> None:
    """Write the busybox root below the directory `root`, for a bundle without an image."""
    root.mkdir(parents=True, exist_ok=True)
    for info, data in busybox_entries():
        target = root / info.name
        if info.isdir():
            target.mkdir(exist_ok=True)
        elif info.islnk():
            target.hardlink_to(root / info.linkname)
        else:
            target.write_bytes(data)
        target.chmod(info.mode)


def docker_archive(images: Mapping[str, TestImage]) -> bytes:
    """Pack images by name (repository:tag; a name may begin with "!" for none) as `docker save` does."""
    files: dict[str, bytes] = {}
    manifest = []
    for name, image in images.items():
        config_name = f"{image.id.removeprefix('sha256:')}.json"
        files[config_name] = image.config_blob
        names = []
        for part in image.layers:
            layer_name = f"{digest_of(part.tar).removeprefix('sha256:')}/layer.tar"
            files[layer_name] = part.tar
            names.append(layer_name)
        tags = [] if name.startswith("!") else [name]
        manifest.append({"Config": config_name, "RepoTags": tags, "Layers": names})
    files["manifest.json"] = json.dumps(manifest).encode()
    return _tar(files)


def oci_archive(images: Mapping[str, TestImage]) -> bytes:
    """Pack images by name as a tar of an OCI image layout."""
    return _tar(oci_layout(images))


def write_oci_layout(target: Path, images: Mapping[str, TestImage]) -> Path:
    """Write an OCI image layout below the directory `target` and give it back."""
    for name, data in oci_layout(images).items():
        path = target / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
    return target


def oci_layout(images: Mapping[str, TestImage]) -> dict[str, bytes]:
    """Give the files of an OCI image layout."""
    blobs: dict[str, bytes] = {}
    manifests = []
    for name, image in images.items():
        blobs |= image.blobs() | {digest_of(image.manifest): image.manifest}
        annotations = {"org.opencontainers.image.ref.name": name, "io.containerd.image.name": name}
        manifests.append(_descriptor(image.media["manifest"], image.manifest) | {"annotations": annotations})
    files = {f"blobs/{digest.replace(':', '/')}": blob for digest, blob in blobs.items()}
    files["oci-layout"] = b'{"imageLayoutVersion": "1.0.0"}'
    index = {"schemaVersion": 2, "mediaType": OCI["index"], "manifests": manifests}
    files["index.json"] = json.dumps(index).encode()
    return files


def _tar(files: Mapping[str, bytes]) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as archive:
        for name, data in files.items():
            archive.addfile(*_reader(entry(name, data)))
    return buffer.getvalue()


def _reader(pair: tuple[tarfile.TarInfo, bytes]) -> tuple[tarfile.TarInfo, io.BytesIO]:
    info, data = pair
    return info, io.BytesIO(data)


def random_layer(megabytes: int, *, files: int = 64, seed: str = "", compression: str = "gzip") -> Layer:
    """Make a layer of `files` files that compress to about a half, the same bytes for the same seed: for measuring pulls."""
    size = megabytes * 1_000_000 // files
    contents = {}
    for number in range(files):
        noise = hashlib.shake_256(f"{seed}/{number}".encode()).digest(size // 2)
        contents[f"data/{number:04}/file"] = noise + bytes(size - len(noise))
    return files_layer(contents, compression)
