"""Pods of other OCI runtimes behind the same CRI (RuntimeClass), and resources as kubelet sets them."""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
from pathlib import Path
from typing import TYPE_CHECKING

import grpc
import pytest

from shim.gen.runtime.v1 import api_pb2
from tests.support.cri import PodMaker
from tests.support.daemon import BUSYBOX, Wherryd
from tests.support.streaming import attach_url, command, exec_url, failed_with, status_of
from tests.support.wait import wait_for

if TYPE_CHECKING:
    from tests.support.images import TestImage

pytestmark = pytest.mark.system

HYBRID = "/sys/fs/cgroup/unified"
HIDING = f'umount {HYBRID}; exec crun "$@"'
CRUN = (
    f'path = "/usr/bin/unshare"\noptions = ["-m", "sh", "-c", {HIDING!r}, "crun"]'
    if os.path.ismount(HYBRID)
    else 'path = "/usr/bin/crun"'
)
"""crun refuses to run on a hybrid host unless it does not see the second hierarchy."""
HANDLERS = f"""
[runtime.handlers.runc]
path = "/usr/sbin/runc"
pod_annotations = ["io.example.*"]
container_annotations = ["exact"]
[runtime.handlers.crun]
{CRUN}
"""


@pytest.mark.parametrize("wherryd", [{"extra": HANDLERS}], indirect=True)
@pytest.mark.parametrize("handler", ["runc", "crun"])
def test_a_life_with_another_runtime(wherryd: Wherryd, pods: PodMaker, handler: str) -> None:
    cri = wherryd.cri
    config = pods.pod()
    pod = cri.run_pod(config, handler)
    assert cri.pod_status(pod).runtime_handler == handler
    container = cri.create(pod, pods.container(BUSYBOX, ["/bin/sh", "-c", "echo hello; sleep 1000"]), config)
    cri.start(container)
    log = cri.status(container).log_path
    wait_for(lambda: os.path.getsize(log) > 0, "the first line")
    assert cri.execute(container, "/bin/cat", "/etc/hostname").stdout.decode().strip() == config.hostname
    pid = cri.info(container)["pid"]
    wherryd.kill()
    wherryd.start()
    assert wherryd.cri.info(container)["pid"] == pid
    wherryd.cri.stop(container, 1)
    assert wherryd.cri.status(container).exit_code in {137, 143}
    missing = wherryd.cri.create(pod, pods.container(BUSYBOX, ["/no/such/program"], name="missing"), config)
    with pytest.raises(grpc.RpcError):
        wherryd.cri.start(missing)
    status = wherryd.cri.status(missing)
    assert (status.state, status.exit_code) == (api_pb2.CONTAINER_EXITED, 127)
    wherryd.cri.remove_pod(pod)


ESCAPE = "setsid sh -c 'setsid sleep 4242 & exit' & sleep 0.2; exec sleep 4241"


@pytest.mark.parametrize("wherryd", [{"extra": HANDLERS}], indirect=True)
@pytest.mark.parametrize("handler", ["runc", "crun", "wherry"])
def test_an_exec_that_takes_too_long_leaves_nothing(wherryd: Wherryd, pods: PodMaker, handler: str) -> None:
    """A process that left the session and lost its parent is found too: the exec has a cgroup of its own."""
    cri = wherryd.cri
    config = pods.pod()
    pod = cri.run_pod(config, handler)
    container = cri.create(pod, pods.container(BUSYBOX, ["/bin/sleep", "1000"]), config)
    cri.start(container)
    with pytest.raises(grpc.RpcError) as raised:
        cri.execute(container, "/bin/sh", "-c", ESCAPE, timeout=1)
    assert raised.value.code() is grpc.StatusCode.DEADLINE_EXCEEDED
    left = cri.execute(container, "/bin/ps", "-o", "args").stdout.decode()
    assert "sleep 1000" in left
    assert "sleep 424" not in left
    assert cri.execute(container, "/bin/sh", "-c", "exit 3").exit_code == 3
    inside = cri.execute(container, "/bin/sh", "-c", "sleep 0.5; cat /proc/self/cgroup").stdout.decode()
    assert "exec-" in inside, inside
    cri.remove_pod(pod)


