"""Compile a seccomp profile into the BPF program init loads (config-linux.md "Seccomp", seccomp(2)).

libseccomp writes the program; a prologue of ours answers ENOSYS for system calls newer than any the profile names, as runc's
does, so that a C library probing for a new call falls back to an old one instead of taking EPERM for a verdict.
"""

from __future__ import annotations

import os
import sys

from runtime.errors import RuntimeFault
from runtime.kernel import libseccomp
from runtime.spec.words import SECCOMP_OPERATORS

TYPE_CHECKING = False
if TYPE_CHECKING:
    from runtime.spec.model import Seccomp, SeccompArg

_STEP = "compile the seccomp profile"
_PROGRAM_LIMIT = 4096 * 8
"""BPF_MAXINSNS instructions of eight bytes."""
_CACHE_LIMIT = 32
_COMPARISON = 24
"""Bytes of struct scmp_arg_cmp."""

ACTIONS = {
    "SCMP_ACT_KILL": 0x00000000,
    "SCMP_ACT_KILL_THREAD": 0x00000000,
    "SCMP_ACT_KILL_PROCESS": 0x80000000,
    "SCMP_ACT_TRAP": 0x00030000,
    "SCMP_ACT_ERRNO": 0x00050000,
    "SCMP_ACT_TRACE": 0x7FF00000,
    "SCMP_ACT_LOG": 0x7FFC0000,
    "SCMP_ACT_ALLOW": 0x7FFF0000,
    "SCMP_ACT_NOTIFY": 0x7FC00000,
}
_WITH_DATA = ("SCMP_ACT_ERRNO", "SCMP_ACT_TRACE")
_LENIENT = ("SCMP_ACT_ALLOW", "SCMP_ACT_LOG", "SCMP_ACT_TRACE")
_EPERM, _ENOSYS, _EEXIST = 1, 38, 17

ARCHITECTURES = {
    "SCMP_ARCH_X86": 0x40000003,
    "SCMP_ARCH_X86_64": 0xC000003E,
    "SCMP_ARCH_X32": 0x4000003E,
    "SCMP_ARCH_ARM": 0x40000028,
    "SCMP_ARCH_AARCH64": 0xC00000B7,
    "SCMP_ARCH_MIPS": 0x00000008,
    "SCMP_ARCH_MIPS64": 0x80000008,
    "SCMP_ARCH_MIPS64N32": 0xA0000008,
    "SCMP_ARCH_MIPSEL": 0x40000008,
    "SCMP_ARCH_MIPSEL64": 0xC0000008,
    "SCMP_ARCH_MIPSEL64N32": 0xE0000008,
    "SCMP_ARCH_PPC": 0x00000014,
    "SCMP_ARCH_PPC64": 0x80000015,
    "SCMP_ARCH_PPC64LE": 0xC0000015,
    "SCMP_ARCH_S390": 0x00000016,
    "SCMP_ARCH_S390X": 0x80000016,
    "SCMP_ARCH_PARISC": 0x0000000F,
    "SCMP_ARCH_PARISC64": 0x8000000F,
    "SCMP_ARCH_RISCV64": 0xC00000F3,
    "SCMP_ARCH_LOONGARCH64": 0xC0000102,
    "SCMP_ARCH_M68K": 0x00000004,
    "SCMP_ARCH_SH": 0x4000002A,
    "SCMP_ARCH_SHEB": 0x0000002A,
}
"""libseccomp's tokens, which are AUDIT_ARCH_ values but for x32, whose calls are x86_64's with a bit set."""
_X32_BIT = 0x40000000

_cache: dict[Seccomp, bytes] = {}


def compile_filter(profile: Seccomp) -> bytes:
    """Give the program (struct sock_filter's) for a validated profile; the last few are kept.

    Raises KernelFault without libseccomp, RuntimeFault for a profile the library refuses.
    """
    known = _cache.get(profile)
    if known is None:
        known = _compile(profile)
        if len(_cache) >= _CACHE_LIMIT:
            del _cache[next(iter(_cache))]
        _cache[profile] = known
    return known


def action_value(action: str, errno_ret: int | None, default_errno: int = _EPERM) -> int:
    """Give the kernel's number for an action; errno or trace data are EPERM unless given."""
    data = (default_errno if errno_ret is None else errno_ret) & 0xFFFF if action in _WITH_DATA else 0
    return ACTIONS[action] | data


def _compile(profile: Seccomp) -> bytes:
    context = libseccomp.pointer("seccomp_init", action_value(profile.default_action, profile.default_errno_ret))
    if not context:
        raise RuntimeFault("libseccomp refuses the default action", step=_STEP)
    try:
        _check("turn no_new_privs off", libseccomp.call("seccomp_attr_set", context, libseccomp.ATTR_NO_NEW_PRIVS, 0))
        for name in profile.architectures:
            result = libseccomp.call("seccomp_arch_add", context, ARCHITECTURES[name])
            _check(f"add {name}", 0 if result == -_EEXIST else result)
        for rule in _rules(profile):
            _add_rule(context, *rule)
        program = _prologue(profile) + _export(context)
    finally:
        libseccomp.call("seccomp_release", context)
    if len(program) > _PROGRAM_LIMIT:
        raise RuntimeFault(f"the profile needs {len(program) // 8} instructions, the kernel takes 4096", step=_STEP)
    return program


