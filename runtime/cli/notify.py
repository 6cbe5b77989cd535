"""NOTIFY_SOCKET: the container's word that it is ready goes on to the service manager (sd_notify(3)), as with runc.

The container gets a socket of its own, in its state directory, below /run/notify. Only READY= is passed on, with the process
to watch and a barrier: what else a container says is not for the host.
"""

from __future__ import annotations

import os
import select
import sys

from runtime.errors import RuntimeFault
from runtime.kernel import pidfd
from runtime.launch.gate import by_short_name
from runtime.record import replace
from runtime.spec.model import Mount
from runtime.state import NOTIFY_FOLDER, container_dir

TYPE_CHECKING = False
if TYPE_CHECKING:
    import socket as _socket

    from runtime.request import CreateRequest
else:
    import _socket

_INSIDE = "/run/notify"
_NAME = "notify.sock"
_LARGEST = 4096
_BARRIER_MS = 30_000
"""How long the service manager may take to read what it was told."""


def with_notify(request: CreateRequest) -> CreateRequest:
    """Give the request of a container that finds its socket's folder below /run/notify."""
    spec = request.spec
    if spec is None or spec.process is None:
        return request
    folder = os.path.join(container_dir(request.state_root, request.container_id), NOTIFY_FOLDER)
    mount = Mount(destination=_INSIDE, source=folder, options=("bind", "nosuid", "noexec", "nodev", "ro"))
    process = replace(spec.process, env=(*spec.process.env, f"NOTIFY_SOCKET={_INSIDE}/{_NAME}"))
    return replace(request, spec=replace(spec, mounts=(*spec.mounts, mount), process=process), notify=True)


def listen(state_root: str, container_id: str, main_pid: int) -> NotifySocket | None:
    """Give the socket of a container that was created with a folder for it, to be told to NOTIFY_SOCKET; None without one."""
    host = os.environ.get("NOTIFY_SOCKET")
    folder = os.path.join(container_dir(state_root, container_id), NOTIFY_FOLDER)
    return NotifySocket(folder, host, main_pid) if host and os.path.isdir(folder) else None


class NotifySocket:
    """Where one container says that it is ready; `take` what came when `fileno` is readable."""

    def __init__(self, folder: str, host: str, main_pid: int) -> None:
        self._host = "\0" + host[1:] if host.startswith("@") else host
        self._main_pid = main_pid
        self._socket = _socket.socket(_socket.AF_UNIX, _socket.SOCK_DGRAM | _socket.SOCK_CLOEXEC | _socket.SOCK_NONBLOCK)
        try:
            by_short_name(folder, _NAME, self._socket.bind)
            os.chmod(os.path.join(folder, _NAME), 0o777)  # noqa: S103 - the container may run as anybody
        except OSError as error:
            self._socket.close()
            raise RuntimeFault.from_os(error, "make the container's notification socket") from error

    def fileno(self) -> int:
        """Give the descriptor to wait on."""
        return self._socket.fileno()

    def take(self) -> bool:
        """Read what came and pass a READY= on; tell whether there is more to wait for."""
        try:
            said = self._socket.recv(_LARGEST)
        except BlockingIOError:
            return True
        for line in said.split(b"\n"):
            if line.startswith(b"READY="):
                self._tell(line)
                return False
        return True

    def wait(self, pid: int) -> None:
        """Return when the container is ready, or its process has ended."""
        end = pidfd.open_number(pid)
        if end is None:
            return
        try:
            poll = select.poll()
            poll.register(end, select.POLLIN)
            poll.register(self.fileno(), select.POLLIN)
            while (ready := {fd for fd, _ in poll.poll()}) and (self.fileno() not in ready or self.take()):
                if end in ready:
                    return
        finally:
            os.close(end)

    def _tell(self, ready: bytes) -> None:
        reader, writer = os.pipe2(os.O_CLOEXEC)
        host = _socket.socket(_socket.AF_UNIX, _socket.SOCK_DGRAM | _socket.SOCK_CLOEXEC)
        try:
            host.connect(os.fsencode(self._host))
            host.send(ready + b"\n")
            host.send(b"MAINPID=%d\n" % self._main_pid)
            rights = writer.to_bytes(4, sys.byteorder)
            host.sendmsg([b"BARRIER=1"], [(_socket.SOL_SOCKET, _socket.SCM_RIGHTS, rights)])
        except OSError as error:
            os.close(reader)
            raise RuntimeFault.from_os(error, "notify the service manager", path=self._host) from error
        finally:
            host.close()
            os.close(writer)
        poll = select.poll()  # the other side closes the pipe once it has read everything before (sd_notify_barrier(3))
        poll.register(reader, 0)
        poll.poll(_BARRIER_MS)
        os.close(reader)

    def close(self) -> None:
        """Stop listening."""
        self._socket.close()
