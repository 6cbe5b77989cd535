"""CDI through the real daemon: devices by field and by annotation, in files that come, change and are wrong."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import grpc
import pytest

from shim.gen.runtime.v1 import api_pb2
from tests.support.daemon import BUSYBOX

if TYPE_CHECKING:
    from pathlib import Path

    from tests.support.cri import PodMaker
    from tests.support.daemon import Wherryd

pytestmark = pytest.mark.system

YAML = """\
cdiVersion: "0.7.0"
kind: vendor.com/net
containerEdits:
  additionalGids: [4321]
devices:
- name: fast
  containerEdits:
    env: [NET=fast]
- name: slow
  containerEdits:
    env: [NET=slow]
"""


def describe(path: Path, name: str, **edits: Any) -> None:
    path.parent.mkdir(exist_ok=True)
    device = {"name": name, "containerEdits": edits}
    path.write_text(json.dumps({"cdiVersion": "1.0.0", "kind": "vendor.com/gpu", "devices": [device]}))


def run(wherryd: Wherryd, pods: PodMaker, pod: str = "", **fields: Any) -> str:
    config = pods.pod()
    pod = pod or wherryd.cri.run_pod(config)
    container = wherryd.cri.create(pod, pods.container(BUSYBOX, ["/bin/sleep", "1000"], **fields), config)
    wherryd.cri.start(container)
    return container


def sh(wherryd: Wherryd, container: str, script: str) -> str:
    return str(wherryd.cri.execute(container, "/bin/sh", "-c", script).stdout.decode().strip())


def devices(*names: str) -> list[api_pb2.CDIDevice]:
    return [api_pb2.CDIDevice(name=name) for name in names]


def test_a_device_brings_what_it_needs(wherryd: Wherryd, pods: PodMaker) -> None:
    library = wherryd.folder / "library"
    library.write_text("code")
    hook = wherryd.folder / "hook"
    describe(
        wherryd.folder / "cdi" / "gpu.json",
        "0",
        env=["GPU=0", "PATH=/bin"],
        deviceNodes=[{"path": "/dev/gpu0", "hostPath": "/dev/loop-control", "permissions": "r", "fileMode": 0o640, "gid": 99}],
        mounts=[{"hostPath": str(library), "containerPath": "/lib/gpu.so", "options": ["ro", "nosuid", "bind"]}],
        hooks=[{"hookName": "createRuntime", "path": "/bin/sh", "args": ["sh", "-c", f"cat >{hook}"], "timeout": 5}],
    )
    (wherryd.folder / "cdi.run").mkdir()
    (wherryd.folder / "cdi.run" / "net.yaml").write_text(YAML)
    container = run(
        wherryd,
        pods,
        CDI_devices=devices("vendor.com/gpu=0"),
        annotations={"cdi.k8s.io/plugin_x": "vendor.com/net=fast,vendor.com/gpu=0"},
    )
    assert sh(wherryd, container, "echo $GPU-$NET; id -G; cat /lib/gpu.so") == "0-fast\n0 4321\ncode"
    assert sh(wherryd, container, "stat -c '%F %a %t:%T %u %g' /dev/gpu0") == "character special file 640 a:ed 0 99"
    assert sh(wherryd, container, ": </dev/gpu0 && echo read; (: >/dev/gpu0) 2>/dev/null || echo only") == "read\nonly"
    assert container in hook.read_text()


def test_files_change_and_errors_name_them(wherryd: Wherryd, pods: PodMaker) -> None:
    pod = wherryd.cri.run_pod(pods.pod())
    with pytest.raises(grpc.RpcError, match=r"unresolvable CDI devices vendor\.com/gpu=0, vendor\.com/gpu=1") as caught:
        run(wherryd, pods, pod, CDI_devices=devices("vendor.com/gpu=0", "vendor.com/gpu=1"))
    assert caught.value.code() is grpc.StatusCode.FAILED_PRECONDITION
    assert wherryd.cri.containers() == []
    describe(wherryd.folder / "cdi" / "gpu.json", "0", env=["GPU=first"])
    first = run(wherryd, pods, pod, name="first", CDI_devices=devices("vendor.com/gpu=0"))
    assert sh(wherryd, first, "echo $GPU") == "first"
    describe(wherryd.folder / "cdi.run" / "gpu.json", "0", env=["GPU=second"], netDevices=[])
    second = run(wherryd, pods, pod, name="second", CDI_devices=devices("vendor.com/gpu=0"))
    assert sh(wherryd, second, "echo $GPU") == "second"
    (wherryd.folder / "cdi.run" / "gpu.json").write_text('{"cdiVersion": "1.0.0"}')
    third = run(wherryd, pods, pod, name="third", CDI_devices=devices("vendor.com/gpu=0"))
    assert sh(wherryd, third, "echo $GPU") == "first"
    with pytest.raises(grpc.RpcError, match=r"gpu=7; CDI file \S+cdi\.run/gpu\.json: kind must be a string that is not empty"):
        run(wherryd, pods, pod, name="fourth", CDI_devices=devices("vendor.com/gpu=7"))
    with pytest.raises(grpc.RpcError, match="CDI device 'gpu0' is not named like vendor/class=device") as caught:
        run(wherryd, pods, pod, name="fifth", CDI_devices=devices("gpu0"))
    assert caught.value.code() is grpc.StatusCode.INVALID_ARGUMENT
    status = wherryd.cri.runtime.Status(api_pb2.StatusRequest(verbose=True), timeout=10)
    cdi = json.loads(status.info["config"])["cdi"]
    assert list(cdi["devices"]) == ["vendor.com/gpu=0"]
    assert len(cdi["problems"]) == 1