@pytest.mark.parametrize("wherryd", [{"extra": HANDLERS}], indirect=True)
@pytest.mark.parametrize("handler", ["runc", "crun"])
async def test_everything_kubelet_asks_of_a_container(wherryd: Wherryd, pods: PodMaker, handler: str) -> None:
    cri = wherryd.cri
    config = pods.pod()
    pod = cri.run_pod(config, handler)
    order = pods.container(BUSYBOX, ["/bin/sh", "-c", "echo begun; while read x; do echo got $x; done"], stdin=True)
    order.linux.resources.memory_limit_in_bytes = 64 << 20
    container = cri.create(pod, order, config)
    cri.start(container)
    async with command(attach_url(wherryd, container, stdin=True), "stdin", "stdout", "stderr") as opened:
        await opened["stdin"].write(b"rope\n")
        assert await opened["stdout"].read() == b"got rope\n"
    log = cri.status(container).log_path
    await asyncio.to_thread(wait_for, lambda: "got rope" in Path(log).read_text(), "the line that was sent")
    async with command(exec_url(wherryd, container, "sh", "-c", "tty; exit 6", tty=True), "stdout", tty=True) as opened:
        assert await opened["stdout"].read_all(100) == b"/dev/pts/0\r\n"
        assert failed_with(await status_of(opened)) == 6
    os.rename(log, f"{log}.1")
    cri.runtime.ReopenContainerLog(api_pb2.ReopenContainerLogRequest(container_id=container), timeout=10)
    assert os.path.exists(log)
    stats = cri.runtime.ContainerStats(api_pb2.ContainerStatsRequest(container_id=container), timeout=10).stats
    assert stats.memory.working_set_bytes.value > 0
    limits = api_pb2.LinuxContainerResources(memory_limit_in_bytes=80 << 20)
    cri.runtime.UpdateContainerResources(
        api_pb2.UpdateContainerResourcesRequest(container_id=container, linux=limits), timeout=10
    )
    shown = "cat /sys/fs/cgroup/memory/memory.limit_in_bytes /sys/fs/cgroup/memory.max 2>/dev/null"
    assert cri.execute(container, "sh", "-c", shown).stdout.decode().strip() == str(80 << 20)
    wherryd.kill()
    wherryd.start()
    assert wherryd.cri.execute(container, "sh", "-c", "exit 4").exit_code == 4
    wherryd.cri.remove_pod(pod)


@pytest.mark.parametrize("wherryd", [{"extra": HANDLERS}], indirect=True)
def test_annotations_reach_the_runtime_that_may_have_them(wherryd: Wherryd, pods: PodMaker) -> None:
    cri = wherryd.cri
    config = pods.pod(annotations={"io.example.sail": "up", "other": "x"})
    for handler, expected in (("runc", {"io.example.sail": "up", "exact": "yes"}), ("", {})):
        config.metadata.name += "a"
        pod = cri.run_pod(config, handler)
        wanted = pods.container(BUSYBOX, ["/bin/true"], annotations={"exact": "yes", "exactly": "no"})
        told = cri.info(cri.create(pod, wanted, config))["runtimeSpec"]["annotations"]
        assert {
            name: value for name, value in told.items() if not name.startswith("io.kubernetes") and "wherry" not in name
        } == expected


@pytest.mark.parametrize("wherryd", [{"extra": HANDLERS}], indirect=True)
def test_features_are_what_the_binaries_say(wherryd: Wherryd) -> None:
    handlers = wherryd.cri.runtime.Status(api_pb2.StatusRequest(), timeout=10).runtime_handlers
    told = {handler.name: handler.features.recursive_read_only_mounts for handler in handlers}
    done = subprocess.run(["/usr/sbin/runc", "features"], capture_output=True, check=False)
    said = done.returncode == 0 and "rro" in json.loads(done.stdout)["mountOptions"]
    assert told == {"": True, "wherry": True, "runc": said, "crun": False}
    assert {handler.name for handler in handlers if handler.features.user_namespaces} <= {"", "wherry"}


APART = """
[runtime.handlers.apart]
cni_conf_dir = "{folder}"
seccomp_profile = "{folder}/profile.json"
"""
PROFILE = {
    "defaultAction": "SCMP_ACT_ALLOW",
    "syscalls": [{"names": ["mkdir", "mkdirat"], "action": "SCMP_ACT_ERRNO", "errnoRet": 95}],
}


