"""Images as volumes: whole, a directory, a file; several layers; user namespaces; what holds them; what cannot be mounted."""

from __future__ import annotations

import os
import stat
import tarfile
from typing import TYPE_CHECKING, Any

import grpc
import pytest

from shim.gen.runtime.v1 import api_pb2
from tests.support.daemon import BUSYBOX
from tests.support.images import TestImage, entry, files_layer, folder, layer
from tests.system.test_cri_userns import FIRST, KERNEL, USER_NAMESPACES, mapped

if TYPE_CHECKING:
    from tests.support.cri import PodMaker
    from tests.support.daemon import Wherryd

pytestmark = pytest.mark.system

NAME = "localhost/data:1"
SINGLE = "localhost/single:1"


def _images() -> dict[str, TestImage]:
    lower = files_layer({"dir/low": "low\n", "dir/both": "old\n", "dir/gone": "x\n", "hidden/a": "a\n", "top": "t\n"})
    upper = layer(
        [
            *(folder(name) for name in ("dir", "hidden")),
            entry("dir/both", "new\n"),
            entry("dir/.wh.gone"),
            entry("hidden/.wh..wh..opq"),
            entry("hidden/b", "b\n"),
            entry("link", type=tarfile.SYMTYPE, linkname="dir"),
            entry("out", type=tarfile.SYMTYPE, linkname="/../../../../etc"),
            entry("run", "#!/bin/sh\necho ran\n", mode=0o755),
            entry("device", type=tarfile.CHRTYPE, devmajor=1, devminor=3),
        ]
    )
    single = files_layer({"only/file": "single\n"})
    return {NAME: TestImage(layers=(lower, upper)), SINGLE: TestImage(layers=(single,))}


def volume(image: str = NAME, sub_path: str = "", **fields: Any) -> api_pb2.Mount:
    wanted = {"container_path": "/v", "readonly": True, "image_sub_path": sub_path} | fields
    return api_pb2.Mount(image=api_pb2.ImageSpec(image=image), **wanted)


@pytest.fixture
def node(wherryd: Wherryd) -> Wherryd:
    wherryd.load(_images())
    return wherryd


def run(node: Wherryd, pods: PodMaker, mount: api_pb2.Mount, *, users: bool = False) -> tuple[str, str]:
    """Run a container with a volume and give the ids of the pod and of the container."""
    config = pods.pod(host_network=not users)
    order = pods.container(BUSYBOX, ["sleep", "1000"], mounts=[mount])
    order.linux.security_context.namespace_options.CopyFrom(config.linux.security_context.namespace_options)
    if users:
        for one in (config, order):
            one.linux.security_context.namespace_options.userns_options.CopyFrom(mapped())
    pod = node.cri.run_pod(config)
    container = node.cri.create(pod, order, config)
    node.cri.start(container)
    return pod, container


def shell(node: Wherryd, container: str, script: str) -> str:
    done = node.cri.execute(container, "sh", "-c", script)
    return (done.stdout + done.stderr).decode()


SEEN: dict[str, tuple[str, str, str, str]] = {
    "whole": (NAME, "", "cd /v; cat top dir/low dir/both; ls dir hidden", "t\nlow\nnew\ndir:\nboth\nlow\n\nhidden:\nb\n"),
    "whole, of one layer": (SINGLE, "", "cat /v/only/file", "single\n"),
    "directory": (NAME, "dir", "cd /v; ls; cat both", "both\nlow\nnew\n"),
    "opaque directory": (NAME, "hidden", "ls /v", "b\n"),
    "behind a link": (NAME, "link", "ls /v", "both\nlow\n"),
    "file": (NAME, "dir/low", "cat /v", "low\n"),
    "read-only": (NAME, "", "touch /v/x; touch /v/dir/low", "touch: /v/x: Read-only file system\ntouch: /v/dir/low: Read-only"),
    "executable": (NAME, "", "/v/run", "ran\n"),
    "without devices": (NAME, "", "cat /v/device", "cat: can't open '/v/device'"),
}


