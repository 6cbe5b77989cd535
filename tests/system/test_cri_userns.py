"""Pods with a user namespace (hostUsers: false): root inside is nobody outside, and owns its own files."""

from __future__ import annotations

import json
import os
from typing import TYPE_CHECKING

import grpc
import pytest

from shim.gen.runtime.v1 import api_pb2
from tests.support.daemon import BUSYBOX
from tests.system.test_cri_volumes import volume_image

if TYPE_CHECKING:
    from tests.support.cri import PodMaker
    from tests.support.daemon import Wherryd

FIRST = 1_000_000
USER_NAMESPACES = (5, 19)
"""First kernel whose overlayfs takes id-mapped layers."""
KERNEL = tuple(int(part) for part in os.uname().release.split(".")[:2])

pytestmark = [
    pytest.mark.system,
    pytest.mark.skipif(KERNEL < USER_NAMESPACES, reason="id-mapped overlay layers need Linux 5.19"),
]


def mapped() -> api_pb2.UserNamespace:
    mapping = api_pb2.IDMapping(host_id=FIRST, container_id=0, length=65536)
    return api_pb2.UserNamespace(mode=api_pb2.POD, uids=[mapping], gids=[mapping])


def run(wherryd: Wherryd, pods: PodMaker, script: str, image: str = BUSYBOX, **fields: object) -> str:
    """Run a script as the container's root in a pod with a user namespace and give what it printed; it must succeed."""
    config = pods.pod()
    config.linux.security_context.namespace_options.userns_options.CopyFrom(mapped())
    pod = wherryd.cri.run_pod(config)
    order = pods.container(image, ["sleep", "1000"], **fields)
    order.linux.security_context.namespace_options.userns_options.CopyFrom(mapped())
    container = wherryd.cri.create(pod, order, config)
    wherryd.cri.start(container)
    done = wherryd.cri.execute(container, "/bin/sh", "-ec", script)
    assert (done.exit_code, done.stderr) == (0, b"")
    pid = wherryd.cri.info(container)["pid"]
    assert os.stat(f"/proc/{pid}").st_uid == FIRST
    return done.stdout.decode()


def test_root_owns_its_root_and_nothing_else(wherryd: Wherryd, pods: PodMaker) -> None:
    assert run(wherryd, pods, "cat /proc/self/uid_map | tr -s ' '; id -u; stat -c %u:%g / /etc /bin/busybox /etc/hosts") == (
        f" 0 {FIRST} 65536\n0\n0:0\n0:0\n0:0\n0:0\n"
    )


def test_only_proc_is_of_proc(wherryd: Wherryd, pods: PodMaker) -> None:
    """The root's layers are told by descriptor: a path below /proc would look like a mount of it, as in Kubernetes' tests."""
    assert "/proc/" not in run(wherryd, pods, "grep ' / ' /proc/self/mounts")


def test_its_files_can_be_written_and_given_away(wherryd: Wherryd, pods: PodMaker) -> None:
    script = (
        "echo x > /new; chown 3:4 /new; stat -c %u:%g /new; echo y >> /etc/passwd; echo z > /dev/shm/s; echo w >> /etc/hosts"
    )
    assert run(wherryd, pods, script) == "3:4\n"


def test_volumes_show_the_ids_of_the_disk(wherryd: Wherryd, pods: PodMaker) -> None:
    volume = wherryd.folder / "volume"
    volume.mkdir()
    (volume / "f").touch()
    os.chown(volume / "f", 3, 4)
    mapping = api_pb2.IDMapping(host_id=FIRST, container_id=0, length=65536)
    mount = api_pb2.Mount(container_path="/v", host_path=str(volume), uidMappings=[mapping], gidMappings=[mapping])
    assert run(wherryd, pods, "stat -c %u:%g /v/f; touch /v/mine", mounts=[mount]) == "3:4\n"
    assert (os.stat(volume / "mine").st_uid, os.stat(volume / "mine").st_gid) == (0, 0)


