"""Make a Document of a CDI file's bytes (SPEC.md, CDI JSON Specification): strict, so that no typing error goes unseen."""

from __future__ import annotations

import json
import re
from typing import TYPE_CHECKING, Any

from shim.cdi.model import Device, Document, Edits, Hook, Mount, Node
from shim.cdi.names import DEVICE, KIND
from shim.errors import InvalidArgument

if TYPE_CHECKING:
    from collections.abc import Callable

Json = dict[str, Any]

VERSIONS = ("0.1.0", "0.2.0", "0.3.0", "0.4.0", "0.5.0", "0.6.0", "0.7.0", "0.8.0", "1.0.0", "1.1.0")
EARLIEST = "0.3.0"
HOOKS = ("prestart", "createRuntime", "createContainer", "startContainer", "poststart", "poststop")
NODE_KINDS = ("", "b", "c", "u", "p")
ANNOTATION_KEY = re.compile(r"(?:[a-z0-9.-]{1,253}/)?[A-Za-z0-9](?:[A-Za-z0-9_.-]{0,61}[A-Za-z0-9])?")
MOST_ANNOTATIONS = 256 * 1024
"""Bytes of all annotations of one object."""
U32 = 2**32 - 1


def parse(data: bytes, path: str) -> Document:
    """Give the document; raise InvalidArgument naming the file and the place in it."""
    top = _At(_load(data, path), f"CDI file {path}: ")
    top.only("cdiVersion", "kind", "annotations", "devices", "containerEdits")
    kind = top.text("kind", required=True)
    if KIND.fullmatch(kind) is None:
        raise InvalidArgument(f"CDI file {path}: kind {kind!r} is not made like vendor/class")
    devices = tuple(_device(at, kind) for at in top.objects("devices"))
    if not devices:
        raise InvalidArgument(f"CDI file {path}: devices is empty")
    names = [device.name for device in devices]
    if len(set(names)) < len(names):
        raise InvalidArgument(f"CDI file {path}: devices has a name twice")
    _check_annotations(top)
    document = Document(path=path, kind=kind, devices=devices, edits=_edits(top.child("containerEdits")))
    _check_version(top, document)
    return document


def _load(data: bytes, path: str) -> Json:
    """Read JSON, or YAML, whose reader is not imported on nodes that have no such file."""
    try:
        if data.lstrip().startswith(b"{"):
            loaded = json.loads(data)
        else:
            import yaml  # noqa: PLC0415 - see above

            loaded = yaml.load(data, Loader=getattr(yaml, "CSafeLoader", yaml.SafeLoader))  # noqa: S506 - both are safe loaders
    except (ValueError, RecursionError) as error:
        raise InvalidArgument(f"CDI file {path} is not JSON: {error}") from error
    except Exception as error:  # yaml's own tree of errors, without importing it here
        if type(error).__module__.partition(".")[0] != "yaml":
            raise
        raise InvalidArgument(f"CDI file {path} is not YAML: {' '.join(str(error).split())}") from error
    if not isinstance(loaded, dict):
        raise InvalidArgument(f"CDI file {path} holds no object")
    return loaded


class _At:
    """One object of the document, and where it stands."""

    def __init__(self, data: Json, where: str) -> None:
        self.data = data
        self.where = where

    def only(self, *known: str) -> None:
        """Refuse keys that the format does not have."""
        for key in self.data:
            if key not in known:
                raise InvalidArgument(f"{self.where}unknown key {key!r}; known here: {', '.join(known)}")

    def wrong(self, key: str, expected: str) -> InvalidArgument:
        """Give the error for a value."""
        return InvalidArgument(f"{self.where}{key} must be {expected}, not {self.data.get(key)!r}")

    def text(self, key: str, *, required: bool = False) -> str:
        """Give a string."""
        value = self.data.get(key, "")
        if not isinstance(value, str) or "\0" in value or (required and not value):
            raise self.wrong(key, "a string" + " that is not empty" * required)
        return value

    def number(self, key: str, most: int = 2**63 - 1) -> int | None:
        """Give an integer, None when it is absent."""
        value = self.data.get(key)
        if value is not None and (type(value) is not int or not 0 <= value <= most):
            raise self.wrong(key, f"an integer from 0 to {most}")
        return value

    def texts(self, key: str) -> tuple[str, ...]:
        """Give a list of strings."""
        return tuple(self._list(key, lambda value: isinstance(value, str) and "\0" not in value, "a list of strings"))

    def numbers(self, key: str) -> tuple[int, ...]:
        """Give a list of 32-bit numbers."""
        return tuple(self._list(key, lambda value: type(value) is int and 0 <= value <= U32, "a list of numbers"))

    def objects(self, key: str) -> list[_At]:
        """Give a list of objects."""
        values = self._list(key, lambda value: isinstance(value, dict), "a list of objects")
        return [_At(value, f"{self.where}{key}[{index}].") for index, value in enumerate(values)]

    def child(self, key: str) -> _At:
        """Give an object, an empty one when it is absent."""
        value = self.data.get(key)
        if value is not None and not isinstance(value, dict):
            raise self.wrong(key, "an object")
        return _At(value or {}, f"{self.where}{key}.")

    def _list(self, key: str, good: Callable[[Any], bool], expected: str) -> list[Any]:
        value = self.data.get(key)
        if value is None:
            return []
        if not isinstance(value, list) or not all(good(one) for one in value):
            raise self.wrong(key, expected)
        return value


def _device(at: _At, kind: str) -> Device:
    at.only("name", "annotations", "containerEdits")
    name = at.text("name", required=True)
    if DEVICE.fullmatch(name) is None:
        raise at.wrong("name", "made of letters, digits and _.:-")
    _check_annotations(at)
    edits = _edits(at.child("containerEdits"))
    if edits.empty:
        raise InvalidArgument(f"{at.where}containerEdits is empty: the device would change nothing")
    return Device(name=f"{kind}={name}", edits=edits)


