"""Manifests, indexes and image configurations: bytes from outside into frozen values (image-spec 1.1, Docker schema 2).

Every length is bounded before JSON is parsed; a document that is not what it claims raises FailedPrecondition and
names itself, because the request was fine and the image is not.
"""

from __future__ import annotations

import hashlib
import json
import re
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from shim.errors import FailedPrecondition, InvalidArgument
from shim.image.reference import parse_digest

OCI_INDEX = "application/vnd.oci.image.index.v1+json"
OCI_MANIFEST = "application/vnd.oci.image.manifest.v1+json"
OCI_CONFIG = "application/vnd.oci.image.config.v1+json"
OCI_LAYER = "application/vnd.oci.image.layer.v1.tar"
DOCKER_LIST = "application/vnd.docker.distribution.manifest.list.v2+json"
DOCKER_MANIFEST = "application/vnd.docker.distribution.manifest.v2+json"
DOCKER_SCHEMA1 = "application/vnd.docker.distribution.manifest.v1"
LAYER_TYPES = re.compile(
    r"application/vnd\.(oci\.image\.layer\.(nondistributable\.)?v1\.tar(\+(gzip|zstd))?"
    r"|docker\.image\.rootfs\.(foreign\.)?diff\.tar(\.(gzip|zstd))?)"
)
"""What layers may be; a layer that says it is something else is tried all the same."""
INDEX_TYPES = (OCI_INDEX, DOCKER_LIST)
MANIFEST_TYPES = (OCI_MANIFEST, DOCKER_MANIFEST)
ACCEPT = ", ".join((*MANIFEST_TYPES, *INDEX_TYPES))

MAX_MANIFEST = 4 * 1024 * 1024
MAX_CONFIG = 8 * 1024 * 1024
MAX_INDEX_ENTRIES = 1000


@dataclass(frozen=True, slots=True, kw_only=True)
class Platform:
    """What an image was built for."""

    os: str
    architecture: str
    variant: str = ""

    def __str__(self) -> str:
        return "/".join(part for part in (self.os, self.architecture, self.variant) if part)


@dataclass(frozen=True, slots=True, kw_only=True)
class Descriptor:
    """Where a blob is: its digest and its exact size."""

    digest: str
    size: int
    media_type: str
    platform: Platform | None = None
    annotations: tuple[tuple[str, str], ...] = ()

    def annotation(self, key: str) -> str:
        """Give one annotation or ""."""
        return dict(self.annotations).get(key, "")


