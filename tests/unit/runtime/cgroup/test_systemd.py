"""What systemd is told: names, properties from annotations, limits in its own words."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from runtime.errors import CgroupFault, RuntimeFault, SpecFault
from runtime.plan.gvariant import parse
from runtime.plan.systemd import Property, annotated_properties, slice_path, unit_of
from runtime.plan.systemd_limits import INFINITY, device_properties, is_idle_with_weight, limit_properties, mask, rounded
from runtime.spec.resources import BlockIo, Cpu, DeviceRule, Memory, Resources

PREFIX = "org.systemd.property."


def as_dict(properties: tuple[Property, ...]) -> dict[str, Any]:
    return {one.name: one.value for one in properties}


@pytest.mark.parametrize(
    ("cgroups_path", "user", "name", "path"),
    [
        ("", False, "wherry-c1.scope", "/system.slice/wherry-c1.scope"),
        ("", True, "wherry-c1.scope", "/user.slice/wherry-c1.scope"),
        ("a-b.slice:cri:x", False, "cri-x.scope", "/a.slice/a-b.slice/cri-x.scope"),
        (":libpod:x", False, "libpod-x.scope", "/system.slice/libpod-x.scope"),
        ("-.slice:p:x", False, "p-x.scope", "/p-x.scope"),
    ],
)
def test_units(cgroups_path: str, user: bool, name: str, path: str) -> None:
    unit = unit_of(cgroups_path, "c1", user=user)
    assert (unit.name, unit.path) == (name, path)


@pytest.mark.parametrize(
    "cgroups_path",
    ["/pods/c1", "a:b", "a.slice:b:c:d", "a.slice:b:c.slice", "a:b:c", "a..slice:b:c/d", "a--b.slice:p:x", "a.slice:p:x y",
     "a.slice:p:", "a/b.slice:p:x", f"a.slice:p:{'x' * 250}", ".slice:p:x", "../a.slice:p:x"],
)  # fmt: skip
def test_bad_units(cgroups_path: str) -> None:
    with pytest.raises(CgroupFault):
        unit_of(cgroups_path, "c1")


def test_slices_nest_by_their_names() -> None:
    assert slice_path("kubepods-burstable-pod1_2.slice") == (
        "/kubepods.slice/kubepods-burstable.slice/kubepods-burstable-pod1_2.slice"
    )
    assert slice_path("-.slice") == ""


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("true", ("b", True)),
        ("uint64 5", ("t", 5)),
        ("-3", ("i", -3)),
        ("0x10", ("i", 16)),
        ("1.5", ("d", 1.5)),
        ("'it\\'s'", ("s", "it's")),
        ('"\\u0041\\n"', ("s", "A\n")),
        ("['a', 'b']", ("as", ["a", "b"])),
        ("[uint32 1, 2]", ("au", [1, 2])),
        ("@as []", ("as", [])),
        ("@t 7", ("t", 7)),
        ("[[1], [2, 3]]", ("aai", [[1], [2, 3]])),
        (" byte 255 ", ("y", 255)),
    ],
)
def test_values(text: str, expected: tuple[str, Any]) -> None:
    assert parse(text) == expected


@pytest.mark.parametrize(
    "text",
    ["", "[]", "'open", "[1", "[1 2]", "[1, 'a']", "uint64 -1", "byte 256", "1 2", "no", "{'a': 1}", "(1, 2)", "<1>",
     "uint32 'a'", "double nan", "99999999999", "[" * 50, "@(ss) ('a','b')", "'\\uzzzz'", "@as 5", "\\", "string \0"],
)  # fmt: skip
def test_what_is_no_value(text: str) -> None:
    with pytest.raises(ValueError):  # noqa: PT011 - each says something else
        parse(text)


@given(st.text())
def test_any_text_is_a_value_or_a_value_error(text: str) -> None:
    try:
        parse(text)
    except ValueError:
        return


def test_annotations_become_properties() -> None:
    annotations = (
        ("org.example", "x"),
        (f"{PREFIX}TimeoutStopSec", "uint32 2"),
        (f"{PREFIX}CollectMode", "'inactive-or-failed'"),
    )
    assert annotated_properties(annotations) == (
        Property(name="TimeoutStopUSec", signature="t", value=2_000_000),
        Property(name="CollectMode", signature="s", value="inactive-or-failed"),
    )


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("", "true"), ("ab", "true"), ("Exec Start", "'x'"), ("A=b\nExecStart", "'x'"), ("Täg", "true"), ("TimeoutSec", "'x'"),
        ("TimeoutSec", "-1"), ("TimeoutSec", "double 1e30"), ("Description", "x\nExecStartPost=/bin/sh"),
    ],
)  # fmt: skip
def test_annotations_cannot_say_anything_else(name: str, text: str) -> None:
    with pytest.raises(SpecFault, match="/annotations/"):
        annotated_properties(((f"{PREFIX}{name}", text),))


def test_limits_on_v2() -> None:
    resources = Resources(
        memory=Memory(limit=100, reservation=50, swap=150),
        cpu=Cpu(shares=1024, quota=20500, period=100_000, cpus="0-1,8", mems="0"),
        pids_limit=-1,
        block_io=BlockIo(weight=10),
        unified=(("memory.high", "max"), ("cpu.weight", "7"), ("pids.max", "5"), ("hugetlb.2MB.max", "1")),
    )
    assert as_dict(limit_properties(resources, v2=True)) == {
        "CPUWeight": 7,
        "CPUQuotaPeriodUSec": 100_000,
        "CPUQuotaPerSecUSec": 210_000,
        "AllowedCPUs": b"\x03\x01",
        "AllowedMemoryNodes": b"\x01",
        "MemoryMax": 100,
        "MemoryLow": 50,
        "MemorySwapMax": 50,
        "TasksMax": 5,
        "IOWeight": 1,
        "MemoryHigh": INFINITY,
    }
    assert rounded(resources).cpu.quota == 21000


def test_limits_on_v1() -> None:
    resources = Resources(
        memory=Memory(limit=-1, reservation=50), cpu=Cpu(shares=512, quota=-1), pids_limit=9, block_io=BlockIo(weight=500)
    )
    assert as_dict(limit_properties(resources, v2=False)) == {
        "CPUShares": 512,
        "CPUQuotaPerSecUSec": INFINITY,
        "MemoryLimit": INFINITY,
        "TasksMax": 9,
        "BlockIOWeight": 500,
    }
    assert rounded(resources) is resources


def test_idle_is_a_weight_of_nothing() -> None:
    assert as_dict(limit_properties(Resources(cpu=Cpu(idle=1, shares=512)), v2=True)) == {"CPUWeight": 0}
    unified = (("cpu.idle", "1"), ("cpu.weight", "5"), ("cpu.max", "max 50000"))
    assert as_dict(limit_properties(Resources(unified=unified), v2=True)) == {
        "CPUWeight": 0,
        "CPUQuotaPeriodUSec": 50_000,
        "CPUQuotaPerSecUSec": INFINITY,
    }
    assert rounded(Resources(unified=unified)).unified == (unified[0], unified[2])
    assert is_idle_with_weight(Resources(unified=unified))
    assert is_idle_with_weight(Resources(cpu=Cpu(idle=1, shares=512)))
    assert not is_idle_with_weight(Resources(cpu=Cpu(idle=0, shares=512), unified=unified[1:]))


@pytest.mark.parametrize(
    "resources",
    [
        Resources(cpu=Cpu(cpus="a")), Resources(cpu=Cpu(cpus="3-1")), Resources(cpu=Cpu(cpus=",")),
        Resources(cpu=Cpu(cpus="99999999999")), Resources(cpu=Cpu(shares=1)), Resources(memory=Memory(swap=5)),
        Resources(unified=(("memory.max", "lots"),)), Resources(unified=(("cpu.max", "a b"),)),
        Resources(unified=(("cpu.max", "100 b"),)), Resources(unified=(("cpu.max", "100 0"),)),
    ],
)  # fmt: skip
def test_impossible_limits(resources: Resources) -> None:
    with pytest.raises(RuntimeFault):
        limit_properties(resources, v2=True)


def test_masks_have_the_lowest_numbers_first() -> None:
    assert mask("0,9 , 16-17") == b"\x01\x02\x03"


def test_devices() -> None:
    rules = (
        DeviceRule(allow=False),
        DeviceRule(allow=True, type="c", major=10, minor=200, access="rw"),
        DeviceRule(allow=True, type="b", major=7),
        DeviceRule(allow=True, type="c", minor=9, access="r"),
    )
    reset, policy, allowed = device_properties(rules)
    assert (reset.value, policy.value) == ([], "strict")
    assert {("/dev/char/10:200", "rw"), ("block-7", "rwm"), ("char-*", "m")} <= set(allowed.value)
    assert not [path for path, _ in allowed.value if not path]


def test_all_devices() -> None:
    assert as_dict(device_properties((DeviceRule(allow=True),))) == {"DeviceAllow": [], "DevicePolicy": "auto"}
