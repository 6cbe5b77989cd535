"""Device rules as v1 lists and as a v2 program, which must agree; the program runs on a small BPF machine here."""

from __future__ import annotations

import struct

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from runtime.errors import CgroupFault
from runtime.plan.bpf import device_program
from runtime.plan.cgroup_devices import ALWAYS_ALLOWED, DevicePolicy, device_changes, device_policy, device_writes
from runtime.spec.resources import DeviceRule

DENY_ALL = DeviceRule(allow=False)
ALLOW_ALL = DeviceRule(allow=True)
BITS = {"m": 1, "r": 2, "w": 4}


def run_program(program: bytes, kind: str, access: str, major: int, minor: int) -> bool:
    """Execute the instructions device_program uses, as the kernel's interpreter would."""
    wanted = sum(BITS[letter] for letter in access) << 16 | {"b": 1, "c": 2}[kind]
    context = struct.pack("<III", wanted, major, minor)
    code = [struct.unpack("<BBhi", program[at : at + 8]) for at in range(0, len(program), 8)]
    registers = [0] * 11
    at = 0
    while True:
        op, operands, offset, value = code[at]
        dst, src, value = operands & 15, operands >> 4, value & 0xFFFFFFFF
        at += 1
        if op == 0x61:
            registers[dst] = struct.unpack_from("<I", context, offset)[0]
        elif op == 0xBF:
            registers[dst] = registers[src]
        elif op == 0xB7:
            registers[dst] = value
        elif op == 0x54:
            registers[dst] &= value
        elif op == 0x74:
            registers[dst] = (registers[dst] & 0xFFFFFFFF) >> value
        elif op in (0x56, 0x16):
            if ((registers[dst] & 0xFFFFFFFF) != value) == (op == 0x56):
                at += offset
        elif op == 0x95:
            return bool(registers[0])
        else:
            raise AssertionError(f"unknown instruction {op:#x}")


def judge(policy: DevicePolicy, kind: str, access: str, major: int, minor: int) -> bool:
    """Judge an access by the policy itself."""
    for (held, one, two), letters in policy.exceptions:
        if held == kind and one in (None, major) and two in (None, minor):
            if policy.allow and set(letters) & set(access):
                return False
            if not policy.allow and set(access) <= set(letters):
                return True
    return policy.allow


def test_default_is_what_every_container_has() -> None:
    policy = device_policy((DENY_ALL,))
    assert not policy.allow
    assert len(policy.exceptions) == len(ALWAYS_ALLOWED)
    program = device_program(policy)
    assert run_program(program, "c", "rw", 1, 3)
    assert run_program(program, "c", "m", 99, 99)
    assert run_program(program, "c", "rw", 136, 7)
    assert not run_program(program, "c", "r", 1, 1)
    assert not run_program(program, "b", "r", 8, 0)
    assert not run_program(program, "c", "rw", 10, 200)


def test_privileged_needs_one_write_and_no_exception() -> None:
    policy = device_policy((ALLOW_ALL,))
    assert policy == DevicePolicy(allow=True)
    assert [write.choices for write in device_writes(policy)] == [(("devices.allow", "a"),)]


def test_v1_writes() -> None:
    rules = (DENY_ALL, DeviceRule(allow=True, type="c", major=10, minor=229, access="rw"))
    writes = [write.choices[0] for write in device_writes(device_policy(rules))]
    assert writes[0] == ("devices.deny", "a")
    assert ("devices.allow", "c 10:229 rw") in writes
    assert ("devices.allow", "b *:* m") in writes
    assert ("devices.allow", "c 136:* rwm") in writes


def test_later_rule_takes_back() -> None:
    one = {"type": "c", "major": 10, "minor": 229}
    rules = (DENY_ALL, DeviceRule(allow=True, **one), DeviceRule(allow=False, **one, access="w"))
    assert (("c", 10, 229), "rm") in device_policy(rules).exceptions


def test_hole_in_a_wildcard_is_refused() -> None:
    rules = (DENY_ALL, DeviceRule(allow=True, type="c", major=10), DeviceRule(allow=False, type="c", major=10, minor=1))
    with pytest.raises(CgroupFault, match=r"would cut a hole into the one for c 10:\*"):
        device_policy(rules)


def test_deny_exceptions_of_an_open_policy() -> None:
    policy = device_policy((ALLOW_ALL, DeviceRule(allow=False, type="b", major=8, minor=0, access="w")))
    program = device_program(policy)
    assert not run_program(program, "b", "rw", 8, 0)
    assert run_program(program, "b", "r", 8, 0)
    assert run_program(program, "c", "rw", 8, 0)


def test_numbers_beyond_31_bits() -> None:
    policy = device_policy((DENY_ALL, DeviceRule(allow=True, type="c", major=2**32 - 1, minor=2**31)))
    assert run_program(device_program(policy), "c", "r", 2**32 - 1, 2**31)
    assert not run_program(device_program(policy), "c", "r", 2**32 - 1, 2**31 - 1)


NUMBERS = st.one_of(st.none(), st.integers(0, 3))
ACCESS = st.sets(st.sampled_from("rwm"), min_size=1).map(lambda letters: "".join(sorted(letters)))
RULES = st.builds(DeviceRule, allow=st.booleans(), type=st.sampled_from("abcu"), major=NUMBERS, minor=NUMBERS, access=ACCESS)


@settings(max_examples=300)
@given(
    rules=st.lists(RULES, max_size=5),
    kind=st.sampled_from("bc"),
    access=ACCESS,
    major=st.integers(0, 4),
    minor=st.integers(0, 4),
)
def test_program_and_policy_agree(rules: list[DeviceRule], kind: str, access: str, major: int, minor: int) -> None:
    try:
        policy = device_policy(tuple(rules))
    except CgroupFault:
        return
    assert run_program(device_program(policy), kind, access, major, minor) == judge(policy, kind, access, major, minor)


def test_changes_allow_before_they_deny() -> None:
    first = device_policy((DENY_ALL, DeviceRule(allow=True, type="c", major=10, minor=1, access="rw")))
    then = device_policy(
        (DENY_ALL, DeviceRule(allow=True, type="c", major=10, minor=1, access="r"), DeviceRule(allow=True, type="b"))
    )
    assert device_changes(then, "a *:* rwm\n") == device_writes(then)
    listed = "".join(f"{write.choices[0][1]}\n" for write in device_writes(first)[1:])
    assert [write.choices[0] for write in device_changes(then, listed)] == [
        ("devices.allow", "b *:* rwm"),
        ("devices.allow", "c 10:1 r"),
        ("devices.deny", "c 10:1 w"),
    ]
    assert device_changes(first, listed) == ()
