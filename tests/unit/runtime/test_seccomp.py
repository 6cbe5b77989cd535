"""The compiled filter, run on a small classic BPF machine: which system call gets which verdict."""

from __future__ import annotations

import platform
import struct
import sys

import pytest

from runtime.plan.seccomp import ARCHITECTURES, compile_filter
from runtime.plan.waiting import NEEDED, can_wait_under
from runtime.record import replace
from runtime.spec.model import Seccomp, SeccompArg, SeccompSyscall
from runtime.spec.words import SECCOMP_ARCHITECTURES

pytestmark = pytest.mark.skipif(platform.machine() != "x86_64", reason="the numbers below are x86_64's")

X86_64, X86 = ARCHITECTURES["SCMP_ARCH_X86_64"], ARCHITECTURES["SCMP_ARCH_X86"]
ALLOW, KILL, ERRNO, LOG = 0x7FFF0000, 0, 0x00050000, 0x7FFC0000
READ, MKDIR, PERSONALITY, CLONE3 = 0, 83, 135, 435


def verdict(program: bytes, number: int, *arguments: int, arch: int = X86_64) -> int:
    """Execute a seccomp filter on struct seccomp_data {int nr; u32 arch; u64 ip; u64 args[6]}."""
    data = struct.pack("<IIQ6Q", number, arch, 0, *(*arguments, 0, 0, 0, 0, 0, 0)[:6])
    code = [struct.unpack("<HBBI", program[at : at + 8]) for at in range(0, len(program), 8)]
    accumulator = at = 0
    jumps = {0x10: lambda a, k: a == k, 0x20: lambda a, k: a > k, 0x30: lambda a, k: a >= k, 0x40: lambda a, k: a & k != 0}
    while True:
        op, yes, no, k = code[at]
        at += 1
        if op == 0x20:
            accumulator = struct.unpack_from("<I", data, k)[0]
        elif op == 0x06:
            return k
        elif op == 0x05:
            at += k
        elif op == 0x54:
            accumulator &= k
        elif op & 0x0F == 0x05:
            at += yes if jumps[op & 0xF0](accumulator, k) else no
        else:
            raise AssertionError(f"unknown instruction {op:#x}")


def rule(*names: str, action: str = "SCMP_ACT_ALLOW", **parts: object) -> SeccompSyscall:
    return SeccompSyscall(names=names, action=action, **parts)


def test_allow_list() -> None:
    program = compile_filter(
        Seccomp(default_action="SCMP_ACT_ERRNO", default_errno_ret=95, syscalls=(rule("read", "clone3", "no_such_call"),))
    )
    assert verdict(program, READ) == ALLOW
    assert verdict(program, MKDIR) == ERRNO | 95
    assert verdict(program, READ, arch=0x1234) == KILL


def test_calls_newer_than_the_profile_do_not_exist() -> None:
    program = compile_filter(Seccomp(default_action="SCMP_ACT_ERRNO", syscalls=(rule("read", "clone3"),)))
    assert verdict(program, CLONE3 + 1) == ERRNO | 38
    assert verdict(program, 2000) == ERRNO | 38
    assert verdict(program, CLONE3 - 1) == ERRNO | 1


def test_deny_list_has_no_prologue() -> None:
    program = compile_filter(
        Seccomp(default_action="SCMP_ACT_ALLOW", syscalls=(rule("mkdir", action="SCMP_ACT_ERRNO", errno_ret=13),))
    )
    assert verdict(program, MKDIR) == ERRNO | 13
    assert verdict(program, 2000) == ALLOW


@pytest.mark.parametrize(
    ("op", "value", "two", "hits", "misses"),
    [
        ("SCMP_CMP_EQ", 5, 0, [5], [4, 5 + 2**32]),
        ("SCMP_CMP_NE", 5, 0, [4], [5]),
        ("SCMP_CMP_LT", 5, 0, [4], [5, 6]),
        ("SCMP_CMP_LE", 5, 0, [5], [6]),
        ("SCMP_CMP_GE", 5, 0, [5, 2**40], [4]),
        ("SCMP_CMP_GT", 5, 0, [6], [5]),
        ("SCMP_CMP_MASKED_EQ", 0xF0, 0x10, [0x11, 0x1F], [0x21]),
    ],
)
def test_comparisons(op: str, value: int, two: int, hits: list[int], misses: list[int]) -> None:
    argument = SeccompArg(index=1, value=value, value_two=two, op=op)
    program = compile_filter(
        Seccomp(default_action="SCMP_ACT_ALLOW", syscalls=(rule("personality", action="SCMP_ACT_LOG", args=(argument,)),))
    )
    assert [verdict(program, PERSONALITY, 0, hit) for hit in hits] == [LOG] * len(hits)
    assert [verdict(program, PERSONALITY, 0, miss) for miss in misses] == [ALLOW] * len(misses)


