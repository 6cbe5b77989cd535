"""Id-mapped mounts and the root overlay of a container with a user namespace: disk ids, host ids and container ids."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from pathlib import Path

    from tests.system.oci_node import Oci

pytestmark = pytest.mark.system

FIRST = 100000
OVERFLOW = "65534:65534"
FULL = [{"containerID": 0, "hostID": FIRST, "size": 65536}]


def give_user_namespace(ours: Oci) -> None:
    ours.config["linux"]["namespaces"].append({"type": "user"})
    ours.config["linux"].update(uidMappings=FULL, gidMappings=FULL)
    os.chown(ours.rootfs, FIRST, FIRST)
    for name in ("proc", "dev", "sys", "data"):
        (ours.rootfs / name).mkdir(exist_ok=True)


def volume(ours: Oci, *options: str, mappings: list[dict[str, int]] | None = None) -> Path:
    """Mount a directory with a file of user 3, group 4 and one of root on /data."""
    source = ours.bundle / "volume"
    source.mkdir()
    (source / "f").touch()
    (source / "g").touch()
    os.chown(source / "f", 3, 4)
    mount: dict[str, Any] = {"destination": "/data", "type": "bind", "source": str(source), "options": ["rbind", *options]}
    if mappings:
        mount.update(uidMappings=mappings, gidMappings=mappings)
    ours.config["mounts"].append(mount)
    return source


def owners(ours: Oci, *paths: str) -> list[str]:
    return ours.shell(f"stat -c %u:%g {' '.join(paths)}").split()


def test_the_container_s_own_map_shows_the_ids_of_the_disk(ours: Oci) -> None:
    give_user_namespace(ours)
    source = volume(ours, "idmap")
    assert owners(ours, "/data/f", "/data/g") == ["3:4", "0:0"]
    ours.config["process"]["user"] = {"uid": 3, "gid": 4}
    os.chown(source, 3, 4)
    ours.shell("touch /data/new")
    status = (source / "new").stat()
    assert (status.st_uid, status.st_gid) == (3, 4)


def test_without_it_the_container_s_root_is_nobody_there(ours: Oci) -> None:
    give_user_namespace(ours)
    volume(ours)
    assert owners(ours, "/data/g") == [OVERFLOW]


def test_a_mount_may_have_maps_of_its_own(ours: Oci) -> None:
    (ours.rootfs / "data").mkdir()
    volume(ours, mappings=[{"containerID": 3, "hostID": 1003, "size": 2}])
    assert owners(ours, "/data/f", "/data/g") == ["1003:1004", OVERFLOW]


def test_a_range_given_with_the_option(ours: Oci) -> None:
    (ours.rootfs / "data").mkdir()
    volume(ours, "idmap=uids=0-10-5;gids=0-20-5")
    assert owners(ours, "/data/f") == ["13:24"]


@pytest.mark.parametrize(("word", "below"), [("idmap", OVERFLOW), ("ridmap", "3:4")])
def test_only_the_recursive_word_reaches_the_mounts_below(ours: Oci, word: str, below: str) -> None:
    give_user_namespace(ours)
    source = volume(ours, word)
    (source / "sub").mkdir()
    other = ours.bundle / "other"
    other.mkdir()
    (other / "h").touch()
    os.chown(other / "h", 3, 4)
    subprocess.run(["mount", "--bind", other, source / "sub"], check=True)
    try:
        assert owners(ours, "/data/f", "/data/sub/h") == ["3:4", below]
    finally:
        subprocess.run(["umount", source / "sub"], check=True)


def test_the_namespace_of_another_container_maps_too(ours: Oci) -> None:
    give_user_namespace(ours)
    first = ours.start("sleep", "60")
    pid = ours.state(first)["pid"]
    for namespace in ours.config["linux"]["namespaces"]:
        if namespace["type"] == "user":
            namespace["path"] = f"/proc/{pid}/ns/user"
    del ours.config["linux"]["uidMappings"], ours.config["linux"]["gidMappings"]
    volume(ours, "idmap")
    assert owners(ours, "/data/f") == ["3:4"]


def test_a_file_system_that_cannot_is_named(ours: Oci) -> None:
    (ours.rootfs / "data").mkdir()
    mapping = [{"containerID": 0, "hostID": 1, "size": 1}]
    mount = {"destination": "/data", "type": "bind", "source": "/proc", "options": ["bind"]}
    ours.config["mounts"].append(mount | {"uidMappings": mapping, "gidMappings": mapping})
    done = ours.run("true")
    assert done.returncode == 1
    assert "/proc" in done.stderr
    assert "id-mapped" in done.stderr


MAKE = """
import json, os, sys
from runtime import api
from runtime.kernel.prctl import set_child_subreaper
order = json.loads(sys.argv[1])
set_child_subreaper()
layers = api.RootfsMount(lower=tuple(order["lower"]), upper=order["upper"], work=order["work"])
request = api.CreateRequest(container_id=order["id"], state_root=order["root"], bundle=order["bundle"], rootfs=layers)
pid = api.create(request).pid
api.start(order["root"], order["id"])
code = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
api.delete(order["root"], order["id"])
sys.exit(code)
"""


@pytest.mark.parametrize("writable", [True, False])
def test_layers_keep_their_ids_on_disk_and_show_the_container_s(ours: Oci, writable: bool) -> None:
    give_user_namespace(ours)
    layer, bundle = ours.bundle / "layer", ours.bundle / "empty"
    for folder in (layer, bundle / "rootfs", ours.bundle / "upper", ours.bundle / "work"):
        folder.mkdir(parents=True)
    os.chown(ours.rootfs, 0, 0)
    (layer / "f").write_text("old\n")
    os.chown(layer / "f", 3, 4)
    script = "stat -c %u:%g / /bin /f; " + ("echo new > /f; touch /made; stat -c %u:%g /made /f" if writable else "true")
    ours.config["process"]["capabilities"] = {
        kind: ["CAP_DAC_OVERRIDE"] for kind in ("bounding", "effective", "permitted", "inheritable")
    }
    ours.config["root"]["readonly"] = False
    ours.config["process"]["args"] = ["sh", "-ec", script]
    (bundle / "config.json").write_text(json.dumps(ours.config))
    order = {
        "id": ours.new_id(),
        "root": str(ours.root),
        "bundle": str(bundle),
        "lower": [str(layer), str(ours.rootfs)],
        "upper": str(ours.bundle / "upper") if writable else None,
        "work": str(ours.bundle / "work") if writable else None,
    }
    done = subprocess.run(
        [sys.executable, "-c", MAKE, json.dumps(order)], capture_output=True, text=True, check=False, timeout=60
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.split() == ["0:0", "0:0", "3:4"] + (["0:0", "3:4"] if writable else [])
    assert (layer / "f").read_text() == "old\n"
    if writable:
        status = (ours.bundle / "upper" / "f").stat()
        assert (status.st_uid, status.st_gid) == (FIRST + 3, FIRST + 4)
