"""seccomp(2): load a compiled filter."""

from __future__ import annotations

import sys
from errno import EFAULT

from runtime.kernel.libc import buffer, system_call

_SET_MODE_FILTER = 1
FILTER_FLAGS = {
    "SECCOMP_FILTER_FLAG_TSYNC": 0x1,
    "SECCOMP_FILTER_FLAG_LOG": 0x2,
    "SECCOMP_FILTER_FLAG_SPEC_ALLOW": 0x4,
    "SECCOMP_FILTER_FLAG_NEW_LISTENER": 0x8,
    "SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV": 0x20,
}
NEW_LISTENER = FILTER_FLAGS["SECCOMP_FILTER_FLAG_NEW_LISTENER"]

_seccomp = system_call("seccomp", "llp")


def load(program: bytes, flags: int = 0) -> int:
    """Load a BPF program (struct sock_filter's of 8 bytes each); give the listener's descriptor when flags ask for one."""
    from _ctypes import addressof

    memory = buffer(len(program) or 1)
    memory.raw = program
    header = (len(program) // 8).to_bytes(2, sys.byteorder) + b"\0" * 6 + addressof(memory).to_bytes(8, sys.byteorder)
    return _seccomp(_SET_MODE_FILTER, flags, header)


def flag_is_known(flag: int) -> bool:
    """Tell whether the kernel knows a filter flag: it looks at flags before it finds that there is no program."""
    if flag == FILTER_FLAGS["SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV"]:
        flag |= NEW_LISTENER  # without which it means nothing
    try:
        _seccomp(_SET_MODE_FILTER, flag, None)
    except OSError as error:
        return error.errno == EFAULT
    return True
