"""CDI files: what is read of them, what is refused, and which version they need."""

from __future__ import annotations

import json

import pytest

from shim.cdi.document import parse
from shim.cdi.model import Edits, Hook, Mount, Node
from shim.cdi.names import is_qualified, wanted_devices
from shim.errors import InvalidArgument

FULL = {
    "env": ["A=1"],
    "deviceNodes": [
        {
            "path": "/dev/x",
            "hostPath": "/dev/y",
            "type": "c",
            "major": 1,
            "minor": 3,
            "fileMode": 438,
            "permissions": "rw",
            "uid": 5,
            "gid": 6,
        }
    ],
    "netDevices": [{"hostInterfaceName": "eth1", "name": "in0"}],
    "hooks": [{"hookName": "createContainer", "path": "/h", "args": ["h", "x"], "env": ["B=2"], "timeout": 3}],
    "mounts": [{"hostPath": "/a", "containerPath": "/b", "type": "none", "options": ["ro", "bind"]}],
    "intelRdt": {"closID": "c", "l3CacheSchema": "L3", "memBwSchema": "MB", "schemata": ["s"], "enableMonitoring": True},
    "additionalGids": [7],
}


def document(version: str = "1.1.0", **fields) -> dict:
    device = {"name": "d0", "containerEdits": {"env": ["X=1"]}}
    return {"cdiVersion": version, "kind": "vendor.com/class", "devices": [device], **fields}


def read(data: dict):
    return parse(json.dumps(data).encode(), "/f.json")


def test_everything() -> None:
    found = read(document(containerEdits=FULL, annotations={"a.b/c": "v"}))
    assert (found.path, found.kind, found.devices[0].name) == ("/f.json", "vendor.com/class", "vendor.com/class=d0")
    assert found.edits == Edits(
        env=("A=1",),
        nodes=(Node(path="/dev/x", host_path="/dev/y", kind="c", major=1, minor=3, mode=438, permissions="rw", uid=5, gid=6),),
        net_devices={"eth1": "in0"},
        hooks=(Hook(name="createContainer", path="/h", args=("h", "x"), env=("B=2",), timeout=3),),
        mounts=(Mount(host_path="/a", container_path="/b", kind="none", options=("ro", "bind")),),
        intel_rdt={"closID": "c", "l3CacheSchema": "L3", "memBwSchema": "MB", "schemata": ["s"], "enableMonitoring": True},
        gids=(7,),
    )


def test_yaml() -> None:
    text = """\
---
cdiVersion: "0.5.0"
kind: vendor.com/class
devices:
- name: "0"
  containerEdits:
    deviceNodes: [{path: /dev/x, fileMode: 0660}]
"""
    assert parse(text.encode(), "/f.yaml").devices[0].edits.nodes == (Node(path="/dev/x", mode=0o660),)


def edits(**fields) -> dict:
    return document(containerEdits=fields)


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (document("9.0.0"), "cdiVersion must be a version up to 1.1.0"),
        (document(kind="vendor.com"), "kind 'vendor.com' is not made like vendor/class"),
        (document(kind="1vendor/class"), "kind"),
        (document(kind="vendor/class-"), "kind"),
        (document(devices=[]), "devices is empty"),
        (document(devices={}), "devices must be a list of objects"),
        (document(devices=[{"name": "a", "containerEdits": {}}]), r"devices\[0\].containerEdits is empty"),
        (document(devices=[{"name": "-a", "containerEdits": {"env": ["X=1"]}}]), r"devices\[0\].name"),
        (document(devices=[{"name": "a", "containerEdits": {"env": ["X=1"]}}] * 2), "devices has a name twice"),
        (document(device=[]), "unknown key 'device'"),
        (document(annotations={"a b": "v"}), "annotations"),
        (document(annotations={"a": "v" * 300_000}), "annotations are larger"),
        (edits(environment=[]), "containerEdits.unknown key 'environment'"),
        (edits(env="A=1"), "containerEdits.env must be a list of strings, not 'A=1'"),
        (edits(env=["=1"]), "'=1' is not made like NAME=value"),
        (edits(deviceNodes=[{"path": ""}]), r"deviceNodes\[0\].path must be a string that is not empty"),
        (edits(deviceNodes=[{"path": "/x", "type": "z"}]), r"deviceNodes\[0\].type must be b, c, u or p, not 'z'"),
        (edits(deviceNodes=[{"path": "/x", "permissions": "rx"}]), r"deviceNodes\[0\].permissions"),
        (edits(deviceNodes=[{"path": "/x", "uid": -1}]), r"deviceNodes\[0\].uid must be an integer"),
        (edits(deviceNodes=[{"path": "/x", "major": True}]), r"deviceNodes\[0\].major"),
        (edits(deviceNodes=["/x"]), "deviceNodes must be a list of objects"),
        (edits(mounts=[{"hostPath": "/x"}]), r"mounts\[0\].containerPath"),
        (edits(hooks=[{"hookName": "never", "path": "/x"}]), r"hooks\[0\].hookName must be one of prestart"),
        (edits(hooks=[{"hookName": "poststop", "path": "/x", "env": ["x"]}]), r"hooks\[0\].env"),
        (
            edits(netDevices=[{"hostInterfaceName": "a", "name": "x"}, {"hostInterfaceName": "a", "name": "y"}]),
            r"netDevices\[1\]",
        ),
        (
            edits(netDevices=[{"hostInterfaceName": "a", "name": "x"}, {"hostInterfaceName": "b", "name": "x"}]),
            r"netDevices\[1\]",
        ),
        (edits(intelRdt={"closID": ".."}), "closID must be the name of a directory"),
        (edits(intelRdt={"enableMonitoring": "yes"}), "enableMonitoring must be true or false"),
        (edits(additionalGids=[2**32]), "additionalGids must be a list of numbers"),
    ],
)
def test_what_is_refused(data: dict, message: str) -> None:
    with pytest.raises(InvalidArgument, match=message) as caught:
        read(data)
    assert str(caught.value).startswith("CDI file /f.json")


