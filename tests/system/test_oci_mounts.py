"""mounts add and remove: a running container gets mounts and loses them."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from pathlib import Path

    from tests.system.oci_node import Oci

pytestmark = pytest.mark.system


def listed(folder: Path, *mounts: dict[str, Any]) -> str:
    """Write a file with these mounts and give its path."""
    path = folder / "mounts.json"
    path.write_text(json.dumps(mounts))
    return str(path)


@pytest.mark.parametrize("user_namespace", [False, True])
def test_mounts_come_and_go(ours: Oci, user_namespace: bool) -> None:
    if user_namespace:
        ours.config["linux"]["namespaces"].append({"type": "user"})
        maps = [{"containerID": 0, "hostID": 100_000, "size": 65_536}]
        ours.config["linux"] |= {"uidMappings": maps, "gidMappings": maps}
    source = ours.bundle / "source"
    source.mkdir()
    (source / "file").write_text("hello\n")
    (ours.rootfs / "mnt").mkdir(exist_ok=True)
    ours.config["mounts"].append({"destination": "/mnt", "type": "tmpfs", "source": "tmpfs"})
    name = ours.start("sleep", "100")
    path = listed(
        ours.bundle,
        {"destination": "/mnt/data", "source": str(source), "options": ["bind", "ro"]},
        {"destination": "/mnt/scratch", "type": "tmpfs", "source": "tmpfs", "options": ["size=64k", "noexec"]},
    )
    ours.ok("mounts", "add", name, path)
    assert ours.ok("exec", name, "cat", "/mnt/data/file") == "hello\n"
    assert ours.call("exec", name, "touch", "/mnt/data/new").returncode != 0
    seen = ours.ok("exec", name, "grep", "/mnt/", "/proc/self/mountinfo")
    assert "/mnt/scratch" in seen
    assert "noexec" in seen
    ours.ok("mounts", "remove", name, path)
    assert "/mnt/" not in ours.ok("exec", name, "cat", "/proc/self/mountinfo").replace("/mnt ", "")
    done = ours.call("mounts", "remove", name, path)
    assert done.returncode == 1
    assert "unmount /mnt/scratch" in done.stderr


def test_all_or_none(ours: Oci) -> None:
    name = ours.start("sleep", "100")
    (ours.rootfs / "good").mkdir()
    before = ours.ok("exec", name, "cat", "/proc/self/mountinfo")
    path = listed(
        ours.bundle,
        {"destination": "/good", "type": "tmpfs", "source": "tmpfs"},
        {"destination": "/proc/sys", "type": "tmpfs", "source": "tmpfs"},
    )
    assert "inside /proc" in ours.call("mounts", "add", name, path).stderr
    path = listed(
        ours.bundle,
        {"destination": "/good", "type": "tmpfs", "source": "tmpfs"},
        {"destination": "/good/x", "type": "nosuchfs", "source": "none"},
    )
    done = ours.call("mounts", "add", name, path)
    assert done.returncode == 1
    assert "nosuchfs" in done.stderr
    assert ours.ok("exec", name, "cat", "/proc/self/mountinfo") == before


def test_a_destination_is_enough_to_remove(ours: Oci) -> None:
    (ours.rootfs / "mnt").mkdir(exist_ok=True)
    name = ours.start("sleep", "100")
    ours.ok("mounts", "add", name, listed(ours.bundle, {"destination": "/mnt", "type": "tmpfs", "source": "tmpfs"}))
    ours.ok("mounts", "remove", name, listed(ours.bundle, {"destination": "/mnt"}))
    assert " /mnt " not in ours.ok("exec", name, "cat", "/proc/self/mountinfo")


def test_a_fault_names_the_list_it_is_in(ours: Oci) -> None:
    name = ours.start("sleep", "100")
    done = ours.call("mounts", "add", name, listed(ours.bundle, {"destination": "/mnt"}))
    assert done.returncode == 1
    assert "mounts: /0/type: a mount that is no bind needs a type" in done.stderr