def test_a_handler_has_a_network_and_a_seccomp_profile_of_its_own(short_dir: Path, busybox: TestImage) -> None:
    ipam = {"type": "host-local", "dataDir": f"{short_dir}/ipam", "ranges": [[{"subnet": "10.188.0.0/16"}]]}
    network = {"cniVersion": "1.0.0", "name": "apart", "plugins": [{"type": "bridge", "bridge": "wapart0", "ipam": ipam}]}
    (short_dir / "10-apart.conflist").write_text(json.dumps(network))
    (short_dir / "profile.json").write_text(json.dumps(PROFILE))
    daemon = Wherryd(extra=APART.format(folder=short_dir))
    try:
        daemon.start()
        pods = PodMaker(logs=str(daemon.logs))
        daemon.load({BUSYBOX: busybox})
        config = pods.pod()
        apart = daemon.cri.run_pod(config, "apart")
        wanted = pods.container(BUSYBOX, ["/bin/sleep", "1000"])
        wanted.linux.security_context.seccomp.profile_type = api_pb2.SecurityProfile.RuntimeDefault
        container = daemon.cri.create(apart, wanted, config)
        daemon.cri.start(container)
        assert b"not supported" in daemon.cri.execute(container, "mkdir", "/x").stderr
        usual = daemon.cri.run_pod(pods.pod())
        assert daemon.cri.pod_status(apart).network.ip.startswith("10.188.")
        assert daemon.cri.pod_status(usual).network.ip.startswith("10.189.")
        daemon.kill()
        daemon.start()
        daemon.cri.remove_pod(apart)
        assert not [name for name in os.listdir(short_dir / "ipam/apart") if name[0].isdigit()]
        daemon.cri.remove_pod(usual)
        daemon.stop()
    finally:
        daemon.scrub()
        subprocess.run(["ip", "link", "delete", "wapart0"], capture_output=True, check=False)


def test_an_oom_kill_is_told(wherryd: Wherryd, pods: PodMaker) -> None:
    cri = wherryd.cri
    config = pods.pod()
    pod = cri.run_pod(config)
    order = pods.container(BUSYBOX, ["/bin/sh", "-c", "x=0123456789; while :; do x=$x$x; done"])
    order.linux.resources.memory_limit_in_bytes = 16 << 20
    container = cri.create(pod, order, config)
    cri.start(container)
    status = cri.wait_exit(container)
    assert (status.exit_code, status.reason) == (137, "OOMKilled")
    assert status.resources.linux.memory_limit_in_bytes == 16 << 20


def test_who_a_container_runs_as(wherryd: Wherryd, pods: PodMaker) -> None:
    cri = wherryd.cri
    config = pods.pod()
    pod = cri.run_pod(config)
    order = pods.container(BUSYBOX, ["/bin/sleep", "1000"])
    order.linux.security_context.run_as_user.value = 1000
    order.linux.security_context.run_as_group.value = 2000
    order.linux.security_context.supplemental_groups.extend([3000, 4000])
    container = cri.create(pod, order, config)
    cri.start(container)
    user = cri.status(container).user.linux
    assert (user.uid, user.gid) == (1000, 2000)
    assert set(user.supplemental_groups) >= {2000, 3000, 4000}
    assert cri.execute(container, "/bin/id").stdout.decode().startswith("uid=1000(app) gid=2000 groups=")
    info = cri.info(container)
    assert info["runtimeSpec"]["process"]["user"]["uid"] == 1000
    assert info["sandboxID"] == pod


def test_a_shared_pid_namespace_and_a_target(wherryd: Wherryd, pods: PodMaker) -> None:
    cri = wherryd.cri
    config = pods.pod()
    config.linux.security_context.namespace_options.pid = api_pb2.POD
    pod = cri.run_pod(config)
    orders = [pods.container(BUSYBOX, ["/bin/sleep", "1000"], name=name) for name in ("one", "two")]
    for order in orders:
        order.linux.security_context.namespace_options.pid = api_pb2.POD
    one, two = (cri.create(pod, order, config) for order in orders)
    cri.start(one)
    cri.start(two)
    assert cri.execute(two, "/bin/ps").stdout.decode().count("/bin/sleep 1000") == 2
    cri.remove_pod(pod)

    config = pods.pod()
    pod = cri.run_pod(config)
    main = cri.create(pod, pods.container(BUSYBOX, ["/bin/sleep", "1001"]), config)
    debug = pods.container(BUSYBOX, ["/bin/sleep", "1002"], name="debug")
    debug.linux.security_context.namespace_options.pid = api_pb2.TARGET
    debug.linux.security_context.namespace_options.target_id = main
    with pytest.raises(grpc.RpcError, match="not running"):
        cri.create(pod, debug, config)
    cri.start(main)
    helper = cri.create(pod, debug, config)
    cri.start(helper)
    assert "/bin/sleep 1001" in cri.execute(helper, "/bin/ps").stdout.decode()