def test_one_argument_compared_twice_is_an_alternative() -> None:
    arguments = tuple(SeccompArg(index=0, value=value, op="SCMP_CMP_EQ") for value in (8, 9))
    program = compile_filter(
        Seccomp(default_action="SCMP_ACT_ERRNO", syscalls=(rule("personality", args=arguments), rule("clone3")))
    )
    assert verdict(program, PERSONALITY, 8) == ALLOW
    assert verdict(program, PERSONALITY, 9) == ALLOW
    assert verdict(program, PERSONALITY, 7) == ERRNO | 1


@pytest.mark.parametrize(
    ("action", "number"),
    [
        ("SCMP_ACT_KILL", 0),
        ("SCMP_ACT_KILL_THREAD", 0),
        ("SCMP_ACT_KILL_PROCESS", 0x80000000),
        ("SCMP_ACT_TRAP", 0x00030000),
        ("SCMP_ACT_ERRNO", 0x00050001),
        ("SCMP_ACT_TRACE", 0x7FF00001),
        ("SCMP_ACT_LOG", LOG),
    ],
)
def test_actions(action: str, number: int) -> None:
    program = compile_filter(Seccomp(default_action="SCMP_ACT_ALLOW", syscalls=(rule("mkdir", action=action),)))
    assert verdict(program, MKDIR) == number


def test_other_architectures() -> None:
    profile = Seccomp(
        default_action="SCMP_ACT_ERRNO",
        architectures=("SCMP_ARCH_X86_64", "SCMP_ARCH_X86", "SCMP_ARCH_X32"),
        syscalls=(rule("mkdir", "clone3"),),
    )
    program = compile_filter(profile)
    assert verdict(program, 39, arch=X86) == ALLOW  # mkdir of x86
    assert verdict(program, MKDIR, arch=X86) == ERRNO | 1
    assert verdict(program, 4000, arch=X86) == ERRNO | 38
    assert verdict(program, MKDIR | 0x40000000) == ALLOW  # x32


def test_rule_that_repeats_the_default_is_passed_over() -> None:
    compile_filter(Seccomp(default_action="SCMP_ACT_ALLOW", syscalls=(rule("mkdir"),)))


def test_every_architecture_has_a_token() -> None:
    assert set(SECCOMP_ARCHITECTURES) == set(ARCHITECTURES)


def test_notify_is_an_action_of_the_program() -> None:
    program = compile_filter(Seccomp(default_action="SCMP_ACT_ALLOW", syscalls=(rule("mkdir", action="SCMP_ACT_NOTIFY"),)))
    answers = {int.from_bytes(program[at + 4 : at + 8], sys.byteorder) for at in range(0, len(program), 8)}
    assert 0x7FC00000 in answers


def test_same_profile_is_compiled_once() -> None:
    first = compile_filter(Seccomp(default_action="SCMP_ACT_ALLOW", syscalls=(rule("mkdir", action="SCMP_ACT_LOG"),)))
    again = compile_filter(Seccomp(default_action="SCMP_ACT_ALLOW", syscalls=(rule("mkdir", action="SCMP_ACT_LOG"),)))
    assert first is again


def test_who_can_wait_to_be_started() -> None:
    asks = rule("mkdir", action="SCMP_ACT_NOTIFY")
    open_profile = Seccomp(default_action="SCMP_ACT_ALLOW", listener_path="/a", syscalls=(asks,))
    assert can_wait_under(open_profile)
    for action in ("SCMP_ACT_ERRNO", "SCMP_ACT_NOTIFY", "SCMP_ACT_KILL"):
        assert not can_wait_under(replace(open_profile, syscalls=(asks, rule("recvfrom", action=action))))
    closed = replace(open_profile, default_action="SCMP_ACT_ERRNO")
    assert not can_wait_under(closed)
    every = tuple(NEEDED)
    assert can_wait_under(replace(closed, syscalls=(asks, rule(*every))))
    assert not can_wait_under(replace(closed, syscalls=(asks, rule(*every[1:]))))
    assert not can_wait_under(replace(closed, syscalls=(asks, rule(*every, args=(SeccompArg(index=0, value=0),)))))
