"""Everything that is said on a monitor's socket, in one file.

A link is AF_UNIX SOCK_SEQPACKET (shim.wire). The client speaks first, and its first message must be `hello`:

    client → monitor                         monitor → client
    ───────────────────────────────────────────────────────────────────────────────────────────────────────────────
    {seq, op: "hello", versions: [1]}        {seq, ok: {version, pod_id, pid}}  or an error and the end of the link
    {seq, op: "setup", …NamespaceRequest}    {seq, ok: PodNamespaces}
    {seq, op: "teardown"}                    {seq, ok: {}}
    {seq, op: "create", …ContainerCreate}    {seq, ok: {pid}}
    {seq, op: "start", id}                   {seq, ok: {started_at_ns}}         error.details: exit_code, reason
    {seq, op: "kill", id, signal, all}       {seq, ok: {}}
    {seq, op: "delete", id}                  {seq, ok: {}}
    {seq, op: "update", id, resources}       {seq, ok: {}}                      resources: linux.resources as OCI spells it
    {seq, op: "exec_sync", …ExecRequest}     {seq, ok: {exit_code, pid, …}}     output inline or in memfds, see ExecResult
    {seq, op: "reopen_log", id}              {seq, ok: {}}
    {seq, op: "resize", id, width, height}   {seq, ok: {}}
    {seq, op: "list"}                        {seq, ok: {containers: [MonitorContainer], namespaces: PodNamespaces | null}}
    {seq, op: "shutdown"}                    {seq, ok: {}}                      refused while a container exists
    {seq, op: "attach", …AttachRequest}      {seq, ok: {}}                      descriptors come with it, as it lists them
    {seq, op: "exec_stream", …ExecRequest}   {seq, ok: {exec}}                  with stdin, stdout, stderr; or without, and the
                                                                                reply brings the terminal's master
    {seq, op: "checkpoint", …CheckpointRequest}  {seq, ok: {}}
    {seq, op: "exec_wait", id, exec}         {seq, ok: {exit_code}}
    {seq, op: "exec_kill", id, exec}         {seq, ok: {}}                      the process with its descendants
                                             {event: "exited", …Exited}         to every client, after the record was written
                                             {event: "oom", …Oom}
                                             {event: "log_lost", …LogLost}

Requests of one link run side by side; replies carry the `seq` of their request and come in the order of completion. An
unknown op is UNIMPLEMENTED and an unknown key is ignored: old monitors meet new daemons. What has to change otherwise gets
a new version, and a monitor serves every version it announces.
"""

from __future__ import annotations

import dataclasses
import typing
from dataclasses import dataclass, field
from typing import Any, TypeVar

from shim.errors import InvalidArgument, WherryError

VERSION = 1
VERSIONS = (1,)
"""Versions this code serves, best first."""

OUTPUT_LIMIT = 16 * 1024 * 1024
"""Bytes kept of each stream of an exec_sync (the CRI's own bound); the rest is read and dropped."""
INLINE_OUTPUT = 16 * 1024
"""Bytes of output that travel inside the reply; more comes in a memfd."""

T = TypeVar("T")


@dataclass(frozen=True, slots=True, kw_only=True)
class IdMap:
    """One line of a uid_map or gid_map (user_namespaces(7))."""

    container_id: int
    host_id: int
    size: int


@dataclass(frozen=True, slots=True, kw_only=True)
class NamespaceRequest:
    """Which namespaces the pod owns; a kind that is not asked for stays the host's."""

    net_pin: str = ""
    """Where the network namespace is pinned, for example /run/netns/wherry-…; "" for the host's network."""
    ipc: bool = False
    uts: bool = False
    pid: bool = False
    """One PID namespace for all containers of the pod; a tiny reaper is its PID 1."""
    uid_maps: list[IdMap] = field(default_factory=list)
    """With gid_maps: the pod gets a user namespace, which owns the others."""
    gid_maps: list[IdMap] = field(default_factory=list)
    hostname: str = ""
    sysctls: dict[str, str] = field(default_factory=dict)
    """Written inside the new namespaces, keys with dots; only those of net and ipc are namespaced."""
    shm_size: int = 64 * 1024 * 1024
    """Bytes of the tmpfs that becomes the pod's /dev/shm; 0 for none. Made only with `ipc`."""
    scope: str = ""
    """The systemd scope that is to hold the pod, as slice:prefix:name; "" without systemd's driver."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PodNamespaces:
    """What `setup` made: OCI namespace type to the path of its pin."""

    paths: dict[str, str] = field(default_factory=dict)
    reaper_pid: int = 0
    """PID 1 of the pod's PID namespace as the host sees it; 0 without one."""
    reaper_start: int = 0
    """Its start time in clock ticks (proc(5)), against reuse of the number."""
    shm: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class RootfsMount:
    """An overlay; `lower` topmost first. Without `upper` it is read-only."""

    lower: list[str]
    upper: str = ""
    work: str = ""
    options: list[str] = field(default_factory=list)


@dataclass(frozen=True, slots=True, kw_only=True)
class ContainerCreate:
    """A bundle to create; config.json is in it."""

    container_id: str
    bundle: str
    state_root: str
    handler: str = ""
    """Absolute path of an OCI runtime binary; "" for the one built in."""
    handler_options: list[str] = field(default_factory=list)
    """Words put before its command."""
    rootfs: RootfsMount | None = None
    terminal: bool = False
    stdin: bool = False
    stdin_once: bool = False
    log_path: str = ""
    log_directory: str = ""
    """A directory above log_path, below which no symbolic link is followed; "": anywhere."""
    systemd_cgroup: bool = False
    alone: str = ""
    """The directory of its v2 cgroup, where one process can make the container and become its init (runtime.launch.alone)."""
    checkpoint: str = ""
    """A folder with "checkpoint", criu's images, to restore the container from; its start has happened then."""
    options: dict[str, bool] = field(default_factory=dict)
    """With `checkpoint`: more of criu's options, by the names of CriuOptions."""


