"""Which documents one process can make a container of."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest

from runtime.plan.alone import alone_in

if TYPE_CHECKING:
    from collections.abc import Callable

PATH = "/pods/a"


def text_of(change: Callable[[dict[str, Any]], object] = lambda _document: None) -> bytes:
    namespaces = [{"type": "pid"}, {"type": "mount"}, {"type": "network", "path": "/run/netns/a"}]
    document = {"hooks": {}, "mounts": [], "linux": {"namespaces": namespaces, "cgroupsPath": PATH}}
    change(document)
    return json.dumps(document).encode()


def linux(**fields: Any) -> bytes:
    return text_of(lambda document: document["linux"].update(fields))


def namespaces(*entries: dict[str, str]) -> bytes:
    return linux(namespaces=[{"type": "mount"}, *entries])


def test_the_usual_container_of_a_pod() -> None:
    assert alone_in(text_of()) == PATH
    assert alone_in(linux(seccomp={"defaultAction": "SCMP_ACT_ERRNO"}, netDevices={}, resources={"pids": {"limit": 5}})) == PATH


MORE = {
    "no document": b"",
    "no JSON": b"{",
    "a list": b"[]",
    "no linux": b"{}",
    "no cgroup": text_of(lambda document: document["linux"].pop("cgroupsPath")),
    "a relative cgroup": linux(cgroupsPath="a"),
    "systemd's cgroup": linux(cgroupsPath="a.slice:b:c"),
    "a hook": text_of(lambda document: document.update(hooks={"poststop": [{"path": "/bin/true"}]})),
    "the host's processes": namespaces(),
    "another's processes": namespaces({"type": "pid", "path": "/proc/1/ns/pid"}),
    "no mounts of its own": linux(namespaces=[{"type": "pid"}]),
    "another's mounts": linux(namespaces=[{"type": "pid"}, {"type": "mount", "path": "/proc/1/ns/mnt"}]),
    "users": namespaces({"type": "pid"}, {"type": "user"}),
    "another's users": namespaces({"type": "pid"}, {"type": "user", "path": "/proc/1/ns/user"}),
    "a clock": namespaces({"type": "pid"}, {"type": "time"}),
    "ids": linux(uidMappings=[{"containerID": 0, "hostID": 0, "size": 1}]),
    "a device to be moved": linux(netDevices={"eth7": {}}),
    "cache": linux(intelRdt={"closID": "a"}),
    "an agent": linux(seccomp={"syscalls": [{"names": ["mkdir"], "action": "SCMP_ACT_NOTIFY"}]}),
    "a mount with other ids": text_of(lambda document: document["mounts"].append({"options": ["rbind", "ridmap"]})),
    "a mount with ids of its own": text_of(lambda document: document["mounts"].append({"gidMappings": [{}]})),
    "what is no list": linux(namespaces=7),
}


@pytest.mark.parametrize("text", MORE.values(), ids=MORE.keys())
def test_what_takes_a_creator(text: bytes) -> None:
    assert alone_in(text) == ""
