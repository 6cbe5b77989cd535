"""AppArmor profiles and SELinux labels of the user's program (apparmor(7), selinux(8), proc(5): attr)."""

from __future__ import annotations

import os
from errno import ENOTSUP

from runtime.errors import KernelFault, RuntimeFault
from runtime.kernel.path import PROC_SUPER_MAGIC, fstatfs_type

TYPE_CHECKING = False
if TYPE_CHECKING:
    from runtime.spec.model import Process

_APPARMOR = ("self/attr/apparmor/exec", "self/attr/exec")
_SELINUX = ("self/attr/exec",)
_DIRECTORY = os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC

_SIGNS = {"AppArmor": "/sys/module/apparmor/parameters/enabled", "SELinux": "/sys/fs/selinux"}
"""What exists where the kernel has the module."""


def open_label(process: Process) -> int:
    """Open the kernel's file for the program's label, or give -1 when none is asked for.

    It is opened through the host's procfs, before the container's /proc could be something else (CVE-2023-28642), and holds
    for this process alone and the program it executes. Raises KernelFault when the kernel has no such security module.
    """
    return open_label_in(process, open_proc(process))


def open_proc(process: Process) -> int:
    """Open the host's procfs for a child that will use `open_label_in`, or give -1 when no label is asked for."""
    module = _module(process)
    if not module:
        return -1
    _require(module)
    return os.open("/proc", _DIRECTORY)


def new_proc(process: Process) -> int:
    """Give a procfs of this process's PID namespace that is mounted nowhere, or -1 when no label is asked for.

    For one whom its container may look into: what is in that namespace is all that could be reached by it.
    """
    module = _module(process)
    if not module:
        return -1
    from runtime.apply.faults import Step
    from runtime.kernel.mount import fsmount, fsopen

    _require(module)
    with Step("mount a procfs to label the program"):
        context = fsopen("proc")
        try:
            return fsmount(context)
        finally:
            os.close(context)


def open_label_in(process: Process, proc_fd: int) -> int:
    """Do what `open_label` does with a procfs given by descriptor, which is closed; -1 for -1.

    The kernel lets only that process write that has opened the file: no parent can do it for its child.
    """
    if proc_fd < 0:
        return -1
    try:
        for path in _APPARMOR if process.apparmor_profile else _SELINUX:
            try:
                fd = os.open(path, os.O_WRONLY | os.O_CLOEXEC, dir_fd=proc_fd)
            except FileNotFoundError:
                continue
            if fstatfs_type(fd) != PROC_SUPER_MAGIC:
                raise RuntimeFault("this is not the kernel's procfs", step="label the program", path=path)
            return fd
    finally:
        os.close(proc_fd)
    module = _module(process)
    raise KernelFault(f"{module} is not enabled on this host", feature=module, step="label the program")


def _module(process: Process) -> str:
    if process.apparmor_profile:
        if process.selinux_label:
            _require("SELinux")  # no kernel has both in force: one of them would be dropped in silence
        return "AppArmor"
    return "SELinux" if process.selinux_label else ""


def require_selinux() -> None:
    """Raise KernelFault when the kernel has no SELinux, or has it switched off."""
    _require("SELinux")


def _require(module: str) -> None:
    if not os.path.exists(_SIGNS[module]):
        raise KernelFault(f"{module} is not enabled on this host, but a label is asked for", feature=module, step="label")


def label_root(mount_fd: int, label: str) -> None:
    """Label the root of a detached mount whose type has no option for it; what cannot be labelled is left, as with runc."""
    root = os.open(".", os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC, dir_fd=mount_fd)
    try:
        os.setxattr(root, "security.selinux", label.encode() + b"\0")
    except OSError as error:
        if error.errno != ENOTSUP:
            raise RuntimeFault(f"SELinux label {label} is refused", step="label a mount", errno=error.errno) from error
    finally:
        os.close(root)


def label_keyring(label: str) -> None:
    """Have the keys that this process makes from now on be the container's ("": its own again); without SELinux nothing.

    Whether there is one is for `open_label` to say. Raises RuntimeFault for a label that the policy does not know.
    """
    if not os.path.exists(_SIGNS["SELinux"]):
        return
    fd = os.open("/proc/thread-self/attr/keycreate", os.O_WRONLY | os.O_CLOEXEC)
    try:
        os.write(fd, label.encode() + b"\0")
    except OSError as error:
        raise RuntimeFault(f"SELinux label {label} is refused", step="label the session keyring", errno=error.errno) from error
    finally:
        os.close(fd)


def write_label(fd: int, process: Process) -> None:
    """Have execve(2) give the program its label; raise RuntimeFault for one that the kernel does not know."""
    text = f"exec {process.apparmor_profile}" if process.apparmor_profile else process.selinux_label
    try:
        os.write(fd, text.encode())
    except OSError as error:
        what = f"AppArmor profile {text[5:]} (is it loaded?)" if process.apparmor_profile else f"SELinux label {text}"
        raise RuntimeFault(f"{what} is refused", step="label the program", errno=error.errno) from error
