"""Where a container's cgroups are, and who is in them."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import pytest

from conformance.oci.support import cgroups, host, wait

if TYPE_CHECKING:
    from conformance.oci.support.case import Case

pytestmark = pytest.mark.rule("config-linux.md#cgroups-path")


def test_absolute_path(case: Case) -> None:
    """An absolute cgroupsPath is below the mount point of each hierarchy."""
    host.need(not case.runtime.systemd, "the systemd driver names cgroups in its own way")
    case.sleeper()
    for controller in host.controllers() - {"rdma", "misc"}:
        if host.v2() or os.path.isdir(f"{host.cgroup_mounts()[controller]}/{case.id}"):
            assert cgroups.folder(case.pid(), controller).endswith(f"/{case.id}")
    assert cgroups.folder(case.pid(), "pids") == f"{host.CGROUPS if host.v2() else host.cgroup_mounts()['pids']}/{case.id}"


def test_nested_path(case: Case) -> None:
    """A cgroupsPath may be deep; what leads to it is made."""
    host.need(not case.runtime.systemd, "the systemd driver names cgroups in its own way")
    case.linux["cgroupsPath"] = f"/{case.id}/a/b"
    top = case.id
    case.sleeper()
    assert cgroups.folder(case.pid(), "pids").endswith(f"/{top}/a/b")
    case.ok("delete", "--force", case.id)
    for point in set(host.cgroup_mounts().values()):
        for below in (f"{top}/a/b", f"{top}/a", top):
            if os.path.isdir(f"{point}/{below}"):
                os.rmdir(f"{point}/{below}")


def test_relative_path(case: Case) -> None:
    """A relative cgroupsPath leads to the same place each time."""
    host.need(not case.runtime.systemd, "the systemd driver names cgroups in its own way")
    case.linux["cgroupsPath"] = case.ids[0]
    first = _place(case)
    assert first == _place(case)
    assert first.endswith(case.ids[0])


def _place(case: Case) -> str:
    name = case.sleeper()
    found = cgroups.folder(case.pid(), "pids")
    case.ok("delete", "--force", name)
    return found


def test_no_path(case: Case) -> None:
    """Without cgroupsPath the container has a cgroup of its own all the same."""
    del case.linux["cgroupsPath"]
    case.resources(pids={"limit": 50})
    case.sleeper()
    assert cgroups.folder(case.pid(), "pids") != cgroups.folder(os.getpid(), "pids")


def test_every_controller(case: Case) -> None:
    """The process is in the container's cgroup of each hierarchy, not in its caller's."""
    case.sleeper()
    for controller in sorted(host.controllers() & {"cpu", "memory", "pids", "devices", "freezer", "cpuset", "blkio"}):
        if controller not in {"devices", "freezer"} or not host.v2():
            assert cgroups.folder(case.pid(), controller) != cgroups.folder(os.getpid(), controller), controller


@pytest.mark.rule("config-linux.md#control-groups")
def test_children_are_in_it(case: Case) -> None:
    """What the process starts is in its cgroup."""
    case.start("sh", "-c", "sleep 300 & echo ready; wait")
    case.until_printed("ready")
    procs = host.read(f"{cgroups.folder(case.pid(), 'pids')}/cgroup.procs").split()
    assert len(procs) == 2


@pytest.mark.rule("config-linux.md#control-groups")
def test_frozen_cgroup(case: Case) -> None:
    """A container is not put into a frozen cgroup."""
    host.need(not case.runtime.systemd, "the systemd driver makes its own cgroups")
    if host.v2():
        place, word, thaw = f"{host.CGROUPS}/{case.id}", "cgroup.freeze", ("1", "0")
    else:
        host.need_controller("freezer")
        place, word, thaw = f"{host.cgroup_mounts()['freezer']}/{case.id}", "freezer.state", ("FROZEN", "THAWED")
    case.linux["cgroupsPath"] = f"/{case.id}"
    os.mkdir(place)
    try:
        _tell(f"{place}/{word}", thaw[0])
        case.write("true")
        process = case.popen("create", case.id, stdout=None, stderr=None)
        wait.wait_for(lambda: process.poll() is not None, "create to refuse a frozen cgroup", 5)
        assert process.returncode != 0
    finally:
        _tell(f"{place}/{word}", thaw[1])
        case.call("delete", "--force", case.id)
        if os.path.isdir(place):
            os.rmdir(place)


def _tell(path: str, word: str) -> None:
    if os.path.exists(path):
        with open(path, "w", encoding="ascii") as file:
            file.write(word)


@pytest.mark.rule("config-linux.md#cgroup-ownership")
@pytest.mark.parametrize(
    ("options", "namespaced", "given"), [(("rw",), True, True), (("ro",), True, False), (("rw",), False, False)]
)
def test_ownership(case: Case, *, options: tuple[str, ...], namespaced: bool, given: bool) -> None:
    """Nothing of a cgroup is the container's but what the kernel can delegate, on v2 alone, shown for writing as the root."""
    host.need_user_namespaces()
    case.userns()
    case.mount("/sys/fs/cgroup", "cgroup", *options, kind="cgroup")
    if namespaced:
        case.namespace("cgroup")
    else:
        case.drop_namespace("cgroup")
    case.sleeper()
    place = cgroups.folder(case.pid(), "pids")
    owned = {name for name in (".", *os.listdir(place)) if os.stat(f"{place}/{name}").st_uid == 200000}
    files = host.read("/sys/kernel/cgroup/delegate").split() if host.v2() and given else []
    assert owned <= {".", *files} if files else not owned
