"""What is known of a container: <state root>/<id>/state.json, and the status derived from it and the kernel.

The file is replaced atomically and written before any process of the container may run, so that `delete` finds whatever a
killed creator left. The status is never stored: it follows from the process (its id and its start time, so that a reused
number is not mistaken for it), the gate and the freezer.
"""

from __future__ import annotations

import os

from runtime import jsonlite
from runtime.errors import ExistsFault, NotFoundFault, RuntimeFault, StateFault
from runtime.kernel import pidfd
from runtime.record import Record, as_dict, replace
from runtime.spec.lasting import Hook, Hooks, MemoryPolicy, Pairs, Personality

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

STATE_FILE = "state.json"
GATE = "gate"
"""The socket init waits at; it has this name from the moment the container is created until it is started."""
CLOSED_GATE = ".gate"
"""The socket's name while init is still being set up."""
HELD_GATE = "gate.paused"
"""Its name while a created container is paused: init would not answer."""
FILTER_FILE = "seccomp.bpf"
NOTIFY_FOLDER = "notify"


class ContainerState(Record):
    """The state of a container. The first nine fields are what `state` prints; the rest is the runtime's own.

    `start_time` and `creator_start` are clock ticks since boot (proc(5)); `namespaces` are the types of those the container
    does not share with the runtime; `cgroup` is what runtime.apply.cgroup needs to open it again;
    with `spares_cgroups` it may lack what the runtime could not write to. `unit` is the scope (name, slice, whether of a user's
    manager) when systemd made the cgroup.
    """

    oci_version: str
    id: str
    status: str = "creating"
    pid: int = 0
    bundle: str
    rootfs: str
    created: str
    owner: str = ""
    annotations: Pairs = ()
    start_time: int = 0
    creator_pid: int = 0
    creator_start: int = 0
    namespaces: tuple[str, ...] = ()
    cgroup: Pairs = ()
    hooks: Hooks = Hooks()
    seccomp_flags: tuple[str, ...] | None = None
    seccomp_listener: tuple[str, str] | None = None
    personality: Personality | None = None
    memory_policy: MemoryPolicy | None = None
    spares_cgroups: bool | None = None
    config: str | None = None
    resctrl: tuple[str, ...] | None = None
    """The resctrl group, and the directories made for it."""
    mounts_kept: int | None = None
    """Without a mount namespace: how many mounts lay at the root before the container's own."""
    unit: tuple[str, str, bool] | None = None

    def public(self) -> dict[str, Any]:
        """Give the state as runtime-spec and runc's `state` spell it."""
        return {
            "ociVersion": self.oci_version,
            "id": self.id,
            "pid": self.pid if self.status != "stopped" else 0,
            "status": self.status,
            "bundle": self.bundle,
            "rootfs": self.rootfs,
            "created": self.created,
            "annotations": dict(self.annotations),
            "owner": self.owner,
        }


def container_dir(state_root: str, container_id: str) -> str:
    """Give the container's directory; raise StateFault for an id that is no plain name."""
    plain = container_id.replace("_", "a").replace("-", "a").replace("+", "a").replace(".", "a")
    if not plain.isascii() or not plain.isalnum() or container_id in (".", ".."):
        why = "invalid character in it: use letters, digits, '_', '-', '+' and '.'"
        raise StateFault(f"invalid container ID format {container_id!r}: {why}")
    return os.path.join(state_root, container_id)


def reserve(state_root: str, container_id: str) -> str:
    """Make the container's directory, which also takes its id; raise ExistsFault."""
    folder = container_dir(state_root, container_id)
    try:
        try:
            os.mkdir(folder, 0o711)
        except FileNotFoundError:
            os.makedirs(state_root, 0o711, exist_ok=True)
            os.mkdir(folder, 0o711)
    except FileExistsError:
        raise ExistsFault(f"container with given ID already exists: {container_id!r}: delete it or choose another id") from None
    except OSError as error:
        raise RuntimeFault.from_os(error, "make the state directory") from error
    return folder


def save(state_root: str, state: ContainerState) -> None:
    """Replace the container's record, atomically."""
    folder = container_dir(state_root, state.id)
    record = as_dict(state)
    del record["status"]
    for name in _RARE:
        value = record.pop(name)
        if value is not None:
            record[name] = _plain(value)
    record["annotations"] = dict(state.annotations)
    record["cgroup"] = dict(state.cgroup)
    record["hooks"] = {kind: [as_dict(hook) for hook in hooks] for kind, hooks in as_dict(state.hooks).items() if hooks}
    scratch = os.path.join(folder, f".{STATE_FILE}")
    try:
        write_file(scratch, jsonlite.dumps(record).encode())
        os.rename(scratch, os.path.join(folder, STATE_FILE))
    except OSError as error:
        raise RuntimeFault.from_os(error, "save the container's state") from error


