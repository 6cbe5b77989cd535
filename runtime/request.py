"""What callers ask of the runtime, as frozen values (see runtime.api)."""

from __future__ import annotations

from runtime.record import Record

TYPE_CHECKING = False
if TYPE_CHECKING:
    from runtime.spec.model import Process, Spec

Stdio = tuple[int, int, int]
"""Descriptors of the caller that become 0, 1 and 2 of the process."""


class RootfsMount(Record):
    """An overlay that init mounts first, inside the container's own mount namespace, at <bundle>/<spec.root.path>.

    `lower` is topmost first, absolute paths; without `upper` and `work` the overlay is read-only.
    """

    lower: tuple[str, ...]
    upper: str | None = None
    work: str | None = None
    options: tuple[str, ...] = ()


class CreateRequest(Record):
    """Everything create() needs. Without `spec`, <bundle>/config.json is parsed; without `stdio`, 0, 1 and 2 are inherited.

    `console_socket` is a connected unix socket that receives the pty master when the process wants a terminal. A container
    `without_cgroups` stays in the cgroup of its creator.
    """

    container_id: str
    state_root: str
    bundle: str
    spec: Spec | None = None
    rootfs: RootfsMount | None = None
    stdio: Stdio | None = None
    console_socket: int | None = None
    pid_file: str | None = None
    preserve_fds: int = 0
    no_pivot: bool = False
    no_new_keyring: bool = False
    systemd_cgroup: bool = False
    rootless: str = "auto"
    without_cgroups: bool = False
    config: str = ""
    """Where the document lies, when that is not <bundle>/config.json."""
    notify: bool = False
    """Whether the state directory gets a folder for the container's notification socket."""


class ExecRequest(Record):
    """One more process in a running container. `cgroup` is a sub-cgroup's path relative to the container's cgroup."""

    container_id: str
    state_root: str
    process: Process
    stdio: Stdio | None = None
    console_socket: int | None = None
    pid_file: str | None = None
    preserve_fds: int = 0
    cgroup: str | None = None
    ignore_paused: bool = False
    no_new_privs: bool | None = None
    apparmor: str | None = None
    process_label: str | None = None
