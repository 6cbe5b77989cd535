"""Pods with a user namespace whose runtime is another binary: what such a pod is, does not depend on who makes its containers.

wherry-oci is a binary as any other here. WHERRY_TEST_HANDLERS, paths with colons between them, names more: runc since 1.2 and
crun since 1.9 say that they can.
"""

from __future__ import annotations

import json
import os
import signal
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import grpc
import pytest

from shim.gen.runtime.v1 import api_pb2
from tests.support.daemon import BUSYBOX
from tests.system.test_cri_image_volumes import _images, volume
from tests.system.test_cri_userns import FIRST, KERNEL, USER_NAMESPACES, mapped
from tests.system.test_cri_volumes import volume_image

if TYPE_CHECKING:
    from tests.support.cri import PodMaker
    from tests.support.daemon import Wherryd

pytestmark = [
    pytest.mark.system,
    pytest.mark.skipif(KERNEL < USER_NAMESPACES, reason="id-mapped overlay layers need Linux 5.19"),
]

BINARIES = [str(Path(sys.executable).with_name("wherry-oci")), *filter(None, os.getenv("WHERRY_TEST_HANDLERS", "").split(":"))]
CASES = [{"extra": f'[runtime.handlers.other]\npath = "{path}"\n'} for path in BINARIES]
every_binary = pytest.mark.parametrize("wherryd", CASES, indirect=True, ids=[os.path.basename(path) for path in BINARIES])


def started(wherryd: Wherryd, pods: PodMaker, image: str = BUSYBOX, **fields: object) -> str:
    wherryd.folder.chmod(0o711)  # as /run is: runc finds its way to the root as nobody
    config = pods.pod()
    config.linux.security_context.namespace_options.userns_options.CopyFrom(mapped())
    pod = wherryd.cri.run_pod(config, "other")
    order = pods.container(image, ["sleep", "1000"], **fields)
    order.linux.security_context.namespace_options.userns_options.CopyFrom(mapped())
    order.linux.security_context.capabilities.add_capabilities.append("NET_ADMIN")
    container = wherryd.cri.create(pod, order, config)
    wherryd.cri.start(container)
    return container


def said(wherryd: Wherryd, container: str, script: str) -> str:
    done = wherryd.cri.execute(container, "/bin/sh", "-ec", script)
    assert (done.exit_code, done.stderr) == (0, b"")
    return done.stdout.decode()


@every_binary
def test_it_is_a_pod_as_ours(wherryd: Wherryd, pods: PodMaker) -> None:
    """Root inside is nobody outside, owns its root, its pod's network and the image's volumes; volumes show the disk's ids."""
    status = wherryd.cri.runtime.Status(api_pb2.StatusRequest())
    assert all(handler.features.user_namespaces for handler in status.runtime_handlers)
    wherryd.load({"localhost/volumes:1": volume_image()})
    volume = wherryd.folder / "volume"
    volume.mkdir()
    (volume / "f").touch()
    os.chown(volume / "f", 3, 4)
    mapping = api_pb2.IDMapping(host_id=FIRST, container_id=0, length=65536)
    mount = api_pb2.Mount(container_path="/v", host_path=str(volume), uidMappings=[mapping], gidMappings=[mapping])
    container = started(wherryd, pods, "localhost/volumes:1", mounts=[mount])
    pid = wherryd.cri.info(container)["pid"]
    assert os.stat(f"/proc/{pid}").st_uid == FIRST
    script = "cat /proc/self/uid_map | tr -s ' '; id -u; stat -c %u:%g / /etc /etc/hosts /data /v/f"
    assert said(wherryd, container, script) == f" 0 {FIRST} 65536\n0\n" + 4 * "0:0\n" + "3:4\n"
    script = "echo x > /new; chown 3:4 /new; stat -c %u:%g /new; echo y >> /etc/passwd; touch /dev/shm/s /data/n /v/mine"
    assert said(wherryd, container, script) == "3:4\n"
    assert (os.stat(volume / "mine").st_uid, os.stat(volume / "mine").st_gid) == (0, 0)
    assert "eth0" in said(wherryd, container, "ip link set lo down; ip link set lo up; ip -o link")
    wherryd.cri.stop(container, timeout=0)
    wherryd.cri.remove(container)
    assert str(wherryd.state) + "/roots" not in Path("/proc/self/mountinfo").read_text()
    assert os.listdir(wherryd.state / "roots") == []


@every_binary
def test_a_root_whose_monitor_was_lost_is_taken_away(wherryd: Wherryd, pods: PodMaker) -> None:
    container = started(wherryd, pods)
    assert container in Path("/proc/self/mountinfo").read_text()
    (pod,) = wherryd.cri.pods()
    record = json.loads((wherryd.state / "pods" / pod.id / "monitor.json").read_text())
    os.kill(record["pid"], signal.SIGKILL)
    wherryd.cri.wait_exit(container)
    wherryd.cri.remove_pod(pod.id)
    assert container not in Path("/proc/self/mountinfo").read_text()
    assert os.listdir(wherryd.state / "roots") == []


@every_binary
def test_an_image_of_several_layers_is_no_volume_there(wherryd: Wherryd, pods: PodMaker) -> None:
    wherryd.load(_images())
    with pytest.raises(grpc.RpcError) as caught:
        started(wherryd, pods, mounts=[volume()])
    assert caught.value.code() is grpc.StatusCode.INVALID_ARGUMENT
    assert "ImageVolumeMountFailed: runtime handler other mounts no image of several layers" in caught.value.details()
    assert wherryd.cri.containers() == []


@every_binary
def test_in_the_node_s_network(wherryd: Wherryd, pods: PodMaker) -> None:
    wherryd.folder.chmod(0o711)
    config = pods.pod(host_network=True)
    modes = config.linux.security_context.namespace_options
    modes.userns_options.CopyFrom(mapped())
    pod = wherryd.cri.run_pod(config, "other")
    order = pods.container(BUSYBOX, ["sleep", "1000"])
    order.linux.security_context.namespace_options.CopyFrom(modes)
    container = wherryd.cri.create(pod, order, config)
    wherryd.cri.start(container)
    assert set(said(wherryd, container, "ls /sys/class/net").split()) == set(os.listdir("/sys/class/net"))
    denied = wherryd.cri.execute(container, "sh", "-c", "touch /sys/x || ip link set lo down")
    assert denied.exit_code != 0