def _check_annotations(at: _At) -> None:
    annotations = at.child("annotations").data
    size = 0
    for key, value in annotations.items():
        if not isinstance(key, str) or not isinstance(value, str) or ANNOTATION_KEY.fullmatch(key.lower()) is None:
            raise InvalidArgument(f"{at.where}annotations: {key!r} is no name, or its value no string")
        size += len(key) + len(value)
    if size > MOST_ANNOTATIONS:
        raise InvalidArgument(f"{at.where}annotations are larger than {MOST_ANNOTATIONS} bytes")


def _edits(at: _At) -> Edits:
    at.only("env", "deviceNodes", "netDevices", "hooks", "mounts", "intelRdt", "additionalGids")
    return Edits(
        env=_env(at, "env"),
        nodes=tuple(_node(one) for one in at.objects("deviceNodes")),
        net_devices=_net_devices(at),
        hooks=tuple(_hook(one) for one in at.objects("hooks")),
        mounts=tuple(_mount(one) for one in at.objects("mounts")),
        intel_rdt=_intel_rdt(at.child("intelRdt")) if at.data.get("intelRdt") is not None else None,
        gids=at.numbers("additionalGids"),
    )


def _env(at: _At, key: str) -> tuple[str, ...]:
    for one in (values := at.texts(key)):
        if one.find("=") < 1:
            raise InvalidArgument(f"{at.where}{key}: {one!r} is not made like NAME=value")
    return values


def _node(at: _At) -> Node:
    at.only("path", "hostPath", "type", "major", "minor", "fileMode", "permissions", "uid", "gid")
    kind, permissions = at.text("type"), at.text("permissions")
    if kind not in NODE_KINDS:
        raise at.wrong("type", "b, c, u or p")
    if permissions != "none" and not set(permissions) <= set("rwm"):
        raise at.wrong("permissions", "none, or made of r, w and m")
    return Node(
        path=at.text("path", required=True),
        host_path=at.text("hostPath"),
        kind=kind,
        major=at.number("major") or 0,
        minor=at.number("minor") or 0,
        mode=at.number("fileMode", U32),
        permissions=permissions,
        uid=at.number("uid", U32),
        gid=at.number("gid", U32),
    )


def _net_devices(at: _At) -> dict[str, str]:
    found: dict[str, str] = {}
    for one in at.objects("netDevices"):
        one.only("hostInterfaceName", "name")
        host, name = one.text("hostInterfaceName", required=True), one.text("name", required=True)
        if host in found or name in found.values():
            raise InvalidArgument(f"{one.where[:-1]} moves an interface, or takes a name, a second time")
        found[host] = name
    return found


def _hook(at: _At) -> Hook:
    at.only("hookName", "path", "args", "env", "timeout")
    if at.data.get("hookName") not in HOOKS:
        raise at.wrong("hookName", f"one of {', '.join(HOOKS)}")
    return Hook(
        name=at.text("hookName"),
        path=at.text("path", required=True),
        args=at.texts("args"),
        env=_env(at, "env"),
        timeout=at.number("timeout"),
    )


def _mount(at: _At) -> Mount:
    at.only("hostPath", "containerPath", "options", "type")
    return Mount(
        host_path=at.text("hostPath", required=True),
        container_path=at.text("containerPath", required=True),
        kind=at.text("type"),
        options=at.texts("options"),
    )


def _intel_rdt(at: _At) -> Json:
    at.only("closID", "l3CacheSchema", "memBwSchema", "schemata", "enableMonitoring")
    clos = at.text("closID")
    if clos != "/" and (clos in {".", ".."} or len(clos) >= 4096 or set(clos) & set("/\n")):
        raise at.wrong("closID", "the name of a directory")
    if not isinstance(at.data.get("enableMonitoring", False), bool):
        raise at.wrong("enableMonitoring", "true or false")
    values: Json = {key: at.text(key) for key in ("closID", "l3CacheSchema", "memBwSchema")}
    values |= {"schemata": list(at.texts("schemata")), "enableMonitoring": at.data.get("enableMonitoring", False)}
    return {key: value for key, value in values.items() if value}


def _check_version(top: _At, document: Document) -> None:
    """Refuse a version that is not known, and one that had not yet what the file uses."""
    version = top.text("cdiVersion", required=True).removeprefix("v")
    if version not in VERSIONS:
        raise top.wrong("cdiVersion", f"a version up to {VERSIONS[-1]}")
    needed = _needed(top.data, document)
    if VERSIONS.index(version) < VERSIONS.index(needed):
        raise InvalidArgument(f"{top.where}cdiVersion must be at least {needed} for what the file uses, not {version}")


def _needed(data: Json, document: Document) -> str:
    """Give the first version that has everything the file uses (SPEC.md, Released versions)."""
    edits = [document.edits, *(device.edits for device in document.devices)]
    rdt = [one.intel_rdt for one in edits if one.intel_rdt is not None]
    uses = {
        "1.1.0": any(one.net_devices for one in edits) or any("schemata" in one or "enableMonitoring" in one for one in rdt),
        "0.7.0": bool(rdt) or any(one.gids for one in edits),
        "0.6.0": "." in document.kind.partition("/")[2] or any(one.get("annotations") for one in (data, *data["devices"])),
        "0.5.0": any(device.name.partition("=")[2][0].isdigit() for device in document.devices)
        or any(node.host_path for one in edits for node in one.nodes),
        "0.4.0": any(mount.kind for one in edits for mount in one.mounts),
    }
    return next((version for version, used in uses.items() if used), EARLIEST)
