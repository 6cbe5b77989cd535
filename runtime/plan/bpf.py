"""The program cgroup v2 judges device accesses with (BPF_PROG_TYPE_CGROUP_DEVICE, bpf(2), linux/bpf.h): pure.

The kernel calls it with struct bpf_cgroup_dev_ctx {u32 access_type (access << 16 | type), major, minor}; 1 allows, 0 denies.
"""

from __future__ import annotations

import sys

TYPE_CHECKING = False
if TYPE_CHECKING:
    from runtime.plan.cgroup_devices import DevicePolicy, Key

_ACCESS = {"m": 1, "r": 2, "w": 4}  # BPF_DEVCG_ACC_MKNOD, _READ, _WRITE
_TYPES = {"b": 1, "c": 2}  # BPF_DEVCG_DEV_BLOCK, _CHAR

_LDX_W = 0x61
_ALU_AND_K = 0x54  # BPF_ALU (32 bit)
_ALU_RSH_K = 0x74
_ALU64_MOV_X = 0xBF
_ALU64_MOV_K = 0xB7
_JNE32_K = 0x56  # BPF_JMP32
_JEQ32_K = 0x16
_EXIT = 0x95

_CONTEXT, _TYPE, _WANTED, _MAJOR, _MINOR, _SCRATCH = 1, 2, 3, 4, 5, 6


def _instruction(code: int, *, dst: int = 0, src: int = 0, offset: int = 0, value: int = 0) -> bytes:
    """Pack struct bpf_insn {u8 code; u8 dst:4, src:4; s16 off; s32 imm}."""
    registers = dst | src << 4 if sys.byteorder == "little" else dst << 4 | src
    number = value - (1 << 32) if value >= 1 << 31 else value
    return (
        bytes((code, registers))
        + offset.to_bytes(2, sys.byteorder, signed=True)
        + number.to_bytes(4, sys.byteorder, signed=True)
    )


def device_program(policy: DevicePolicy) -> bytes:
    """Give the program for `policy`, eight bytes an instruction."""
    program = [
        _instruction(_LDX_W, dst=_TYPE, src=_CONTEXT),
        _instruction(_ALU64_MOV_X, dst=_WANTED, src=_TYPE),
        _instruction(_ALU_AND_K, dst=_TYPE, value=0xFFFF),
        _instruction(_ALU_RSH_K, dst=_WANTED, value=16),
        _instruction(_LDX_W, dst=_MAJOR, src=_CONTEXT, offset=4),
        _instruction(_LDX_W, dst=_MINOR, src=_CONTEXT, offset=8),
    ]
    for key, access in policy.exceptions:
        program += _exception(key, access, allow=not policy.allow)
    program += _verdict(allow=policy.allow)
    return b"".join(program)


def _verdict(*, allow: bool) -> list[bytes]:
    return [_instruction(_ALU64_MOV_K, dst=0, value=int(allow)), _instruction(_EXIT)]


def _exception(key: Key, access: str, *, allow: bool) -> list[bytes]:
    """Judge one exception: an allowance must cover all that is wanted, a denial catches any part of it."""
    kind, major, minor = key
    mask = sum(_ACCESS[letter] for letter in access)
    tests: list[tuple[int, int, int]] = [(_JNE32_K, _TYPE, _TYPES[kind])]
    if major is not None:
        tests.append((_JNE32_K, _MAJOR, major))
    if minor is not None:
        tests.append((_JNE32_K, _MINOR, minor))
    code: list[bytes] = []
    verdict = _verdict(allow=allow)
    judged = 3 if mask != 7 else 0
    left = len(tests) + judged + len(verdict)
    for jump, register, value in tests:
        left -= 1
        code.append(_instruction(jump, dst=register, offset=left, value=value))
    if judged:
        code.append(_instruction(_ALU64_MOV_X, dst=_SCRATCH, src=_WANTED))
        code.append(_instruction(_ALU_AND_K, dst=_SCRATCH, value=7 & ~mask if allow else mask))
        code.append(_instruction(_JNE32_K if allow else _JEQ32_K, dst=_SCRATCH, offset=len(verdict), value=0))
    return code + verdict