@dataclass(frozen=True, slots=True, kw_only=True)
class CheckpointRequest:
    """Containers to save at one moment, all of which run on afterwards."""

    containers: list[str]
    folders: list[str]
    """For each of them an existing folder: "checkpoint" is made in it, rootfs-diff.tar and deleted.files."""
    options: dict[str, bool] = field(default_factory=dict)
    """criu's options, by the names of CriuOptions."""
    shared_memory: str = ""
    """The pod's /dev/shm, when it is to be saved with them: as devshm-checkpoint.tar beside the folders."""
    timeout_s: float = 0
    """For each step; 0: the monitor's own."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ExecRequest:
    """A process to run in a container and to wait for."""

    container_id: str
    process: dict[str, Any]
    """The OCI process object; what it leaves out of cwd, env, user, capabilities … is taken from the container's own."""
    timeout_s: float = 0
    """0: as long as it takes."""


@dataclass(frozen=True, slots=True, kw_only=True)
class AttachRequest:
    """Somebody who wants to see what a container writes and to be what it reads.

    Descriptors of pipes come with it, for each of stdin, stdout and stderr that is true, in this order. The output ends
    with the container's own; closing the reading end detaches.
    """

    container_id: str
    stdin: bool = False
    stdout: bool = False
    stderr: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class ExecResult:
    """What an exec_sync gave; output beyond OUTPUT_LIMIT was dropped."""

    exit_code: int
    stdout: bytes = b""
    stderr: bytes = b""


@dataclass(frozen=True, slots=True, kw_only=True)
class ExitRecord:
    """The end of a container, as exits/<id>.json keeps it."""

    id: str
    pid: int
    exit_code: int
    """0 to 255; 128 + n for a process that signal n ended."""
    exited_at_ns: int
    oom_killed: bool = False
    started_at_ns: int = 0
    reason: str = ""
    message: str = ""
    """Why it could not start, else empty."""


@dataclass(frozen=True, slots=True, kw_only=True)
class MonitorContainer:
    """A container as its monitor knows it, for recovery."""

    id: str
    pid: int
    status: str
    """creating, created, running or stopped."""
    started_at_ns: int = 0
    exit: ExitRecord | None = None
    log_lost_bytes: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Exited:
    """A container's init ended; its exit record is on disk."""

    container_id: str
    pid: int
    exit_code: int
    signal: int
    """The signal that ended it, or 0."""
    oom_killed: bool
    exited_at_ns: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Oom:
    """The kernel killed a process of the container for memory; init may go on."""

    container_id: str
    count: int
    """Kills so far."""


@dataclass(frozen=True, slots=True, kw_only=True)
class LogLost:
    """Log lines could not be written, and the container was not blocked; told once an episode."""

    container_id: str
    reason: str


EVENTS: dict[str, type[Exited | Oom | LogLost]] = {"exited": Exited, "oom": Oom, "log_lost": LogLost}


class StartFailed(WherryError):  # noqa: N818 - a reply as much as an error
    """The user's process could not be executed. 127: not found, 126: not executable, 128: anything else."""

    code = "UNKNOWN"

    def __init__(self, exit_code: int, reason: str, message: str) -> None:
        super().__init__(message)
        self.exit_code = exit_code
        self.reason = reason
        self.message = message
        self.details = {"exit_code": exit_code, "reason": reason}


def encode(value: Any) -> Any:
    """Give the JSON form of a message value."""
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {item.name: encode(getattr(value, item.name)) for item in dataclasses.fields(value)}
    if isinstance(value, list | tuple):
        return [encode(item) for item in value]
    return value


def decode(kind: type[T], value: Any, where: str = "") -> T:
    """Give the value of `kind` that `value` describes; raise InvalidArgument naming the key. Unknown keys are ignored."""
    if not isinstance(value, dict):
        raise InvalidArgument(f"{where or kind.__name__} must be an object")
    hints = _hints(kind)
    known: dict[str, Any] = {}
    for item in dataclasses.fields(kind):  # type: ignore[arg-type]  # every message is a dataclass
        if item.name in value:
            known[item.name] = _check(hints[item.name], value[item.name], f"{where}{item.name}")
        elif item.default is dataclasses.MISSING and item.default_factory is dataclasses.MISSING:
            raise InvalidArgument(f"{where}{item.name} is missing")
    return kind(**known)


_HINTS: dict[type, dict[str, Any]] = {}


def _hints(kind: type) -> dict[str, Any]:
    if kind not in _HINTS:
        _HINTS[kind] = typing.get_type_hints(kind)
    return _HINTS[kind]


def _check(hint: Any, value: Any, where: str) -> Any:
    origin, arguments = typing.get_origin(hint), typing.get_args(hint)
    if type(None) in arguments:
        return None if value is None else _check(arguments[0], value, where)
    if origin is list and isinstance(value, list):
        return [_check(arguments[0], item, f"{where}[{index}]") for index, item in enumerate(value)]
    if origin is dict and isinstance(value, dict):
        return {
            str(key): item if arguments[1] is Any else _check(arguments[1], item, f"{where}.{key}")
            for key, item in value.items()
        }
    if origin is None and dataclasses.is_dataclass(hint):
        return decode(typing.cast("type[Any]", hint), value, f"{where}.")
    if origin is None and (type(value) is hint or (hint is float and type(value) is int)):
        if hint is str and "\0" in value:
            raise InvalidArgument(f"{where} contains a zero byte")
        return value
    raise InvalidArgument(f"{where} must be {getattr(origin or hint, '__name__', hint)}, not {type(value).__name__}")
