"""The messages of the monitor's protocol: values out are values in, and garbage is named."""

from __future__ import annotations

import contextlib
import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shim.errors import InvalidArgument
from shim.monitor.protocol import (
    ContainerCreate,
    ExecRequest,
    ExitRecord,
    IdMap,
    MonitorContainer,
    NamespaceRequest,
    PodNamespaces,
    RootfsMount,
    decode,
    encode,
)

VALUES = [
    NamespaceRequest(
        net_pin="/run/netns/x", ipc=True, uid_maps=(IdMap(container_id=0, host_id=1, size=2),), sysctls={"net.a": "1"}
    ),
    PodNamespaces(paths={"network": "/x"}, reaper_pid=7),
    ContainerCreate(container_id="a", bundle="/b", state_root="/s", rootfs=RootfsMount(lower=("/l",), upper="/u", work="/w")),
    ExecRequest(container_id="a", process={"args": ["true"], "user": {"uid": 1}}, timeout_s=1.5),
    MonitorContainer(id="a", pid=1, status="stopped", exit=ExitRecord(id="a", pid=1, exit_code=3, exited_at_ns=4)),
]


@pytest.mark.parametrize("value", VALUES, ids=lambda value: type(value).__name__)
def test_values_survive_the_wire(value: Any) -> None:
    assert decode(type(value), json.loads(json.dumps(encode(value)))) == value


def test_a_newer_peer_may_say_more() -> None:
    assert decode(PodNamespaces, {"paths": {}, "from_the_future": 1}) == PodNamespaces()


@pytest.mark.parametrize(
    ("kind", "value", "named"),
    [
        (ContainerCreate, {"container_id": "a", "bundle": "/b"}, "state_root is missing"),
        (ContainerCreate, {"container_id": 1, "bundle": "/b", "state_root": "/s"}, "container_id must be str, not int"),
        (ContainerCreate, {"container_id": "a\0", "bundle": "/b", "state_root": "/s"}, "zero byte"),
        (ContainerCreate, {"container_id": "a", "bundle": "/b", "state_root": "/s", "rootfs": {}}, r"rootfs\.lower is missing"),
        (ContainerCreate, {"container_id": "a", "bundle": "/b", "state_root": "/s", "terminal": 1}, "terminal must be bool"),
        (NamespaceRequest, {"uid_maps": [{"container_id": 0, "host_id": 0, "size": "1"}]}, r"uid_maps\[0\]\.size must be int"),
        (NamespaceRequest, {"sysctls": {"a": 1}}, r"sysctls\.a must be str"),
        (NamespaceRequest, [], "must be an object"),
    ],
)
def test_garbage_is_named(kind: type, value: Any, named: str) -> None:
    with pytest.raises(InvalidArgument, match=named):
        decode(kind, value)


anything = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(["id", "paths", "rootfs", "lower"]), inner),
    max_leaves=10,
)


@given(
    st.sampled_from([NamespaceRequest, PodNamespaces, ContainerCreate, ExecRequest, MonitorContainer]),
    st.dictionaries(
        st.sampled_from(["container_id", "bundle", "state_root", "rootfs", "paths", "sysctls", "process", "id", "exit"]),
        anything,
    ),
)
def test_nothing_but_invalid_argument_comes_out(kind: type, value: dict[str, Any]) -> None:
    with contextlib.suppress(InvalidArgument):
        assert isinstance(decode(kind, value), kind)