def test_the_network_is_its_own(wherryd: Wherryd, pods: PodMaker) -> None:
    powers = api_pb2.Capability(add_capabilities=["NET_ADMIN"])
    linux = api_pb2.LinuxContainerConfig(security_context=api_pb2.LinuxContainerSecurityContext(capabilities=powers))
    assert "eth0" in run(wherryd, pods, "ip link set lo down; ip link set lo up; ip -o link", linux=linux)


def test_in_the_node_s_network(wherryd: Wherryd, pods: PodMaker) -> None:
    assert wherryd.cri.runtime.Status(api_pb2.StatusRequest()).features.user_namespaces_host_network
    config = pods.pod(host_network=True)
    modes = config.linux.security_context.namespace_options
    modes.userns_options.CopyFrom(mapped())
    pod = wherryd.cri.run_pod(config)
    order = pods.container(BUSYBOX, ["sleep", "1000"])
    order.linux.security_context.namespace_options.CopyFrom(modes)
    container = wherryd.cri.create(pod, order, config)
    wherryd.cri.start(container)
    links = set(wherryd.cri.execute(container, "ls", "/sys/class/net").stdout.decode().split())
    assert links == set(os.listdir("/sys/class/net"))
    denied = wherryd.cri.execute(container, "sh", "-c", "touch /sys/x || ip link set lo down")
    assert denied.exit_code != 0


def test_a_pod_needs_its_root(wherryd: Wherryd, pods: PodMaker) -> None:
    config = pods.pod()
    options = mapped()
    options.uids[0].container_id = options.gids[0].container_id = 1
    config.linux.security_context.namespace_options.userns_options.CopyFrom(options)
    with pytest.raises(grpc.RpcError) as caught:
        wherryd.cri.run_pod(config)
    assert caught.value.code() is grpc.StatusCode.INVALID_ARGUMENT
    assert "container id 0" in caught.value.details()


def test_an_image_s_volume_belongs_to_it(wherryd: Wherryd, pods: PodMaker) -> None:
    wherryd.load({"localhost/volumes:1": volume_image()})
    script = "cat /data/f; stat -c %u:%g /data /data/f; touch /data/new"
    assert run(wherryd, pods, script, "localhost/volumes:1") == "x0:0\n0:0\n"


@pytest.mark.parametrize("wherryd", [{"extra": '[runtime.handlers.runc]\npath = "/usr/sbin/runc"\n'}], indirect=True)
def test_a_handler_that_cannot_says_so_before_anything_is_made(wherryd: Wherryd, pods: PodMaker) -> None:
    status = wherryd.cri.runtime.Status(api_pb2.StatusRequest())
    features = {handler.name: handler.features.user_namespaces for handler in status.runtime_handlers}
    assert features == {"": True, "wherry": True, "runc": False}
    config = pods.pod()
    config.linux.security_context.namespace_options.userns_options.CopyFrom(mapped())
    with pytest.raises(grpc.RpcError) as caught:
        wherryd.cri.run_pod(config, "runc")
    assert caught.value.code() is grpc.StatusCode.INVALID_ARGUMENT
    assert "user namespace" in caught.value.details()
    assert wherryd.cri.pods() == []


def test_what_a_cdi_device_mounts_shows_the_ids_of_the_disk(wherryd: Wherryd, pods: PodMaker) -> None:
    library = wherryd.folder / "library"
    library.mkdir()
    (library / "f").touch()
    os.chown(library / "f", 3, 4)
    (wherryd.folder / "cdi").mkdir()
    mounts = [{"hostPath": str(library), "containerPath": "/lib/v", "options": ["bind", "ro"]}]
    device = {"name": "d", "containerEdits": {"mounts": mounts, "deviceNodes": [{"path": "/dev/loop-control"}]}}
    document = {"cdiVersion": "0.6.0", "kind": "v.com/c", "devices": [device]}
    (wherryd.folder / "cdi" / "v.json").write_text(json.dumps(document))
    asked = [api_pb2.CDIDevice(name="v.com/c=d")]
    assert run(wherryd, pods, "stat -c %u:%g /lib/v/f; stat -c %F /dev/loop-control", CDI_devices=asked) == (
        "3:4\ncharacter special file\n"
    )
