"""What outlives the monitor about its containers: orders to create (for clean-up) and exit records (for wherryd)."""

from __future__ import annotations

import os

from runtime.kernel import pidfd
from shim.errors import WherryError
from shim.monitor.files import read_json, remove, write_json
from shim.monitor.protocol import ContainerCreate, ExitRecord, decode, encode

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator


class ExitStore:
    """The folders `exits` and `containers` of a pod's state directory."""

    def __init__(self, state_dir: str) -> None:
        self._exits = os.path.join(state_dir, "exits")
        self._orders = os.path.join(state_dir, "containers")
        for folder in (self._exits, self._orders):
            os.makedirs(folder, 0o700, exist_ok=True)

    def save(self, record: ExitRecord) -> None:
        """Write exits/<id>.json, atomically; raise OSError."""
        write_json(os.path.join(self._exits, f"{record.id}.json"), encode(record))

    def find(self, container_id: str) -> ExitRecord | None:
        """Give the record of a container's end, if it was written."""
        value = read_json(os.path.join(self._exits, f"{container_id}.json"))
        return None if value is None else decode(ExitRecord, value)

    def remember(self, request: ContainerCreate, pid: int, started_at_ns: int) -> None:
        """Write the order, so that a later monitor of this pod can find and delete the container."""
        found = pidfd.stat(pid)
        value = {
            "request": encode(request),
            "pid": pid,
            "pid_start": found[1] if found else 0,
            "started_at_ns": started_at_ns,
        }
        write_json(os.path.join(self._orders, f"{request.container_id}.json"), value)

    def remembered(self) -> Iterator[tuple[ContainerCreate, int, int, int]]:
        """Give (order, pid, start time of the process, started_at_ns) of each container an earlier monitor left."""
        for name in sorted(os.listdir(self._orders)):
            value = read_json(os.path.join(self._orders, name))
            if isinstance(value, dict) and name.endswith(".json"):
                try:
                    order = decode(ContainerCreate, value.get("request"))
                    yield order, int(value["pid"]), int(value["pid_start"]), int(value["started_at_ns"])
                except (WherryError, KeyError, TypeError, ValueError):
                    continue

    def forget(self, container_id: str) -> None:
        """Remove both files of a container."""
        for folder in (self._exits, self._orders):
            remove(os.path.join(folder, f"{container_id}.json"))
