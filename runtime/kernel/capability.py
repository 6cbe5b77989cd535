"""capabilities(7): their numbers, and capset(2)."""

from __future__ import annotations

import os
import sys

from runtime.kernel.libc import buffer, function, u32

NAMES = (
    "CAP_CHOWN", "CAP_DAC_OVERRIDE", "CAP_DAC_READ_SEARCH", "CAP_FOWNER", "CAP_FSETID", "CAP_KILL", "CAP_SETGID",
    "CAP_SETUID", "CAP_SETPCAP", "CAP_LINUX_IMMUTABLE", "CAP_NET_BIND_SERVICE", "CAP_NET_BROADCAST", "CAP_NET_ADMIN",
    "CAP_NET_RAW", "CAP_IPC_LOCK", "CAP_IPC_OWNER", "CAP_SYS_MODULE", "CAP_SYS_RAWIO", "CAP_SYS_CHROOT",
    "CAP_SYS_PTRACE", "CAP_SYS_PACCT", "CAP_SYS_ADMIN", "CAP_SYS_BOOT", "CAP_SYS_NICE", "CAP_SYS_RESOURCE",
    "CAP_SYS_TIME", "CAP_SYS_TTY_CONFIG", "CAP_MKNOD", "CAP_LEASE", "CAP_AUDIT_WRITE", "CAP_AUDIT_CONTROL",
    "CAP_SETFCAP", "CAP_MAC_OVERRIDE", "CAP_MAC_ADMIN", "CAP_SYSLOG", "CAP_WAKE_ALARM", "CAP_BLOCK_SUSPEND",
    "CAP_AUDIT_READ", "CAP_PERFMON", "CAP_BPF", "CAP_CHECKPOINT_RESTORE",
)  # fmt: skip
"""Names at the index that is the capability's number."""
NUMBERS = {name: number for number, name in enumerate(NAMES)}

CAP_SETPCAP = NUMBERS["CAP_SETPCAP"]
CAP_SYS_ADMIN = NUMBERS["CAP_SYS_ADMIN"]
CAP_SYS_PTRACE = NUMBERS["CAP_SYS_PTRACE"]

_VERSION_3 = 0x20080522
_capset = function("capset", "pp")
_capget = function("capget", "pp")


def capset(effective: int, permitted: int, inheritable: int) -> None:
    """Set the three sets of this process; each is a mask with bit n for capability n."""
    low, high = 0xFFFFFFFF, 32
    data = u32(effective & low, permitted & low, inheritable & low, effective >> high, permitted >> high, inheritable >> high)
    _capset(u32(_VERSION_3, 0), data)


def capget() -> tuple[int, int, int]:
    """Give the effective, permitted and inheritable masks of this process."""
    space = buffer(24)
    _capget(u32(_VERSION_3, 0), space)
    words = [int.from_bytes(space.raw[at : at + 4], sys.byteorder) for at in range(0, 24, 4)]
    return words[0] | words[3] << 32, words[1] | words[4] << 32, words[2] | words[5] << 32


def within_reach(pid: int) -> int:
    """Give the mask of what the process `pid` has or can still come to have: its permitted and its bounding set (proc(5)).

    Everything, when it cannot be read.
    """
    try:
        fd = os.open(f"/proc/{pid}/status", os.O_RDONLY | os.O_CLOEXEC)
    except OSError:
        return -1
    try:
        lines = os.read(fd, 8192).splitlines()
    except ProcessLookupError:
        return -1
    finally:
        os.close(fd)
    found = [int(line.split()[1], 16) for line in lines if line.startswith((b"CapPrm:", b"CapBnd:"))]
    return found[0] | found[1] if len(found) == 2 else -1
