"""Give a container's seccomp listener to the agent that answers for its system calls (config-linux.md "Seccomp")."""

from __future__ import annotations

import _socket
import os
import sys

from runtime.apply.faults import Step
from runtime.errors import RuntimeFault
from runtime.jsonlite import dumps
from runtime.kernel import pidfd

TYPE_CHECKING = False
if TYPE_CHECKING:
    from runtime.state import ContainerState


def hand_over(state: ContainerState, pid: int, number: int, status: str) -> None:
    """Take descriptor `number` out of a process and send it, with the container's state, to the agent; raise RuntimeFault."""
    path, metadata = state.seccomp_listener or ("", "")
    with Step("take the seccomp listener"):
        process = os.pidfd_open(pid)
        try:
            listener = pidfd.getfd(process, number)
        finally:
            os.close(process)
    agent = _socket.socket(_socket.AF_UNIX, _socket.SOCK_STREAM | _socket.SOCK_CLOEXEC)
    rights = [(_socket.SOL_SOCKET, _socket.SCM_RIGHTS, listener.to_bytes(4, sys.byteorder))]
    try:
        agent.connect(os.fsencode(path))
        agent.sendmsg([_message(state, pid, metadata, status).encode("utf-8", "surrogateescape")], rights)
    except OSError as error:
        raise RuntimeFault.from_os(error, "failed to connect with seccomp agent", path=path) from error
    finally:
        os.close(listener)
        agent.close()


def _message(state: ContainerState, pid: int, metadata: str, status: str) -> str:
    """Give the container process state of the specification."""
    own = {
        "ociVersion": state.oci_version,
        "id": state.id,
        "status": status,
        "pid": state.pid,
        "bundle": state.bundle,
        "annotations": dict(state.annotations),
    }
    return dumps({"ociVersion": state.oci_version, "fds": ["seccompFd"], "pid": pid, "metadata": metadata, "state": own})
