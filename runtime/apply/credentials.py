"""Take the ids, capability sets and owner of the standard streams of the user's process (credentials(7), capabilities(7))."""

from __future__ import annotations

import errno
import os

from runtime.apply.faults import Step
from runtime.kernel import capability, prctl

TYPE_CHECKING = False
if TYPE_CHECKING:
    from runtime.plan.process import CapabilityPlan
    from runtime.spec.model import User

_DEFAULT_UMASK = 0o022
_PASSWD_LIMIT = 1 << 20


def take_ids(user: User, capabilities: CapabilityPlan) -> None:
    """Drop the bounding set and change groups, gid and uid, keeping the permitted set for what is still to be done."""
    with Step("drop the bounding set"):
        for number in range(len(capability.NAMES)):
            if not capabilities.bounding >> number & 1:
                try:
                    prctl.drop_bounding(number)
                except OSError as error:
                    if error.errno == errno.EINVAL:
                        break  # beyond the last capability of this kernel
                    raise
    os.umask(_DEFAULT_UMASK if user.umask is None else user.umask)
    with Step("keep capabilities across the change of ids"):
        prctl.set_keep_capabilities(enabled=True)
    with Step(f"set the additional groups {list(user.additional_gids)}"):
        _set_groups(user.additional_gids)
    with Step(f"set the gid {user.gid}"):
        os.setresgid(user.gid, user.gid, user.gid)
    with Step(f"set the uid {user.uid}"):
        os.setresuid(user.uid, user.uid, user.uid)
    prctl.set_keep_capabilities(enabled=False)
    if user.uid:
        permitted = capability.capget()[1]
        capability.capset(permitted, permitted, 0)


def _set_groups(groups: tuple[int, ...]) -> None:
    try:
        os.setgroups(groups)
    except PermissionError:
        if groups or not _groups_denied():
            raise


def _groups_denied() -> bool:
    """Tell whether this user namespace was made without the right to drop groups (user_namespaces(7): setgroups)."""
    try:
        with open("/proc/self/setgroups", "rb") as file:
            return file.read().strip() == b"deny"
    except OSError:
        return False


def take_capabilities(plan: CapabilityPlan) -> None:
    """Set the effective, permitted and inheritable sets, then the ambient one.

    What is ambient but not permitted and inheritable as well cannot be raised (capabilities(7)), and is left out as every
    runtime does: `runc spec` itself writes such documents.
    """
    with Step("set the capabilities"):
        prctl.clear_ambient()
        capability.capset(plan.effective, plan.permitted, plan.inheritable)
        ambient = plan.ambient & plan.permitted & plan.inheritable
        for number in range(len(capability.NAMES)):
            if ambient >> number & 1:
                prctl.raise_ambient(number)


def give_stdio(uid: int) -> None:
    """Give 0, 1 and 2 to the user, so that /dev/stdout and its like can be opened again; the null device stays root's."""
    null = os.makedev(1, 3)
    for fd in (0, 1, 2):
        try:
            status = os.fstat(fd)
            if status.st_uid != uid and status.st_rdev != null:
                os.fchown(fd, uid, status.st_gid)
        except OSError as error:
            if error.errno not in (errno.EINVAL, errno.EPERM, errno.EROFS, errno.EBADF):
                raise


def home_of(uid: int) -> str:
    """Give the home directory /etc/passwd (the container's, by now) has for `uid`, or "/"."""
    try:
        fd = os.open("/etc/passwd", os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
    except OSError:
        return "/"
    try:
        lines = os.read(fd, _PASSWD_LIMIT).split(b"\n")
    except OSError:
        return "/"
    finally:
        os.close(fd)
    wanted = str(uid).encode()
    for line in lines:
        fields = line.split(b":")
        if len(fields) > 5 and fields[2] == wanted:
            return os.fsdecode(fields[5]) or "/"
    return "/"
