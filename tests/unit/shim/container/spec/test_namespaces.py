from __future__ import annotations

import pytest

from shim.container.spec.build import build_spec
from shim.container.spec.inputs import HandlerFeatures, ResolvedUser
from shim.errors import FailedPrecondition, InvalidArgument


def namespaces(kit, own=None, pod=None, **changes):
    given = kit.inputs(
        kit.security(namespaceOptions=own) if own is not None else None,
        kit.security(namespaceOptions=pod) if pod is not None else None,
        **changes,
    )
    spec = build_spec(given)
    return {entry["type"]: entry.get("path", "new") for entry in spec["linux"]["namespaces"]}, spec


def pin(kind):
    return f"/run/wherry/pods/p/ns/{kind}"


BASE = {"mount": "new", "cgroup": "new"}
NET = {"network": pin("network"), "uts": pin("uts")}
IPC = {"ipc": pin("ipc")}


@pytest.mark.parametrize(
    ("own", "pod", "expected"),
    [
        (None, None, BASE | NET | IPC | {"pid": pin("pid")}),
        ({}, {}, BASE | NET | IPC | {"pid": pin("pid")}),
        ({"pid": "CONTAINER"}, {"pid": "CONTAINER"}, BASE | NET | IPC | {"pid": "new"}),
        ({"pid": "CONTAINER"}, {}, BASE | NET | IPC | {"pid": "new"}),
        (None, {"pid": "CONTAINER"}, BASE | NET | IPC | {"pid": "new"}),
        ({"pid": "NODE"}, {"pid": "NODE"}, BASE | NET | IPC),
        ({}, {"pid": "NODE"}, BASE | NET | IPC),
        (None, {"pid": "NODE"}, BASE | NET | IPC),
        ({"pid": "CONTAINER"}, {"pid": "NODE"}, BASE | NET | IPC | {"pid": "new"}),
        ({"pid": "TARGET", "targetId": "t"}, {"pid": "CONTAINER"}, BASE | NET | IPC | {"pid": "/proc/7/ns/pid"}),
        ({"network": "NODE", "pid": "CONTAINER"}, {"network": "NODE", "pid": "CONTAINER"}, BASE | IPC | {"pid": "new"}),
        (None, {"ipc": "NODE", "pid": "CONTAINER"}, BASE | NET | {"pid": "new"}),
    ],
)
def test_which_namespaces(kit, own, pod, expected):
    found, spec = namespaces(kit, own, pod, target_pid_path="/proc/7/ns/pid")
    assert found == expected
    assert "hostname" not in spec


def test_a_pod_without_the_shared_pid_namespace(kit):
    with pytest.raises(FailedPrecondition, match="pid"):
        namespaces(kit, pod_namespaces={})


def test_a_target_that_is_gone(kit):
    with pytest.raises(FailedPrecondition, match="target_id"):
        namespaces(kit, {"pid": "TARGET", "targetId": "t"}, {"pid": "CONTAINER"})


def test_without_pins_namespaces_are_new_and_named(kit):
    found, spec = namespaces(kit, None, {"pid": "CONTAINER"}, pod_namespaces={})
    assert found == BASE | dict.fromkeys(("network", "uts", "ipc", "pid"), "new")
    assert spec["hostname"] == "pod-host"


@pytest.mark.parametrize(
    ("user", "message"),
    [
        (ResolvedUser(uid=65535, gid=7, groups=(7, 65535)), ""),
        (ResolvedUser(uid=65536), "user 65536 is not in the pod's user namespace, which has 0..65535"),
        (ResolvedUser(uid=1, gid=70000, groups=(70000,)), "group 70000 is not"),
        (ResolvedUser(uid=1, gid=1, groups=(1, 70000)), "group 70000 is not"),
    ],
)
def test_ids_that_the_pod_s_user_namespace_lacks(kit, user, message):
    maps = [{"hostId": 100000, "containerId": 0, "length": 65536}]
    given = kit.inputs(
        None,
        kit.security(namespaceOptions={"usernsOptions": {"mode": "POD", "uids": maps, "gids": maps}}),
        user=user,
        features=HandlerFeatures(user_namespaces=True),
    )
    if not message:
        assert build_spec(given)["process"]["user"]["uid"] == 65535
        return
    with pytest.raises(InvalidArgument, match=message):
        build_spec(given)