def _check(what: str, result: int) -> None:
    if result < 0:
        raise RuntimeFault(f"libseccomp cannot {what}", step=_STEP, errno=-result)


def _rules(profile: Seccomp) -> dict[tuple[str, int, bytes], None]:
    """Give what to add, in order and each once: the name of a call the library knows, the action, the comparisons.

    No more than a program could have instructions, since the library takes the square of their number in time.
    """
    default = action_value(profile.default_action, profile.default_errno_ret)
    found: dict[tuple[str, int, bytes], None] = {}
    unknown: set[str] = set()
    for rule in profile.syscalls:
        action = action_value(rule.action, rule.errno_ret)
        if action == default:
            continue  # the library refuses a rule that says what the default says
        conjunctions = _conjunctions(rule.args)
        for name in dict.fromkeys(rule.names):
            if name in unknown:
                continue
            if libseccomp.call("seccomp_syscall_resolve_name", name.encode()) == libseccomp.UNKNOWN:
                unknown.add(name)
                continue
            found.update(dict.fromkeys((name, action, comparisons) for comparisons in conjunctions))
        if len(found) * 8 > _PROGRAM_LIMIT:
            raise RuntimeFault("the profile needs more instructions than the kernel takes, 4096", step=_STEP)
    return found


def _add_rule(context: int, name: str, action: int, comparisons: bytes) -> None:
    number = libseccomp.call("seccomp_syscall_resolve_name", name.encode())
    count = len(comparisons) // _COMPARISON
    result = libseccomp.call("seccomp_rule_add_array", context, action, number, count, comparisons)
    _check(f"add the rule for {name}", 0 if result == -_EEXIST else result)


def _conjunctions(arguments: tuple[SeccompArg, ...]) -> dict[bytes, None]:
    """Give the comparisons of each rule to add: all at once, or one a rule when an argument is compared twice.

    The library knows no two comparisons of one argument in one rule; runc and crun take them as alternatives then.
    """
    packed = [_comparison(argument) for argument in arguments]
    if len({argument.index for argument in arguments}) < len(arguments):
        return dict.fromkeys(packed)
    return {b"".join(packed): None}


def _comparison(argument: SeccompArg) -> bytes:
    """Pack struct scmp_arg_cmp {unsigned arg; enum op; u64 datum_a, datum_b}."""
    operator = SECCOMP_OPERATORS.index(argument.op) + 1
    words = ((argument.index, 4), (operator, 4), (argument.value, 8), (argument.value_two, 8))
    return b"".join(value.to_bytes(size, sys.byteorder) for value, size in words)


def _export(context: int) -> bytes:
    memory = os.memfd_create("seccomp", os.MFD_CLOEXEC)
    try:
        _check("write the program", libseccomp.call("seccomp_export_bpf", context, memory))
        return os.pread(memory, os.fstat(memory).st_size, 0)
    finally:
        os.close(memory)


def _statement(code: int, value: int, yes: int = 0, no: int = 0) -> bytes:
    """Pack struct sock_filter {u16 code; u8 jt, jf; u32 k}."""
    return code.to_bytes(2, sys.byteorder) + bytes((yes, no)) + value.to_bytes(4, sys.byteorder)


def _prologue(profile: Seccomp) -> bytes:
    """Give the instructions that answer ENOSYS to calls beyond the newest one the profile names, for each architecture."""
    if profile.default_action in _LENIENT:
        return b""
    native = libseccomp.call("seccomp_arch_native") & 0xFFFFFFFF
    tokens = dict.fromkeys([native, *(ARCHITECTURES[name] for name in profile.architectures)])
    names = {name.encode() for rule in profile.syscalls for name in rule.names}
    load_word, jump_equal, jump_greater, jump_set, give = 0x20, 0x15, 0x25, 0x45, 0x06
    program = []
    for token in tokens:
        if token == ARCHITECTURES["SCMP_ARCH_X32"]:
            continue  # shares x86_64's AUDIT_ARCH and is told apart by a bit, which the test below leaves to the profile
        newest = max((libseccomp.call("seccomp_syscall_resolve_name_arch", token, name) for name in names), default=-1)
        if newest < 0:
            continue
        program += [
            _statement(load_word, 4),  # seccomp_data.arch
            _statement(jump_equal, token, 0, 4),
            _statement(load_word, 0),  # seccomp_data.nr
            _statement(jump_set, _X32_BIT, 2, 0),
            _statement(jump_greater, newest, 0, 1),
            _statement(give, ACTIONS["SCMP_ACT_ERRNO"] | _ENOSYS),
        ]
    return b"".join(program)
