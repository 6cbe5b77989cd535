"""VOLUMEs of an image, and host paths on a file server that is dead."""

from __future__ import annotations

import json
import os
import tarfile
import time
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import grpc
import pytest

from runtime.kernel.mount import MNT_DETACH, mount, umount2
from shim.gen.runtime.v1 import api_pb2
from tests.support import images
from tests.support.daemon import BUSYBOX

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.support.cri import PodMaker
    from tests.support.daemon import Wherryd

pytestmark = pytest.mark.system

IMAGE = "localhost/volumes:1"


def volume_image(*paths: str, entries: list[tuple[tarfile.TarInfo, bytes]] | None = None) -> images.TestImage:
    """Give busybox with VOLUMEs (/data with a file when none are given) over layers with these entries on top."""
    default = [images.folder("data", 0o750), images.entry("data/f", "x")]
    config = {"Volumes": {path: {} for path in paths or ("/data",)}}
    return images.busybox_image(config=config, extra=(images.layer(default if entries is None else entries),))


def run(wherryd: Wherryd, pods: PodMaker, script: str, **fields: Any) -> tuple[str, str]:
    """Run a script in a container of IMAGE and give (container, output)."""
    config = pods.pod()
    pod = wherryd.cri.run_pod(config)
    container = wherryd.cri.create(pod, pods.container(IMAGE, ["sleep", "1000"], **fields), config)
    wherryd.cri.start(container)
    done = wherryd.cri.execute(container, "/bin/sh", "-ec", script)
    assert (done.exit_code, done.stderr) == (0, b"")
    return container, done.stdout.decode()


def volume_folders(wherryd: Wherryd, container: str) -> dict[str, str]:
    top = f"{wherryd.root}/containers/{container}/volumes"
    spec = json.loads(Path(wherryd.root, "containers", container, "config.json").read_text())
    return {one["destination"]: one["source"] for one in spec["mounts"] if one["source"].startswith(top)}


def test_a_volume_has_what_the_image_has_there(wherryd: Wherryd, pods: PodMaker) -> None:
    entries = [
        images.folder("data", 0o750),
        images.entry("data/f", "content", uid=1000, gid=1001, mode=0o4711),
        images.folder("data/sub", 0o1777),
        images.entry("data/sub/link", type=tarfile.SYMTYPE, linkname="../f"),
    ]
    wherryd.load({IMAGE: volume_image("/data", "/empty/new", entries=entries)})
    script = """
cat /data/f /data/sub/link; stat -c ' %a %u %g' /data /data/f /data/sub /empty/new
touch /data/mine /empty/new/mine; grep -c ' /data \\| /empty/new ' /proc/mounts
"""
    container, output = run(wherryd, pods, script)
    assert output == "contentcontent 750 0 0\n 4711 1000 1001\n 1777 0 0\n 755 0 0\n2\n"
    folders = volume_folders(wherryd, container)
    assert sorted(folders) == ["/data", "/empty/new"]
    assert (Path(folders["/data"]) / "mine").exists()
    _, second = run(wherryd, pods, "ls /data")
    assert second == "f\nsub\n"  # each container has its own
    wherryd.cri.remove_all()
    assert os.listdir(wherryd.root / "containers") == []


def test_a_read_only_root_keeps_its_volumes_writable(wherryd: Wherryd, pods: PodMaker) -> None:
    wherryd.load({IMAGE: volume_image()})
    linux = api_pb2.LinuxContainerConfig(security_context=api_pb2.LinuxContainerSecurityContext(readonly_rootfs=True))
    assert run(wherryd, pods, "touch /data/new; cat /data/f", linux=linux)[1] == "x"


def test_a_mount_of_kubelet_s_wins(wherryd: Wherryd, pods: PodMaker) -> None:
    wherryd.load({IMAGE: volume_image("/data/")})
    (wherryd.folder / "mine").mkdir()
    mine = api_pb2.Mount(container_path="/data", host_path=str(wherryd.folder / "mine"))
    container, output = run(wherryd, pods, "ls /data", mounts=[mine])
    assert (output, volume_folders(wherryd, container)) == ("", {})