@pytest.mark.parametrize(
    ("fields", "needed"),
    [
        ({"containerEdits": {"netDevices": [{"hostInterfaceName": "a", "name": "b"}]}}, "1.1.0"),
        ({"containerEdits": {"intelRdt": {"schemata": ["x"]}}}, "1.1.0"),
        ({"containerEdits": {"intelRdt": {"closID": "x"}}}, "0.7.0"),
        ({"containerEdits": {"additionalGids": [1]}}, "0.7.0"),
        ({"annotations": {"a": "b"}}, "0.6.0"),
        ({"kind": "vendor.com/a.b"}, "0.6.0"),
        ({"devices": [{"name": "0", "containerEdits": {"env": ["A=1"]}}]}, "0.5.0"),
        ({"containerEdits": {"deviceNodes": [{"path": "/x", "hostPath": "/y"}]}}, "0.5.0"),
        ({"containerEdits": {"mounts": [{"hostPath": "/x", "containerPath": "/y", "type": "bind"}]}}, "0.4.0"),
        ({}, "0.3.0"),
    ],
)
def test_the_version_must_have_what_is_used(fields: dict, needed: str) -> None:
    versions = ["0.2.0", "0.3.0", "0.4.0", "0.5.0", "0.6.0", "0.7.0", "0.8.0", "1.0.0", "1.1.0"]
    read(document("v" + needed, **fields))
    with pytest.raises(InvalidArgument, match=f"cdiVersion must be at least {needed}"):
        read(document(versions[versions.index(needed) - 1], **fields))


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"{", "is not JSON"),
        (b"a: [", "is not YAML"),
        (b"[]", "holds no object"),
        (b"", "holds no object"),
        (b"a: !!python/object/apply:os.system [true]", "is not YAML"),
        (b"\xff\xfe\x00", "is not YAML"),
        (b'{"a":' * 100_000, "is not JSON"),
        (b"a: &a [x]\nb: &b [*a,*a]\nc: [*b,*b]\ncdiVersion: '1.0.0'\n", "unknown key 'a'"),
    ],
)
def test_bytes_that_are_no_document(data: bytes, message: str) -> None:
    with pytest.raises(InvalidArgument, match=message):
        parse(data, "/f")


@pytest.mark.parametrize("name", ["v.com/c=d", "v/c=0:1_a.b-c", "vendor.com/class_x=all"])
def test_names(name: str) -> None:
    assert is_qualified(name)


@pytest.mark.parametrize(
    "name", ["", "d", "v=d", "v/c", "v/c=", "/c=d", "v/=d", "1v/c=d", "v/c/x=d", "v/c=d=", "v/c=-d", "v/c=d\n"]
)
def test_names_that_are_none(name: str) -> None:
    assert not is_qualified(name)
    with pytest.raises(InvalidArgument, match="vendor/class=device"):
        wanted_devices([name], {})


def test_devices_by_field_and_by_annotation() -> None:
    annotations = {"cdi.k8s.io/b": "v/c=3", "cdi.k8s.io/a": "v/c=2,v/c=1", "other/x": "nonsense"}
    assert wanted_devices(["v/c=1", "v/c=1"], annotations) == ["v/c=1", "v/c=2", "v/c=3"]
    with pytest.raises(InvalidArgument):
        wanted_devices([], {"cdi.k8s.io/x": "v/c=1, v/c=2"})
