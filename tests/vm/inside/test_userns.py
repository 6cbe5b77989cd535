"""Pods with a user namespace on a kernel whose overlayfs takes only layers that are mounted (before Linux 6.15)."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from shim.gen.runtime.v1 import api_pb2
from tests.system.test_cri_userns import FIRST, run
from tests.system.test_cri_volumes import volume_image

if TYPE_CHECKING:
    from tests.support.cri import PodMaker
    from tests.support.daemon import Wherryd

pytestmark = pytest.mark.vm

SCRIPT = """
stat -c %u:%g / /bin/busybox /v/f /data/f
touch /v/mine; echo x > /new; chown 3:4 /new; echo s > /dev/shm/s; echo h >> /etc/hosts
grep ' / ' /proc/self/mounts
cat /proc/self/attr/current
"""


def mounts() -> list[str]:
    return Path("/proc/self/mountinfo").read_text().splitlines()


def test_its_files_and_those_of_the_node(wherryd: Wherryd, pods: PodMaker) -> None:
    """Owners are right on both sides, an image's and a host's volume have their own ids, and nothing stays mounted."""
    status = wherryd.cri.runtime.Status(api_pb2.StatusRequest())
    assert all(handler.features.user_namespaces for handler in status.runtime_handlers)
    wherryd.load({"localhost/volumes:1": volume_image()})
    folder = wherryd.folder / "volume"
    folder.mkdir()
    (folder / "f").touch()
    os.chown(folder / "f", 5, 6)
    mapping = api_pb2.IDMapping(host_id=FIRST, container_id=0, length=65536)
    mount = api_pb2.Mount(container_path="/v", host_path=str(folder), uidMappings=[mapping], gidMappings=[mapping])
    before = mounts()
    printed = run(wherryd, pods, SCRIPT, "localhost/volumes:1", mounts=[mount]).splitlines()
    assert printed[:4] == ["0:0", "0:0", "5:6", "0:0"]
    assert printed[4].startswith("overlay / overlay rw")
    assert "/proc/" not in printed[4]
    assert printed[5] == "wherry-default (enforce)"
    assert (os.stat(folder / "mine").st_uid, os.stat(folder / "mine").st_gid) == (0, 0)
    (written,) = (path for path in (wherryd.root / "containers").rglob("new") if path.is_file())
    assert (written.stat().st_uid, written.stat().st_gid) == (FIRST + 3, FIRST + 4)
    assert [line for line in mounts() if line not in before and (" - overlay " in line or "layers" in line)] == []
