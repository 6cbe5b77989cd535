"""The parser: every document becomes values, or a SpecFault that points at what is wrong."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from runtime.errors import SpecFault, from_value
from runtime.spec.defaults import default_spec
from runtime.spec.model import IdMapping, IoPriority, Namespace, TimeOffset
from runtime.spec.parse import DOCUMENT_LIMIT, parse_process, parse_spec
from runtime.spec.resources import DeviceRule, RdmaLimit
from runtime.spec.validate import validate

FULL: dict[str, Any] = {
    "ociVersion": "1.3.0",
    "process": {
        "args": ["sh"],
        "cwd": "/",
        "user": {"uid": 1, "gid": 2, "umask": 18, "additionalGids": [3, 4]},
        "consoleSize": {"height": 24, "width": 80},
        "capabilities": {"bounding": ["CAP_KILL"]},
        "rlimits": [{"type": "RLIMIT_NOFILE", "soft": 1, "hard": 18446744073709551615}],
        "oomScoreAdj": -5,
        "scheduler": {"policy": "SCHED_FIFO", "priority": 3},
        "ioPriority": {"class": "IOPRIO_CLASS_BE", "priority": 7},
        "execCPUAffinity": {"initial": "0-1", "final": "1"},
    },
    "root": {"path": "rootfs"},
    "mounts": [{"destination": "/a", "type": "bind", "source": "/b", "options": ["rbind"]}],
    "hooks": {"poststop": [{"path": "/bin/true", "args": ["true"], "timeout": 3}]},
    "annotations": {"a/b": "c"},
    "linux": {
        "namespaces": [{"type": "mount"}, {"type": "user"}, {"type": "time"}, {"type": "network", "path": "/run/netns/x"}],
        "uidMappings": [{"containerID": 0, "hostID": 1000, "size": 10}],
        "gidMappings": [{"containerID": 0, "hostID": 1000, "size": 10}],
        "timeOffsets": {"boottime": {"secs": -3, "nanosecs": 5}},
        "devices": [{"path": "/dev/fuse", "type": "c", "major": 10, "minor": 229, "fileMode": 438, "uid": 0}],
        "resources": {
            "devices": [{"allow": False}, {"allow": True, "type": "c", "major": -1, "minor": 3, "access": "rw"}],
            "memory": {"limit": 100, "swap": 200},
            "cpu": {"shares": 2, "quota": -1, "cpus": "0-3,7"},
            "pids": {"limit": 5},
            "rdma": {"mlx": {"hcaHandles": 3}},
            "unified": {"memory.high": "max"},
        },
        "seccomp": {
            "defaultAction": "SCMP_ACT_ERRNO",
            "syscalls": [
                {"names": ["read"], "action": "SCMP_ACT_ALLOW", "args": [{"index": 0, "value": 1, "op": "SCMP_CMP_EQ"}]}
            ],
        },
        "sysctl": {"net.core.somaxconn": "5"},
    },
}


def with_change(pointer: str, value: object) -> dict[str, Any]:
    """Give FULL with one part replaced; "-" appends to a list, None removes."""
    document: Any = json.loads(json.dumps(FULL))
    at = document
    *path, last = pointer.strip("/").split("/")
    for step in path:
        at = at[int(step)] if isinstance(at, list) else at.setdefault(step, {})
    if isinstance(at, list):
        at[int(last)] = value
    else:
        at[last] = value
    return document


def test_full_document_keeps_every_fact() -> None:
    spec = parse_spec(json.dumps(FULL).encode())
    validate(spec)
    assert spec.process is not None
    assert spec.process.user.additional_gids == (3, 4)
    assert spec.process.rlimits[0].hard == 2**64 - 1
    assert spec.process.io_priority == IoPriority(io_class="IOPRIO_CLASS_BE", priority=7)
    assert spec.annotations == (("a/b", "c"),)
    assert spec.linux.namespaces[3] == Namespace(type="network", path="/run/netns/x")
    assert spec.linux.time_offsets == (TimeOffset(clock="boottime", secs=-3, nanosecs=5),)
    assert spec.linux.uid_mappings == (IdMapping(container_id=0, host_id=1000, size=10),)
    resources = spec.linux.resources
    assert resources.devices == (DeviceRule(allow=False), DeviceRule(allow=True, type="c", minor=3, access="rw"))
    assert resources.rdma == (RdmaLimit(device="mlx", hca_handles=3),)
    assert resources.unified == (("memory.high", "max"),)
    assert resources.memory.reservation is None
    assert spec.linux.devices[0].file_mode == 0o666
    assert spec.hooks.poststop[0].timeout == 3


def test_unknown_members_and_nulls_are_ignored() -> None:
    spec = parse_spec(with_change("/process/apparmorProfile", None) | {"windows": {"x": 1}, "future": [1]})
    assert spec.process is not None
    assert spec.process.apparmor_profile == ""


def test_bytes_that_are_not_utf8_reach_the_environment_unchanged() -> None:
    document = json.dumps(with_change("/process/env", ["A=@"])).encode().replace(b"@", b"\xff")
    process = parse_spec(document).process
    assert process is not None
    assert process.env[0].encode("utf-8", "surrogateescape") == b"A=\xff"


@pytest.mark.parametrize(
    ("pointer", "value", "message"),
    [
        ("/ociVersion", None, "is missing"),
        ("/ociVersion", 1, "must be text, not an integer"),
        ("/process", [], "must be an object, not a list"),
        ("/process/args", "sh", "must be a list, not text"),
        ("/process/args/0", 3, "must be text"),
        ("/process/args/0", "a\0b", "NUL"),
        ("/process/args/0", "\ud800", "surrogate"),
        ("/process/terminal", "yes", "must be true or false"),
        ("/process/user/uid", -1, "is not between 0 and"),
        ("/process/user/uid", True, "must be an integer, not true or false"),
        ("/process/user/uid", 1.0, "must be an integer, not a number"),
        ("/process/user/uid", 2**32 - 1, "is not between"),
        ("/process/user/gid", 2**32 - 1, "is not between"),
        ("/process/user/additionalGids/1", 2**32, "is not between"),
        ("/process/consoleSize/height", 2**16, "is not between"),
        ("/process/rlimits/0/soft", None, "is missing"),
        ("/root/path", "", "must not be empty"),
        ("/mounts/0/destination", None, "is missing"),
        ("/mounts/0/options/0", {}, "must be text, not an object"),
        ("/hooks/poststop/0/timeout", 0, "greater than 0"),
        ("/annotations/a", 5, "must be text"),
        ("/linux/namespaces/0/type", None, "is missing"),
        ("/linux/uidMappings/0/size", 0, "at least 1"),
        ("/linux/uidMappings/0/hostID", 2**32 - 1, "past the last id"),
        ("/linux/timeOffsets/boottime/nanosecs", 10**9, "is not between"),
        ("/linux/resources/memory/limit", -2, "is not between"),
        ("/linux/resources/cpu/shares", "2", "must be an integer"),
        ("/linux/resources/rdma/mlx", 5, "must be an object"),
        ("/linux/seccomp/syscalls/0/names", [], "at least one"),
        ("/linux/seccomp/syscalls/0/args/0/index", 6, "is not between 0 and 5"),
        ("/linux/sysctl/net.core.somaxconn", 5, "must be text"),
    ],
)
def test_fault_points_at_what_is_wrong(pointer: str, value: object, message: str) -> None:
    with pytest.raises(SpecFault) as caught:
        parse_spec(with_change(pointer, value))
    assert caught.value.pointer == pointer
    assert message in str(caught.value)
    assert str(caught.value).startswith(f"config.json: {pointer}: ")
    assert from_value(caught.value.to_value()).to_value() == caught.value.to_value()


def test_pointer_escapes_slash_and_tilde() -> None:
    with pytest.raises(SpecFault) as caught:
        parse_spec(FULL | {"annotations": {"a/b~c": 1}})
    assert caught.value.pointer == "/annotations/a~1b~0c"


@pytest.mark.parametrize("data", [b"", b"{", b"[]", b"null", b'{"a":1} x', b'{"a":NaN}', b"[" * 200_000, b'"' + b"a" * 9])
def test_what_is_no_json_object_is_refused(data: bytes) -> None:
    with pytest.raises(SpecFault, match=r"^config\.json: "):
        parse_spec(data)


def test_document_is_bounded() -> None:
    with pytest.raises(SpecFault, match="longer than"):
        parse_spec(b" " * (DOCUMENT_LIMIT + 1))


def test_process_document_is_named() -> None:
    with pytest.raises(SpecFault) as caught:
        parse_process(b'{"user": 3}', document="p.json")
    assert str(caught.value) == "p.json: /user: must be an object, not an integer"


SCALARS = st.one_of(st.none(), st.booleans(), st.integers(-(2**65), 2**65), st.floats(), st.text(max_size=8))
WORDS = st.sampled_from(
    ["/", "", "..", "a", "CAP_KILL", "mount", "user", "bind", "SCMP_ACT_ERRNO", "SCMP_ACT_NOTIFY", "SCHED_FIFO", "1-", "a"]
)
VALUES = st.recursive(
    st.one_of(SCALARS, WORDS),
    lambda inner: st.one_of(st.lists(inner, max_size=3), st.dictionaries(WORDS, inner, max_size=3)),
    max_leaves=6,
)


def pointers(value: Any, at: str = "") -> list[str]:
    """Give the pointer of every part of a document."""
    if isinstance(value, dict):
        return [at, *(found for key, part in value.items() if "/" not in key for found in pointers(part, f"{at}/{key}"))]
    if isinstance(value, list):
        return [at, *(found for index, part in enumerate(value) for found in pointers(part, f"{at}/{index}"))]
    return [at]


@settings(max_examples=400)
@given(pointer=st.sampled_from([pointer for pointer in pointers(FULL) if pointer]), value=VALUES)
def test_any_change_parses_and_validates_or_is_a_spec_fault(pointer: str, value: object) -> None:
    try:
        validate(parse_spec(with_change(pointer, value)))
    except SpecFault:
        return


@settings(max_examples=200)
@given(data=st.binary(max_size=64))
def test_any_bytes_are_a_spec_fault(data: bytes) -> None:
    with pytest.raises(SpecFault):
        parse_spec(data)


@pytest.mark.parametrize("rootless", [False, True])
def test_default_document_is_valid(rootless: bool) -> None:
    validate(parse_spec(default_spec(rootless=rootless)))


@pytest.mark.parametrize(("text", "access"), [("", "rwm"), ("r", "r"), ("rwa", "rw"), ("a", "a"), ("rx", "rx")])
def test_accesses_of_a_device_rule(text: str, access: str) -> None:
    rules = [{"allow": True, "access": text}]
    assert parse_spec(with_change("/linux/resources/devices", rules)).linux.resources.devices[0].access == access


@pytest.mark.parametrize(("version", "limit"), [("1.0.2-dev", None), ("1.1.0+dev", None), ("1.2.1", None), ("1.3.0", 0)])
def test_no_limit_of_processes_has_had_two_spellings(version: str, limit: int | None) -> None:
    document = with_change("/linux/resources/pids/limit", 0)
    assert parse_spec(document | {"ociVersion": version}).linux.resources.pids_limit == limit