@dataclass(frozen=True, slots=True, kw_only=True)
class Manifest:
    """One platform's image: its configuration and its layers, the base first."""

    digest: str
    media_type: str
    raw: bytes
    config: Descriptor
    layers: tuple[Descriptor, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class OciImageConfig:
    """What an image says about the processes run from it."""

    os: str = ""
    architecture: str = ""
    variant: str = ""
    created: str = ""
    user: str = ""
    env: tuple[str, ...] = ()
    entrypoint: tuple[str, ...] = ()
    cmd: tuple[str, ...] = ()
    working_dir: str = ""
    stop_signal: str = ""
    labels: tuple[tuple[str, str], ...] = ()
    volumes: tuple[str, ...] = ()
    exposed_ports: tuple[str, ...] = ()
    diff_ids: tuple[str, ...] = ()


def sha256(data: bytes) -> str:
    """Give the sha256 digest of `data` in digest notation."""
    return "sha256:" + hashlib.sha256(data).hexdigest()


def verify(digest: str, data: bytes, what: str) -> None:
    """Raise FailedPrecondition unless `data` has `digest`."""
    actual = f"{digest.partition(':')[0]}:{hashlib.new(digest.partition(':')[0], data).hexdigest()}"
    if actual != digest:
        raise FailedPrecondition(f"{what}: the content has digest {actual}, expected {digest}")


def chain_ids(diff_ids: tuple[str, ...]) -> tuple[str, ...]:
    """Give the chain id of each layer (image-spec, config.md, "Layer ChainID")."""
    chain: list[str] = []
    for diff_id in diff_ids:
        chain.append(sha256(f"{chain[-1]} {diff_id}".encode()) if chain else diff_id)
    return tuple(chain)


def load_object(data: bytes, what: str, limit: int) -> dict[str, Any]:
    """Parse a JSON object of at most `limit` bytes; raise FailedPrecondition."""
    if len(data) > limit:
        raise FailedPrecondition(f"{what} is larger than {limit} bytes")
    try:
        value = json.loads(data)
    except (ValueError, RecursionError) as error:
        raise FailedPrecondition(f"{what} is not JSON: {error}") from error
    if not isinstance(value, dict):
        raise FailedPrecondition(f"{what} is not a JSON object")
    return value


def parse_platform(text: str) -> Platform:
    """Parse os/architecture[/variant]; raise InvalidArgument."""
    parts = text.split("/")
    if len(parts) not in {2, 3} or not all(parts):
        raise InvalidArgument(f"platform {text[:80]!r} is not os/architecture[/variant]")
    return Platform(os=parts[0], architecture=parts[1], variant=parts[2] if len(parts) == 3 else "")


def media_type_of(document: dict[str, Any], content_type: str) -> str:
    """Decide what a manifest document is, by its own word first and its HTTP header second."""
    if document.get("schemaVersion") == 1:
        return DOCKER_SCHEMA1
    own = document.get("mediaType")
    if isinstance(own, str) and own:
        return own
    header = content_type.partition(";")[0].strip()
    if header in INDEX_TYPES or header in MANIFEST_TYPES:
        return header
    return OCI_INDEX if "manifests" in document else OCI_MANIFEST


def parse_index(document: dict[str, Any], what: str) -> tuple[Descriptor, ...]:
    """Give the manifests that an index lists; raise FailedPrecondition."""
    entries = document.get("manifests")
    if not isinstance(entries, list) or len(entries) > MAX_INDEX_ENTRIES:
        raise FailedPrecondition(f"{what} has no list of at most {MAX_INDEX_ENTRIES} manifests")
    return tuple(_descriptor(entry, f"{what}, manifest {place}") for place, entry in enumerate(entries))


def parse_manifest(raw: bytes, document: dict[str, Any], media_type: str, digest: str) -> Manifest:
    """Turn the JSON of one image manifest into a value; raise FailedPrecondition."""
    what = f"manifest {digest}"
    if media_type not in MANIFEST_TYPES:
        if media_type.startswith(DOCKER_SCHEMA1):
            raise FailedPrecondition(f"{what} is a Docker schema 1 manifest, which is not supported; push the image again")
        raise FailedPrecondition(f"{what} has the unsupported media type {media_type[:120]!r}")
    layers = document.get("layers")
    if not isinstance(layers, list) or "manifests" in document:
        raise FailedPrecondition(f"{what} has no layers, or is an index too")
    return Manifest(
        digest=digest,
        media_type=media_type,
        raw=raw,
        config=_descriptor(document.get("config"), f"{what}, config"),
        layers=tuple(_descriptor(layer, f"{what}, layer {place}") for place, layer in enumerate(layers)),
    )


def manifest_json(config_digest: str, config_size: int, layers: list[dict[str, Any]]) -> bytes:
    """Give the OCI manifest of an image whose layers are described by `layers`, the base first."""
    config = {"mediaType": OCI_CONFIG, "digest": config_digest, "size": config_size}
    document = {"schemaVersion": 2, "mediaType": OCI_MANIFEST, "config": config, "layers": layers}
    return json.dumps(document, separators=(",", ":")).encode()


def _descriptor(value: Any, what: str) -> Descriptor:
    if not isinstance(value, dict):
        raise FailedPrecondition(f"{what} is not a descriptor")
    size = value.get("size")
    if not isinstance(size, int) or isinstance(size, bool) or size < 0:
        raise FailedPrecondition(f"{what} has no size")
    try:
        digest = parse_digest(_text(value, "digest"))
    except InvalidArgument as error:
        raise FailedPrecondition(f"{what}: {error}") from error
    return Descriptor(
        digest=digest,
        size=size,
        media_type=_text(value, "mediaType"),
        platform=_platform(value.get("platform")),
        annotations=_pairs(value.get("annotations")),
    )


def _platform(value: Any) -> Platform | None:
    if not isinstance(value, dict):
        return None
    return Platform(os=_text(value, "os"), architecture=_text(value, "architecture"), variant=_text(value, "variant"))


def parse_config(data: bytes, what: str) -> OciImageConfig:
    """Turn an image configuration into a value; absent and null fields are empty; raise FailedPrecondition."""
    document = load_object(data, what, MAX_CONFIG)
    inner = document.get("config")
    inner = inner if isinstance(inner, dict) else {}
    rootfs = document.get("rootfs")
    diff_ids = _texts(rootfs.get("diff_ids")) if isinstance(rootfs, dict) else ()
    try:
        for diff_id in diff_ids:
            parse_digest(diff_id)
    except InvalidArgument as error:
        raise FailedPrecondition(f"{what}, rootfs: {error}") from error
    return OciImageConfig(
        os=_text(document, "os"),
        architecture=_text(document, "architecture"),
        variant=_text(document, "variant"),
        created=_text(document, "created"),
        user=_text(inner, "User"),
        env=_texts(inner.get("Env")),
        entrypoint=_texts(inner.get("Entrypoint")),
        cmd=_texts(inner.get("Cmd")),
        working_dir=_text(inner, "WorkingDir"),
        stop_signal=_text(inner, "StopSignal"),
        labels=_pairs(inner.get("Labels")),
        volumes=_keys(inner.get("Volumes")),
        exposed_ports=_keys(inner.get("ExposedPorts")),
        diff_ids=diff_ids,
    )


def created_ns(config: OciImageConfig) -> int:
    """Give the image's creation time in nanoseconds since 1970, 0 when it is absent or unreadable."""
    try:
        moment = datetime.fromisoformat(config.created)
    except ValueError:
        return 0
    try:
        return int(moment.timestamp()) * 1_000_000_000
    except (OverflowError, OSError):
        return 0


def _text(document: dict[str, Any], key: str) -> str:
    value = document.get(key)
    return value if isinstance(value, str) else ""


def _texts(value: Any) -> tuple[str, ...]:
    if isinstance(value, str):  # some builders write one string for a list of one
        return (value,)
    return tuple(item for item in value if isinstance(item, str)) if isinstance(value, list) else ()


def _pairs(value: Any) -> tuple[tuple[str, str], ...]:
    if not isinstance(value, dict):
        return ()
    return tuple((key, text) for key, text in value.items() if isinstance(text, str))


def _keys(value: Any) -> tuple[str, ...]:
    return tuple(value) if isinstance(value, dict) else ()
