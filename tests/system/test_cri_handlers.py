"""Pods of other OCI runtimes behind the same CRI (RuntimeClass), and resources as kubelet sets them."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import grpc
import pytest

from shim.gen.runtime.v1 import api_pb2
from tests.support.daemon import BUSYBOX
from tests.support.wait import wait_for

if TYPE_CHECKING:
    from tests.support.cri import PodMaker
    from tests.support.daemon import Wherryd

pytestmark = pytest.mark.system

HANDLERS = '[runtime.handlers.runc]\npath = "/usr/sbin/runc"\n[runtime.handlers.crun]\npath = "/usr/bin/crun"\n'


@pytest.mark.parametrize("wherryd", [{"extra": HANDLERS}], indirect=True)
@pytest.mark.parametrize("handler", ["runc", "crun"])
def test_a_life_with_another_runtime(wherryd: Wherryd, pods: PodMaker, handler: str) -> None:
    _skip_crun(handler)
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
    _skip_crun(handler)
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
    inside = cri.execute(container, "/bin/cat", "/proc/self/cgroup").stdout.decode()
    assert "exec-" in inside, inside
    cri.remove_pod(pod)


def _skip_crun(handler: str) -> None:
    if handler == "crun" and os.path.ismount("/sys/fs/cgroup/unified"):
        pytest.skip("crun refuses to run on a hybrid host: boot with one cgroup version")


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
