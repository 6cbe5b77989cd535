"""bpf(2): load a device filter and attach it to a cgroup v2 directory."""

from __future__ import annotations

import os

from runtime.kernel.libc import buffer, system_call, u32, u64

_PROG_LOAD = 5
_PROG_ATTACH = 8
_PROG_TYPE_CGROUP_DEVICE = 15
_CGROUP_DEVICE = 6
_F_ALLOW_MULTI = 2
_LICENSE = b"GPL\0"

_bpf = system_call("bpf", "lpl")


def load_device_program(program: bytes) -> int:
    """Have the kernel verify a program of struct bpf_insn's; give its descriptor (close-on-exec)."""
    from _ctypes import addressof

    instructions, license_text = buffer(len(program)), buffer(len(_LICENSE))
    instructions.raw, license_text.raw = program, _LICENSE
    attributes = u32(_PROG_TYPE_CGROUP_DEVICE, len(program) // 8)
    attributes += u64(addressof(instructions), addressof(license_text)) + u32(0, 0) + u64(0)
    return _bpf(_PROG_LOAD, attributes.ljust(128, b"\0"), 128)


def attach_device_program(program_fd: int, directory: str) -> None:
    """Let the program judge device accesses of the cgroup, beside those of its ancestors: all must allow."""
    group = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        attributes = u32(group, program_fd, _CGROUP_DEVICE, _F_ALLOW_MULTI)
        _bpf(_PROG_ATTACH, attributes.ljust(128, b"\0"), 128, path=directory)
    finally:
        os.close(group)
