"""bpf(2): load a device filter and attach it to a cgroup v2 directory."""

from __future__ import annotations

import os
import sys

from runtime.kernel.libc import buffer, system_call, u32, u64

_PROG_LOAD = 5
_PROG_ATTACH = 8
_PROG_DETACH = 9
_PROG_GET_FD_BY_ID = 13
_OBJ_GET_INFO_BY_FD = 15
_PROG_QUERY = 16
_PROG_TYPE_CGROUP_DEVICE = 15
_CGROUP_DEVICE = 6
_F_ALLOW_MULTI = 2
_F_REPLACE = 4
_LICENSE = b"GPL\0"
_NAME = b"wherry_devices"
"""How our programs are told from systemd's on the same cgroup."""
_NAME_AT, _NAME_SIZE = 64, 16
_MOST_PROGRAMS = 64
"""BPF_CGROUP_MAX_PROGS: what a cgroup can have."""

_bpf = system_call("bpf", "lpl")


def load_device_program(program: bytes) -> int:
    """Have the kernel verify a program of struct bpf_insn's; give its descriptor (close-on-exec)."""
    from _ctypes import addressof

    instructions, license_text = buffer(len(program)), buffer(len(_LICENSE))
    instructions.raw, license_text.raw = program, _LICENSE
    attributes = u32(_PROG_TYPE_CGROUP_DEVICE, len(program) // 8)
    attributes += u64(addressof(instructions), addressof(license_text)) + u32(0, 0) + u64(0) + u32(0, 0) + _NAME
    return _bpf(_PROG_LOAD, attributes.ljust(128, b"\0"), 128)


def attach_device_program(program_fd: int, directory: str) -> None:
    """Let the program judge device accesses of the cgroup, beside those of its ancestors: all must allow.

    It takes the place of the one attached here before at once: there is no moment with both or with none.
    """
    group = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    old = -1
    try:
        old = _attached(group)
        flags = _F_ALLOW_MULTI | (_F_REPLACE if old >= 0 else 0)
        attributes = u32(group, program_fd, _CGROUP_DEVICE, flags, max(old, 0))
        _bpf(_PROG_ATTACH, attributes.ljust(128, b"\0"), 128, path=directory)
    finally:
        os.close(group)
        if old >= 0:
            os.close(old)


def detach_device_program(directory: str) -> None:
    """Take away the program attached here before, if there is one."""
    group = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        old = _attached(group)
        if old >= 0:
            try:
                _bpf(_PROG_DETACH, u32(group, old, _CGROUP_DEVICE).ljust(128, b"\0"), 128, path=directory)
            finally:
                os.close(old)
    finally:
        os.close(group)


def _attached(group: int) -> int:
    """Give a descriptor of our program on a cgroup, -1 when there is none."""
    from _ctypes import addressof

    ids = buffer(4 * _MOST_PROGRAMS)
    query = buffer(128)
    query.raw = (u32(group, _CGROUP_DEVICE, 0, 0) + u64(addressof(ids)) + u32(_MOST_PROGRAMS)).ljust(128, b"\0")
    _bpf(_PROG_QUERY, query, 128)
    count = int.from_bytes(query.raw[24:28], sys.byteorder)
    for at in range(0, 4 * count, 4):
        fd = _bpf(_PROG_GET_FD_BY_ID, ids.raw[at : at + 4].ljust(128, b"\0"), 128)
        info = buffer(128)
        _bpf(_OBJ_GET_INFO_BY_FD, (u32(fd, 128) + u64(addressof(info))).ljust(128, b"\0"), 128)
        if info.raw[_NAME_AT : _NAME_AT + _NAME_SIZE].rstrip(b"\0") == _NAME:
            return fd
        os.close(fd)
    return -1