def test_what_is_seen(node: Wherryd, pods: PodMaker) -> None:
    config = pods.pod(host_network=True)
    pod = node.cri.run_pod(config)
    for number, (name, (image, path, script, expected)) in enumerate(SEEN.items()):
        order = pods.container(BUSYBOX, ["sleep", "1000"], name=f"c{number}", mounts=[volume(image, path)])
        order.linux.security_context.namespace_options.CopyFrom(config.linux.security_context.namespace_options)
        container = node.cri.create(pod, order, config)
        node.cri.start(container)
        assert shell(node, container, script).startswith(expected), name
        (shown,) = node.cri.status(container).mounts
        assert shown.image.image_ref == _images()[image].id
        assert shown.image.image == image


@pytest.mark.parametrize("image", [NAME, SINGLE])
@pytest.mark.skipif(KERNEL < USER_NAMESPACES, reason="id-mapped overlay layers need Linux 5.19")
def test_owners_in_a_user_namespace(node: Wherryd, pods: PodMaker, image: str) -> None:
    _pod, container = run(node, pods, volume(image), users=True)
    assert os.stat(f"/proc/{node.cri.info(container)['pid']}").st_uid == FIRST
    assert set(shell(node, container, "stat -c %u:%g /v /v/*").split()) == {"0:0"}


def test_no_exec(node: Wherryd, pods: PodMaker) -> None:
    _pod, container = run(node, pods, volume(mount_options=["noexec"]))
    assert "Permission denied" in shell(node, container, "/v/run")


def test_options_of_a_directory_s_mount(node: Wherryd, pods: PodMaker) -> None:
    program = node.folder / "vol" / "run"
    program.parent.mkdir()
    program.write_text("#!/bin/sh\necho ran\n")
    program.chmod(0o755)
    mount = api_pb2.Mount(container_path="/v", host_path=str(program.parent), mount_options=["noexec", "nosuid", "nodev"])
    _pod, container = run(node, pods, mount)
    assert "Permission denied" in shell(node, container, "/v/run")
    options = shell(node, container, "grep ' /v ' /proc/mounts").split()[3].split(",")
    assert {"noexec", "nosuid", "nodev", "rw"} <= set(options)
    assert node.cri.runtime.Status(api_pb2.StatusRequest()).features.mount_options


def test_an_image_that_is_removed_meanwhile(node: Wherryd, pods: PodMaker) -> None:
    pod, container = run(node, pods, volume())
    node.cri.remove_image(NAME)
    node.disconnect()
    node.process.stop()
    node.start()
    assert shell(node, container, "cat /v/dir/low") == "low\n"
    layers = len(os.listdir(node.root / "layers"))
    node.cri.remove_pod(pod)
    assert len(os.listdir(node.root / "layers")) == layers - 2


@pytest.mark.parametrize(
    ("mount", "text"),
    [
        (volume(sub_path="no/such"), "image_sub_path 'no/such' does not exist"),
        (volume(sub_path="dir/gone"), "does not exist"),
        (volume(sub_path="hidden/a"), "does not exist"),
        (volume(sub_path="out"), "does not exist"),
        (volume(sub_path="device"), "not a regular file"),
        (volume("localhost/absent:1"), "localhost/absent:1"),
    ],
)
def test_what_cannot_be(node: Wherryd, pods: PodMaker, mount: api_pb2.Mount, text: str) -> None:
    with pytest.raises(grpc.RpcError) as caught:
        run(node, pods, mount)
    assert caught.value.details().startswith("ImageVolumeMountFailed")
    assert text in caught.value.details()
    assert caught.value.code() in (grpc.StatusCode.NOT_FOUND, grpc.StatusCode.INVALID_ARGUMENT)
    assert not os.path.exists(node.root / "containers") or os.listdir(node.root / "containers") == []
    assert stat.S_ISDIR(os.stat(node.root).st_mode)