@pytest.mark.parametrize("path", ["/escape", "/escape/sub", "/data/../../../secret", "/up"])
def test_no_volume_reaches_the_host(wherryd: Wherryd, pods: PodMaker, path: str) -> None:
    """An image whose volume is a link out of it must not get the host's files copied in (CVE-2022-23648)."""
    secret = wherryd.folder / "secret"
    (secret / "sub").mkdir(parents=True)
    (secret / "key").write_text("secret")
    (secret / "sub" / "key").write_text("secret")
    entries = [
        images.folder("data"),
        images.entry("escape", type=tarfile.SYMTYPE, linkname=str(secret)),
        images.entry("up", type=tarfile.SYMTYPE, linkname="../../../../../../../../.." + str(secret)),
    ]
    wherryd.load({IMAGE: volume_image(path, entries=entries)})
    config = pods.pod()
    pod = wherryd.cri.run_pod(config)
    container = wherryd.cri.create(pod, pods.container(IMAGE, ["sleep", "1000"]), config)
    (folder,) = volume_folders(wherryd, container).values()
    assert os.listdir(folder) == []


def test_a_volume_on_a_file_is_refused_and_nothing_is_left(wherryd: Wherryd, pods: PodMaker) -> None:
    wherryd.load({IMAGE: volume_image("/etc/passwd")})
    config = pods.pod()
    pod = wherryd.cri.run_pod(config)
    with pytest.raises(grpc.RpcError) as caught:
        wherryd.cri.create(pod, pods.container(IMAGE, ["sleep", "1000"]), config)
    assert caught.value.code() is grpc.StatusCode.INVALID_ARGUMENT
    assert "volume /etc/passwd" in caught.value.details()
    assert os.listdir(wherryd.root / "containers") == []
    assert wherryd.cri.containers() == []


@contextmanager
def dead_server(point: Path) -> Iterator[None]:
    """Mount a file system whose server never answers: whoever looks at it waits in the kernel until he is killed."""
    point.mkdir()
    fd = os.open("/dev/fuse", os.O_RDWR | os.O_CLOEXEC)
    try:
        mount("dead", str(point), "fuse", 0, f"fd={fd},rootmode=40000,user_id=0,group_id=0")
        yield
    finally:
        umount2(str(point), MNT_DETACH)
        os.close(fd)


@pytest.mark.skipif(not os.path.exists("/dev/fuse"), reason="needs /dev/fuse: modprobe fuse")
def test_a_dead_file_server_costs_one_call_and_nothing_else(wherryd: Wherryd, pods: PodMaker) -> None:
    cri = wherryd.cri
    config = pods.pod()
    pod = cri.run_pod(config)
    with dead_server(wherryd.folder / "dead"):
        bad = api_pb2.Mount(container_path="/v", host_path=str(wherryd.folder / "dead" / "volume"))
        orders = [pods.container(BUSYBOX, ["true"], name=f"hung{number}", mounts=[bad]) for number in range(12)]
        requests = [api_pb2.CreateContainerRequest(pod_sandbox_id=pod, config=order, sandbox_config=config) for order in orders]
        calls = [cri.runtime.CreateContainer.future(request, timeout=3 + number) for number, request in enumerate(requests)]
        started = time.monotonic()
        good = cri.create(pod, pods.container(BUSYBOX, ["sleep", "100"]), config)
        cri.start(good)
        assert time.monotonic() - started < 2
        for call in calls[:3]:
            assert call.exception().code() is grpc.StatusCode.DEADLINE_EXCEEDED
        for call in calls[3:]:
            call.cancel()
        cri.stop(good)
        wherryd.disconnect()
        started = time.monotonic()
        wherryd.process.stop()
        assert time.monotonic() - started < 5
        wherryd.start()
        assert [one.id for one in wherryd.cri.containers()] == [good]
        assert os.listdir(wherryd.root / "containers") == [good]
