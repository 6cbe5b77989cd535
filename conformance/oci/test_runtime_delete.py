"""The operation that undoes create."""

from __future__ import annotations

import os
import subprocess
from typing import TYPE_CHECKING

import pytest

from conformance.oci.support import host, leaks, wait

if TYPE_CHECKING:
    from conformance.oci.support.case import Case

pytestmark = pytest.mark.rule("runtime.md#delete")


def test_stopped(case: Case) -> None:
    """A stopped container can be deleted, and is no more."""
    name = case.start("true")
    case.until("stopped")
    case.ok("delete", name)
    case.fails("state", name)


def test_running(case: Case) -> None:
    """To delete a running container is an error and has no effect on it."""
    name = case.sleeper()
    pid = case.pid()
    case.fails("delete", name)
    assert case.status() == "running"
    assert case.pid() == pid


def test_unknown(case: Case) -> None:
    """To delete a container that does not exist is an error."""
    case.fails("delete", "judge-nobody")


def test_twice(case: Case) -> None:
    """To delete a container a second time is an error."""
    name = case.start("true")
    case.until("stopped")
    case.ok("delete", name)
    case.fails("delete", name)


def test_without_id(case: Case) -> None:
    """Delete without an id is an error."""
    case.fails("delete")


def test_cgroup_goes(case: Case) -> None:
    """The cgroup that create made is deleted."""
    name = case.start("true")
    made = list(leaks.cgroups_named(name))
    case.until("stopped")
    case.ok("delete", name)
    assert made, "the container had no cgroup where cgroupsPath said"
    assert not list(leaks.cgroups_named(name))


def test_state_goes(case: Case) -> None:
    """What is kept below --root for a container goes with it."""
    name = case.start("true")
    assert name in leaks.left_state(case.root)
    case.until("stopped")
    case.ok("delete", name)
    assert name not in leaks.left_state(case.root)


def test_other_containers_stay(case: Case) -> None:
    """Deleting one container leaves others alone."""
    first = case.start("true")
    second = case.sleeper()
    case.until("stopped", first)
    case.ok("delete", first)
    assert case.status(second) == "running"


def test_joined_namespace_stays(case: Case) -> None:
    """A namespace that was joined, not created, is not deleted."""
    holder = subprocess.Popen(["unshare", "-n", "sh", "-c", "echo; exec sleep 600"], stdout=subprocess.PIPE)
    wait.ours.add(holder.pid)
    try:
        assert holder.stdout is not None
        holder.stdout.readline()
        case.namespace("network", f"/proc/{holder.pid}/ns/net")
        name = case.start("true")
        case.until("stopped")
        case.ok("delete", name)
        assert os.path.exists(f"/proc/{holder.pid}/ns/net")
        assert holder.poll() is None
    finally:
        holder.kill()
        holder.communicate()
        wait.ours.discard(holder.pid)


def test_present_cgroup_of_others_stays(case: Case) -> None:
    """A cgroup above the container's that somebody else made is not deleted."""
    host.need(not case.runtime.systemd, "the systemd driver names its own parents")
    point = host.cgroup_mounts().get("pids") or host.CGROUPS
    parent = f"{point}/{case.id}"
    os.mkdir(parent)
    try:
        case.linux["cgroupsPath"] = f"/{case.id}/inner"
        case.write("true")
        case.ok("run", case.id)
        assert os.path.isdir(parent)
        assert not os.path.isdir(f"{parent}/inner")
    finally:
        for place in set(host.cgroup_mounts().values()):
            if os.path.isdir(f"{place}/{case.id}"):
                os.rmdir(f"{place}/{case.id}")


def test_rootfs_stays(case: Case) -> None:
    """The bundle and what was written into its root stay."""
    name = case.start("sh", "-c", "echo kept > /kept")
    case.until("stopped")
    case.ok("delete", name)
    assert (case.rootfs / "kept").read_text() == "kept\n"
    assert (case.bundle / "config.json").exists()


def test_after_the_bundle_is_gone(case: Case) -> None:
    """Delete does not depend on the bundle."""
    name = case.start("true")
    case.until("stopped")
    (case.bundle / "config.json").unlink()
    case.ok("delete", name, cwd="/")


def test_sub_cgroups_go(case: Case) -> None:
    """Cgroups that were made below the container's by its processes go with it."""
    name = case.start("true")
    case.until("stopped")
    for folder in leaks.cgroups_named(name):
        os.makedirs(f"{folder}/below/deeper")
    case.ok("delete", name)
    assert not list(leaks.cgroups_named(name))
