"""Faults cross processes as values and say what, where and why in one line."""

from __future__ import annotations

import errno

import pytest

from runtime.errors import KernelFault, NotFoundFault, RuntimeFault, SpecFault, StartFault, from_value

FAULTS = [
    RuntimeFault("message", step="mount /proc", errno=errno.EPERM, path="/proc"),
    SpecFault("is missing", pointer="/root", document="config.json"),
    KernelFault("no such thing", feature="idmapped mounts"),
    StartFault("not found", errno=errno.ENOENT, path="/bin/x"),
    NotFoundFault("container does not exist"),
]


@pytest.mark.parametrize("fault", FAULTS, ids=lambda fault: fault.kind)
def test_value_round_trip(fault: RuntimeFault) -> None:
    again = from_value(fault.to_value())
    assert type(again) is type(fault)
    assert again.to_value() == fault.to_value()
    assert str(again) == str(fault)


def test_text_names_step_path_and_reason_once() -> None:
    assert (
        str(RuntimeFault("refused", step="mount", errno=errno.EPERM, path="/p"))
        == "mount: /p: refused: operation not permitted"
    )
    assert str(RuntimeFault("/p: operation not permitted", errno=errno.EPERM, path="/p")) == "/p: operation not permitted"


def test_os_error_keeps_errno_and_path() -> None:
    fault = RuntimeFault.from_os(FileNotFoundError(errno.ENOENT, "x", b"/a\xff"), "open the file")
    assert (fault.errno, fault.path) == (errno.ENOENT, "/a\udcff")


def test_unknown_kind_is_still_a_fault() -> None:
    assert type(from_value({"kind": "future", "message": "m", "odd": 1})) is RuntimeFault


def test_a_path_of_a_megabyte_does_not_keep_its_fault_from_crossing() -> None:
    fault = RuntimeFault("it is " + "x" * 1_000_000, step="mount", path="/" + "d" * 1_000_000)
    value = fault.to_value()
    assert len(str(value)) < 20_000
    assert str(from_value(value)).startswith("mount: /ddd")
    assert "(1000006 characters)" in str(from_value(value))
