"""The CDI files of this node, read once and again when they change."""

from __future__ import annotations

import os
import threading
from typing import TYPE_CHECKING, Any, NamedTuple

from shim.container.spec.regular import read_regular
from shim.errors import FailedPrecondition, InvalidArgument

if TYPE_CHECKING:
    from collections.abc import Sequence

    from shim.cdi.model import Device, Document

Json = dict[str, Any]
Signature = tuple[int, int, int, int]

MOST_BYTES = 4 << 20
"""Bytes of a CDI file."""
SUFFIXES = (".json", ".yaml")


class View(NamedTuple):
    """What the files said when they were last read: devices with the priority of their file, and what is wrong."""

    devices: dict[str, tuple[int, Document, Device]]
    problems: dict[str, str]


class Cdi:
    """The devices; a later directory wins over an earlier one. May be used in several threads, but not on the event loop."""

    def __init__(self, spec_dirs: Sequence[str]) -> None:
        self._dirs = tuple(spec_dirs)
        self._lock = threading.Lock()
        self._files: dict[str, tuple[Signature, Document | str]] = {}
        self._view = View({}, {})

    def inject(self, spec: Json, names: Sequence[str]) -> None:
        """Give a container's config.json what these devices need, in their order.

        Raises FailedPrecondition naming all devices that no file describes, or the node that the host has not got.
        """
        from shim.cdi import edits  # noqa: PLC0415 - most nodes have no such devices

        with self._lock:
            self._refresh()
            view = self._view
        missing = [name for name in names if name not in view.devices]
        if missing:
            problems = "".join(f"; {problem}" for problem in view.problems.values())
            raise FailedPrecondition(f"unresolvable CDI devices {', '.join(missing)}{problems}")
        wanted = []
        used = set()
        for _, document, device in (view.devices[name] for name in names):
            if document.path not in used:
                wanted.append(document.edits)
            used.add(document.path)
            wanted.append(device.edits)
        edits.apply(spec, wanted)

    def describe(self) -> Json:
        """Give, for people, what was found when a device was last asked for; never waits."""
        view = self._view
        devices = {name: document.path for name, (_, document, _) in sorted(view.devices.items())}
        return {"specDirs": self._dirs, "devices": devices, "problems": list(view.problems.values())}

    def _refresh(self) -> None:
        """Read what is new or has changed; a few stat(2) when nothing has."""
        problems: dict[str, str] = {}
        seen: dict[str, tuple[int, Signature]] = {}
        for priority, directory in enumerate(self._dirs):
            try:
                seen |= {path: (priority, signature) for path, signature in _files(directory)}
            except OSError as error:
                problems[directory] = f"CDI directory {directory} cannot be listed: {error.strerror}"
        known = {path: entry[0] for path, entry in self._files.items()}
        if not problems and known == {path: signature for path, (_, signature) in seen.items()}:
            return
        self._files = {
            path: self._files[path] if known.get(path) == signature else (signature, _read(path))
            for path, (_, signature) in seen.items()
        }
        view = View({}, problems)
        for path, (priority, _) in seen.items():
            read = self._files[path][1]
            if isinstance(read, str):
                problems[path] = read
            else:
                _add(view, priority, read)
        for name in [name for name in view.devices if name in problems]:
            del view.devices[name]
        self._view = view


def _add(view: View, priority: int, document: Document) -> None:
    """Add a file's devices; two of the same name and priority cancel each other, unless a higher one comes."""
    for device in document.devices:
        old = view.devices.get(device.name)
        if old is not None and old[0] == priority:
            view.problems[device.name] = f"CDI device {device.name} is described by {old[1].path} and by {document.path}"
        else:
            view.problems.pop(device.name, None)
            view.devices[device.name] = (priority, document, device)


def _files(directory: str) -> list[tuple[str, Signature]]:
    """Give the files of a directory with what tells a change; none when it does not exist."""
    try:
        with os.scandir(directory) as entries:
            found = sorted((entry for entry in entries if entry.name.endswith(SUFFIXES)), key=lambda entry: entry.name)
            return [(entry.path, _signature(entry.stat())) for entry in found if entry.is_file()]
    except FileNotFoundError:
        return []


def _signature(status: os.stat_result) -> Signature:
    return status.st_dev, status.st_ino, status.st_mtime_ns, status.st_size


def _read(path: str) -> Document | str:
    """Give the document, or what is wrong with it: one bad file must not keep the others' devices from anybody."""
    from shim.cdi.document import parse  # noqa: PLC0415 - most nodes have no such files

    try:
        data = read_regular(path, MOST_BYTES, follow=True)
        if data is None or len(data) > MOST_BYTES:
            return f"CDI file {path} is no regular file of at most {MOST_BYTES} bytes"
        return parse(data, path)
    except InvalidArgument as error:
        return str(error)
    except OSError as error:
        return f"CDI file {path} cannot be read: {error.strerror}"