def _plain(value: object) -> object:
    if isinstance(value, tuple):
        return list(value)
    return as_dict(value) if isinstance(value, Record) else value


def write_file(path: str, data: bytes) -> None:
    """Make all of `data` the content of a file of root's alone, or raise OSError.

    write(2) takes a part of it where the file system has no room for more, and says so only when it is asked again.
    """
    fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
    try:
        view = memoryview(data)
        while view:
            view = view[os.write(fd, view) :]
    finally:
        os.close(fd)


def read_file(path: str) -> bytes:
    """Give a whole file's content."""
    fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        parts = []
        while part := os.read(fd, 1 << 16):
            parts.append(part)
        return b"".join(parts)
    finally:
        os.close(fd)


def read_record(folder: str, container_id: str) -> ContainerState:
    """Give what was saved, its status unknown; raise NotFoundFault or StateFault."""
    try:
        text = read_file(os.path.join(folder, STATE_FILE))
    except (FileNotFoundError, NotADirectoryError):
        if os.path.isdir(folder):  # a creator died between the directory and its first save
            return ContainerState(oci_version="", id=container_id, bundle="", rootfs="", created="")
        raise NotFoundFault(f"container does not exist: {container_id!r}") from None
    try:
        record = jsonlite.loads(text)
        record["annotations"] = tuple(record["annotations"].items())
        record["cgroup"] = tuple(record["cgroup"].items())
        record["namespaces"] = tuple(record["namespaces"])
        if record["seccomp_flags"] is not None:
            record["seccomp_flags"] = tuple(record["seccomp_flags"])
        for name, kind in _RARE.items():
            if record.get(name) is not None:
                record[name] = kind(record[name])
        record["hooks"] = Hooks(**{kind: tuple(_hook(hook) for hook in hooks) for kind, hooks in record["hooks"].items()})
        return ContainerState(**record)
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        raise StateFault(f"the state of container {container_id!r} cannot be read ({error}): delete it with --force") from error


def _tuples(value: dict[str, Any]) -> dict[str, Any]:
    return {name: tuple(part) if isinstance(part, list) else part for name, part in value.items()}


_RARE: dict[str, Callable[[Any], Any]] = {
    "seccomp_listener": tuple,
    "personality": lambda value: Personality(**_tuples(value)),
    "memory_policy": lambda value: MemoryPolicy(**_tuples(value)),
    "spares_cgroups": bool,
    "config": str,
    "resctrl": tuple,
    "mounts_kept": int,
    "unit": tuple,
}
"""Fields most containers do not have, and how each is read back."""


def _hook(value: dict[str, Any]) -> Hook:
    return Hook(path=value["path"], args=tuple(value["args"]), env=tuple(value["env"]), timeout=value["timeout"])


def load(state_root: str, container_id: str) -> ContainerState:
    """Give the container's record with its present status; raise NotFoundFault or StateFault."""
    return present(state_root, read_record(container_dir(state_root, container_id), container_id))


def present(state_root: str, record: ContainerState) -> ContainerState:
    """Give a record that was read before, and never changes once the container is created, with its present status."""
    return replace(record, status=_status(container_dir(state_root, record.id), record))


def load_all(state_root: str) -> list[ContainerState]:
    """Give the state of every container below `state_root`, sorted by id, leaving out what cannot be read."""
    try:
        names = sorted(os.listdir(state_root))
    except FileNotFoundError:
        return []
    found = []
    for name in names:
        try:
            found.append(load(state_root, name))
        except RuntimeFault:
            continue
    return found


def alive(pid: int, start_time: int) -> bool:
    """Tell whether the process that started at `start_time` still runs (a zombie does not)."""
    found = pidfd.stat(pid) if pid > 0 else None
    return found is not None and found[1] == start_time and found[0] not in "ZX"


def _status(folder: str, record: ContainerState) -> str:
    if not alive(record.pid, record.start_time):
        creating = record.pid == 0 and alive(record.creator_pid, record.creator_start)
        return "creating" if creating else "stopped"
    if os.path.exists(os.path.join(folder, CLOSED_GATE)):
        return "creating"
    if os.path.exists(os.path.join(folder, HELD_GATE)) or (record.cgroup and _frozen(record)):
        return "paused"
    return "created" if os.path.exists(os.path.join(folder, GATE)) and _waits(folder) else "running"


def _waits(folder: str) -> bool:
    from runtime.launch.gate import is_waiting

    return is_waiting(folder)


def _frozen(record: ContainerState) -> bool:
    from runtime.apply.cgroup import from_paths

    return from_paths(record.cgroup).frozen()
