"""PID 1 of a pod's shared PID namespace: waits for nothing, owns nothing, sees nothing.

It is a fork of the monitor that never executes anything. Its own mount namespace holds one empty, read-only tmpfs, it has no
descriptor, no capability, and cannot be traced or read through /proc (PR_SET_DUMPABLE, invariant 1). Orphans of the pod
become its children; because it ignores SIGCHLD the kernel reaps them without waking it (sigaction(2)).
"""

from __future__ import annotations

import os
import signal

from runtime.kernel.capability import capset
from runtime.kernel.mount import MNT_DETACH, MS_PRIVATE, MS_RDONLY, MS_REC, mount, pivot_root, umount2
from runtime.kernel.namespace import CLONE_NEWNS, unshare
from runtime.kernel.prctl import set_dumpable, set_name, set_no_new_privs

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import NoReturn

_FOLDER = "/proc"
"""Any directory that a mapped user may look up, to mount the empty root on."""


def reap_for_ever(ready: int) -> NoReturn:
    """Become the reaper; `ready` gets an error text, or is closed without one when all is done."""
    try:
        _shed()
    except OSError as error:
        os.write(ready, f"pod PID namespace: its first process: {error}".encode())
        os._exit(1)
    os.closerange(0, 2**31 - 1)
    while True:
        signal.pause()


def _shed() -> None:
    os.setsid()
    set_name("wherry-reaper")
    set_dumpable(dumpable=False)
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)
    unshare(CLONE_NEWNS)
    mount("", "/", "", MS_PRIVATE | MS_REC)
    mount("tmpfs", _FOLDER, "tmpfs", MS_RDONLY, "size=4k,nr_inodes=4,mode=0555")
    os.chdir(_FOLDER)
    pivot_root(".", ".")
    umount2(".", MNT_DETACH)
    os.chdir("/")
    set_no_new_privs()
    capset(0, 0, 0)
