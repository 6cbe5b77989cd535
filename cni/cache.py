"""The result cache: what ADD was given and what it answered, kept until DEL.

DEL, CHECK and GC need both, perhaps after a restart, perhaps after the configuration changed. One JSON file an attachment,
in the form and under the name that the reference library uses (`results/NETWORK-CONTAINER-IFNAME`), so that tools that read
that cache keep working. A file that is damaged counts as absent: DEL must be able to go on without it.
"""

from __future__ import annotations

import base64
import contextlib
import json
import os
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from cni import conflist, wire
from cni.errors import CniFault, Malformed

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from cni.conflist import NetworkList
    from cni.types import Result

_KIND = "cniCacheV1"
_MAX_FILE_BYTES = 4 << 20


@dataclass(frozen=True, slots=True, kw_only=True)
class Entry:
    """One remembered attachment; `config` is the network as it was at ADD."""

    container_id: str
    ifname: str
    network: str
    netns: str
    args: tuple[tuple[str, str], ...]
    capabilities: Mapping[str, Any]
    config: NetworkList | None
    result: Result


class Cache:
    """The directory of remembered attachments; made when first written to."""

    def __init__(self, directory: str) -> None:
        self._directory = os.path.join(directory, "results")

    def save(self, entry: Entry, version: str) -> None:
        """Remember `entry` atomically, its result in the shape of `version`; raise OSError when the disk refuses."""
        config = json.dumps(entry.config.to_json() if entry.config else {}, separators=(",", ":"))
        document = {
            "kind": _KIND,
            "containerId": entry.container_id,
            "config": base64.b64encode(config.encode()).decode(),
            "ifName": entry.ifname,
            "networkName": entry.network,
            "netns": entry.netns,
            "cniArgs": [list(pair) for pair in entry.args],
            "capabilityArgs": dict(entry.capabilities),
            "result": wire.write_result(entry.result, version),
        }
        data = json.dumps(document, separators=(",", ":")).encode()
        path = self._path(entry.network, entry.container_id, entry.ifname)
        temporary = os.path.join(self._directory, f".{os.getpid()}-{os.path.basename(path)}")
        try:
            descriptor = _create(temporary)
        except FileNotFoundError:
            os.makedirs(self._directory, mode=0o700, exist_ok=True)
            descriptor = _create(temporary)
        try:
            with open(descriptor, "wb") as stream:
                stream.write(data)
            os.rename(temporary, path)
        except OSError:
            with contextlib.suppress(FileNotFoundError):
                os.unlink(temporary)
            raise

    def load(self, network: str, container_id: str, ifname: str) -> Entry | None:
        """Give what is remembered; None when nothing is, or when the file is damaged."""
        entry = _read(self._path(network, container_id, ifname))
        if entry is None or (entry.network, entry.container_id, entry.ifname) != (network, container_id, ifname):
            return None
        return entry

    def forget(self, network: str, container_id: str, ifname: str) -> None:
        """Drop what is remembered, damaged or not; absent is no error."""
        with contextlib.suppress(FileNotFoundError):
            os.unlink(self._path(network, container_id, ifname))

    def entries(self, network: str) -> Iterator[Entry]:
        """Give every readable attachment of `network`."""
        try:
            names = sorted(os.listdir(self._directory))
        except FileNotFoundError:
            return
        for name in names:
            if name.startswith(f"{network}-"):
                entry = _read(os.path.join(self._directory, name))
                if entry is not None and entry.network == network:
                    yield entry

    def _path(self, network: str, container_id: str, ifname: str) -> str:
        return os.path.join(self._directory, f"{network}-{container_id}-{ifname}")


def _create(path: str) -> int:
    return os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)


def _read(path: str) -> Entry | None:
    try:
        with open(path, "rb") as stream:
            document = json.loads(stream.read(_MAX_FILE_BYTES))
        return _parse(wire.mapping(document, ""))
    except (OSError, ValueError, RecursionError, CniFault):
        return None


def _parse(document: Mapping[str, Any]) -> Entry:
    if document.get("kind") != _KIND:
        raise Malformed(f"must be {_KIND}", "/kind")
    args = document.get("cniArgs") or []
    if not all(isinstance(pair, list) and len(pair) == 2 for pair in args):
        raise Malformed("must be a list of pairs", "/cniArgs")
    return Entry(
        container_id=wire.text(document, "containerId"),
        ifname=wire.text(document, "ifName"),
        network=wire.text(document, "networkName"),
        netns=wire.text(document, "netns"),
        args=tuple((str(key), str(value)) for key, value in args),
        capabilities=wire.mapping(document.get("capabilityArgs") or {}, "/capabilityArgs"),
        config=_config(wire.text(document, "config")),
        result=wire.read_result(document.get("result")),
    )


def _config(encoded: str) -> NetworkList | None:
    try:
        return conflist.parse(json.loads(base64.b64decode(encoded)))
    except (ValueError, CniFault):
        return None
