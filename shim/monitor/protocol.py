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

from runtime.record import Record, as_dict
from shim.errors import InvalidArgument, WherryError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any, TypeVar

    T = TypeVar("T", bound=Record)

VERSION = 1
VERSIONS = (1,)
"""Versions this code serves, best first."""

OUTPUT_LIMIT = 16 * 1024 * 1024
"""Bytes kept of each stream of an exec_sync (the CRI's own bound); the rest is read and dropped."""
INLINE_OUTPUT = 16 * 1024
"""Bytes of output that travel inside the reply; more comes in a memfd."""

_NONE: dict[str, Any] = {}
"""The mapping of a message that names nothing; a message is never written to."""


class IdMap(Record):
    """One line of a uid_map or gid_map (user_namespaces(7))."""

    container_id: int
    host_id: int
    size: int


class NamespaceRequest(Record):
    """Which namespaces the pod owns; a kind that is not asked for stays the host's."""

    net_pin: str = ""
    """Where the network namespace is pinned, for example /run/netns/wherry-…; "" for the host's network."""
    ipc: bool = False
    uts: bool = False
    pid: bool = False
    """One PID namespace for all containers of the pod; a tiny reaper is its PID 1."""
    uid_maps: tuple[IdMap, ...] = ()
    """With gid_maps: the pod gets a user namespace, which owns the others."""
    gid_maps: tuple[IdMap, ...] = ()
    hostname: str = ""
    sysctls: dict[str, str] = _NONE
    """Written inside the new namespaces, keys with dots; only those of net and ipc are namespaced."""
    shm_size: int = 64 * 1024 * 1024
    """Bytes of the tmpfs that becomes the pod's /dev/shm; 0 for none. Made only with `ipc`."""
    scope: str = ""
    """The systemd scope that is to hold the pod, as slice:prefix:name; "" without systemd's driver."""


class PodNamespaces(Record):
    """What `setup` made: OCI namespace type to the path of its pin."""

    paths: dict[str, str] = _NONE
    reaper_pid: int = 0
    """PID 1 of the pod's PID namespace as the host sees it; 0 without one."""
    reaper_start: int = 0
    """Its start time in clock ticks (proc(5)), against reuse of the number."""
    shm: str = ""


class RootfsMount(Record):
    """An overlay; `lower` topmost first. Without `upper` it is read-only."""

    lower: tuple[str, ...]
    upper: str = ""
    work: str = ""
    options: tuple[str, ...] = ()


class ContainerCreate(Record):
    """A bundle to create; config.json is in it."""

    container_id: str
    bundle: str
    state_root: str
    handler: str = ""
    """Absolute path of an OCI runtime binary; "" for the one built in."""
    handler_options: tuple[str, ...] = ()
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
    options: dict[str, bool] = _NONE
    """With `checkpoint`: more of criu's options, by the names of CriuOptions."""


class CheckpointRequest(Record):
    """Containers to save at one moment, all of which run on afterwards."""

    containers: tuple[str, ...]
    folders: tuple[str, ...]
    """For each of them an existing folder: "checkpoint" is made in it, rootfs-diff.tar and deleted.files."""
    options: dict[str, bool] = _NONE
    """criu's options, by the names of CriuOptions."""
    shared_memory: str = ""
    """The pod's /dev/shm, when it is to be saved with them: as devshm-checkpoint.tar beside the folders."""
    timeout_s: float = 0
    """For each step; 0: the monitor's own."""


class ExecRequest(Record):
    """A process to run in a container and to wait for."""

    container_id: str
    process: dict[str, Any]
    """The OCI process object; what it leaves out of cwd, env, user, capabilities … is taken from the container's own."""
    timeout_s: float = 0
    """0: as long as it takes."""


class AttachRequest(Record):
    """Somebody who wants to see what a container writes and to be what it reads.

    Descriptors of pipes come with it, for each of stdin, stdout and stderr that is true, in this order. The output ends
    with the container's own; closing the reading end detaches.
    """

    container_id: str
    stdin: bool = False
    stdout: bool = False
    stderr: bool = False


class ExecResult(Record):
    """What an exec_sync gave; output beyond OUTPUT_LIMIT was dropped."""

    exit_code: int
    stdout: bytes = b""
    stderr: bytes = b""


class ExitRecord(Record):
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


class MonitorContainer(Record):
    """A container as its monitor knows it, for recovery."""

    id: str
    pid: int
    status: str
    """creating, created, running or stopped."""
    started_at_ns: int = 0
    exit: ExitRecord | None = None
    log_lost_bytes: int = 0


class Exited(Record):
    """A container's init ended; its exit record is on disk."""

    container_id: str
    pid: int
    exit_code: int
    signal: int
    """The signal that ended it, or 0."""
    oom_killed: bool
    exited_at_ns: int


class Oom(Record):
    """The kernel killed a process of the container for memory; init may go on."""

    container_id: str
    count: int
    """Kills so far."""


class LogLost(Record):
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
    if isinstance(value, Record):
        return {name: encode(item) for name, item in as_dict(value).items()}
    if isinstance(value, list | tuple):
        return [encode(item) for item in value]
    return value


def decode(kind: type[T], value: Any, where: str = "") -> T:
    """Give the value of `kind` that `value` describes; raise InvalidArgument naming the key. Unknown keys are ignored."""
    if not isinstance(value, dict):
        raise InvalidArgument(f"{where or kind.__name__} must be an object")
    known: dict[str, Any] = {}
    for name, default in kind._fields_.items():
        if name in value:
            known[name] = _reader(kind.__annotations__[name])(value[name], where + name)
        elif default is None:
            raise InvalidArgument(f"{where}{name} is missing")
    return kind(**known)


_READERS: dict[str, Callable[[Any, str], Any]] = {}


def _reader(hint: str) -> Callable[[Any, str], Any]:
    """Give the function that reads what an annotation of a message says; they are few, and read without `typing`."""
    reader = _READERS.get(hint)
    if reader is None:
        reader = _READERS[hint] = _make_reader(hint)
    return reader


def _make_reader(hint: str) -> Callable[[Any, str], Any]:
    if hint == "Any":
        return lambda value, _where: value
    if hint.endswith(" | None"):
        some = _reader(hint.removesuffix(" | None"))
        return lambda value, where: None if value is None else some(value, where)
    outer, _, inner = hint.removesuffix("]").partition("[")
    if outer == "tuple":
        item = _reader(inner.removesuffix(", ..."))
        return lambda value, where: tuple(item(one, f"{where}[{at}]") for at, one in enumerate(_as(list, value, where)))
    if outer == "dict":
        item = _reader(inner.removeprefix("str, "))
        return lambda value, where: {str(key): item(one, f"{where}.{key}") for key, one in _as(dict, value, where).items()}
    kind = _PLAIN.get(hint)
    if kind is not None:
        return lambda value, where: _as(kind, value, where)
    message = globals()[hint]
    return lambda value, where: decode(message, value, f"{where}.")


_PLAIN: dict[str, type] = {"str": str, "int": int, "float": float, "bool": bool, "bytes": bytes}


def _as(kind: type, value: Any, where: str) -> Any:
    if type(value) is not kind and not (kind is float and type(value) is int):
        raise InvalidArgument(f"{where} must be {kind.__name__}, not {type(value).__name__}")
    if isinstance(value, str) and "\0" in value:
        raise InvalidArgument(f"{where} contains a zero byte")
    return value
