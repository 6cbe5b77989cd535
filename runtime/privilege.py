"""Which rights the caller has on this host: root's, those of a user namespace's root, or a plain user's."""

from __future__ import annotations

import os

from runtime.record import Record

_WHOLE = ("0", "0", "4294967295")
"""The one line of uid_map in the host's own user namespace (user_namespaces(7))."""


class Standing(Record):
    """What the runtime may do here.

    `user`: it runs with an effective uid other than 0, so that only a user namespace of the container's own gives it any right.
    `nested`: it runs in a user namespace, where device nodes cannot be made. `spares_cgroups`: hierarchies it may not write to
    are left out, as long as nothing is asked of them.
    """

    user: bool = False
    nested: bool = False
    spares_cgroups: bool = False


def standing(rootless: str) -> Standing:
    """Look at this process; `rootless` is the option of that name: true, false, or auto, which spares cgroups but for root."""
    user = os.geteuid() != 0
    nested = not user and in_user_namespace()
    return Standing(user=user, nested=nested, spares_cgroups=rootless == "true" or (rootless != "false" and (user or nested)))


def in_user_namespace() -> bool:
    """Tell whether this process is in another user namespace than the host's; a kernel without them has only that one."""
    try:
        fd = os.open("/proc/self/uid_map", os.O_RDONLY | os.O_CLOEXEC)
    except OSError:
        return False
    try:
        return tuple(os.read(fd, 256).decode().split()) != _WHOLE
    finally:
        os.close(fd)


def has_own_runtime_folder() -> bool:
    """Tell whether state belongs below XDG_RUNTIME_DIR rather than /run: for a user, and for one who is root of a namespace."""
    if os.geteuid() != 0:
        return True
    return in_user_namespace() and os.environ.get("USER") != "root"
