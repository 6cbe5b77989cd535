"""What clients get wrong, repeat, cancel or wait too briefly for."""

from __future__ import annotations

import json
import os
import threading
import time
from contextlib import suppress
from typing import TYPE_CHECKING

import grpc
import pytest

from shim.gen.runtime.v1 import api_pb2, api_pb2_grpc
from shim.rpc.image_service import ImageService
from shim.rpc.runtime_service import RuntimeService
from shim.rpc.server import snake_case
from tests.support.daemon import BUSYBOX
from tests.support.wait import wait_for

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from tests.support.cri import PodMaker
    from tests.support.daemon import Wherryd

pytestmark = pytest.mark.system

Code = grpc.StatusCode


def left(wherryd: Wherryd) -> list[str]:
    """Give what a pod or container would leave in the daemon's directories."""
    found = os.listdir(wherryd.netns)
    for folder in (wherryd.root / "pods", wherryd.root / "containers", wherryd.state / "pods", wherryd.state / "oci"):
        found += os.listdir(folder) if folder.exists() else []
    leases = wherryd.root / "cni" / "networks"
    names = [name for _folder, _folders, names in os.walk(leases) for name in names]
    return found + [name for name in names if name[0].isdigit() or name.startswith("fd")]


def code_of(call: Callable[[], object]) -> tuple[grpc.StatusCode, str]:
    with pytest.raises(grpc.RpcError) as caught:
        call()
    return caught.value.code(), caught.value.details()


def test_every_rpc_answers_for_itself(wherryd: Wherryd) -> None:
    served = {RuntimeService: api_pb2_grpc.RuntimeServiceStub, ImageService: api_pb2_grpc.ImageServiceStub}
    count = 0
    for servicer, make_stub in served.items():
        descriptor = api_pb2.DESCRIPTOR.services_by_name[servicer.__name__]
        stub = make_stub(wherryd.cri.channel)
        for method in descriptor.methods:
            count += 1
            if hasattr(servicer, snake_case(method.name)):
                continue
            request = getattr(api_pb2, method.input_type.name)()
            answer = getattr(stub, method.name)
            code, details = code_of(lambda a=answer, r=request, m=method: list(a(r)) if m.server_streaming else a(r))
            assert code is Code.UNIMPLEMENTED
            assert method.name in details
    assert count == 43


def test_status_and_version(wherryd: Wherryd) -> None:
    runtime = wherryd.cri.runtime
    version = runtime.Version(api_pb2.VersionRequest())
    assert (version.version, version.runtime_name, version.runtime_api_version) == ("0.1.0", "wherry", "v1")
    status = runtime.Status(api_pb2.StatusRequest(verbose=True))
    assert {one.type: one.status for one in status.status.conditions} == {"RuntimeReady": True, "NetworkReady": True}
    assert json.loads(status.info["config"])["root"] == str(wherryd.root)
    assert {handler.name for handler in status.runtime_handlers} == {"", "wherry"}
    assert runtime.RuntimeConfig(api_pb2.RuntimeConfigRequest()).linux.cgroup_driver == api_pb2.CGROUPFS


@pytest.mark.parametrize("wherryd", [{"standard_plugins": True}], indirect=True)
def test_without_a_network_configuration(wherryd: Wherryd, pods: PodMaker) -> None:
    for name in os.listdir(wherryd.conf_dir):
        os.unlink(wherryd.conf_dir / name)
    (condition,) = (
        one for one in wherryd.cri.runtime.Status(api_pb2.StatusRequest()).status.conditions if one.type == "NetworkReady"
    )
    assert not condition.status
    assert condition.reason == "NetworkPluginNotReady"
    assert "cni plugin not initialized" in condition.message
    code, details = code_of(lambda: wherryd.cri.run_pod(pods.pod()))
    assert code is Code.UNAVAILABLE
    assert "cni plugin not initialized" in details
    assert wherryd.cri.pod_status(wherryd.cri.run_pod(pods.pod(host_network=True))).state == api_pb2.SANDBOX_READY


def test_pod_cidr_from_a_template(wherryd: Wherryd) -> None:
    template = wherryd.folder / "template"
    template.write_text(
        '{"cniVersion": "1.0.0", "name": "t", "plugins": [{"type": "bridge", "ipam": {"subnet": "{{.PodCIDR}}"}}]}'
    )
    wherryd.config.write_text(wherryd.config.read_text().replace("[cni]", f'[cni]\nconf_template = "{template}"'))
    wherryd.disconnect()
    wherryd.process.stop()
    wherryd.start()

    def update(cidr: str) -> None:
        network = api_pb2.NetworkConfig(pod_cidr=cidr)
        config = api_pb2.RuntimeConfig(network_config=network)
        wherryd.cri.runtime.UpdateRuntimeConfig(api_pb2.UpdateRuntimeConfigRequest(runtime_config=config))

    assert code_of(lambda: update("10.1.0.0/99"))[0] is Code.INVALID_ARGUMENT
    update("")
    assert os.listdir(wherryd.conf_dir) == []
    update("10.191.0.0/24")
    (name,) = os.listdir(wherryd.conf_dir)
    assert json.loads((wherryd.conf_dir / name).read_text())["plugins"][0]["ipam"]["subnet"] == "10.191.0.0/24"


def test_repetitions_join_the_running_call(wherryd: Wherryd, pods: PodMaker) -> None:
    config = pods.pod()
    request = api_pb2.RunPodSandboxRequest(config=config)
    calls = [wherryd.cri.runtime.RunPodSandbox.future(request, timeout=30) for _ in range(5)]
    ids = {call.result().pod_sandbox_id for call in calls}
    assert len(ids) == 1
    (pod,) = ids
    assert wherryd.cri.run_pod(config) == pod
    order = api_pb2.CreateContainerRequest(
        pod_sandbox_id=pod, config=pods.container(BUSYBOX, ["/bin/sleep", "9"]), sandbox_config=config
    )
    creations = [wherryd.cri.runtime.CreateContainer.future(order, timeout=30) for _ in range(5)]
    assert len({call.result().container_id for call in creations}) == 1
    assert len(wherryd.cri.containers()) == 1


def test_another_pod_of_the_same_name_is_refused(wherryd: Wherryd, pods: PodMaker) -> None:
    config = pods.pod()
    pod = wherryd.cri.run_pod(config)
    config.labels["changed"] = "yes"
    code, details = code_of(lambda: wherryd.cri.run_pod(config))
    assert code is Code.ALREADY_EXISTS
    assert pod in details
    config.metadata.attempt += 1
    assert wherryd.cri.run_pod(config) != pod


@pytest.mark.parametrize("milliseconds", [1, 5, 10, 20, 30, 45])
def test_a_cancelled_or_late_call_leaves_nothing(wherryd: Wherryd, pods: PodMaker, milliseconds: int) -> None:
    cri = wherryd.cri
    config = pods.pod()
    call = cri.runtime.RunPodSandbox.future(api_pb2.RunPodSandboxRequest(config=config))
    time.sleep(milliseconds / 1000)
    call.cancel()
    with suppress(grpc.RpcError):
        cri.runtime.RunPodSandbox(api_pb2.RunPodSandboxRequest(config=pods.pod()), timeout=milliseconds / 1000)
    wait_for(lambda: len(left(wherryd)) == 0 or len(cri.pods()) > 0, "the calls to be undone")
    cri.remove_all()
    wait_for(lambda: left(wherryd) == [], "nothing to be left", seconds=10)

    pod = cri.run_pod(config)
    order = api_pb2.CreateContainerRequest(pod_sandbox_id=pod, config=pods.container(BUSYBOX, ["/bin/sleep", "9"]))
    creation = cri.runtime.CreateContainer.future(order)
    time.sleep(milliseconds / 1000)
    creation.cancel()
    cri.ready()
    wait_for(lambda: bundles(wherryd) == [one.id for one in cri.containers()], "the create to be undone")


def bundles(wherryd: Wherryd) -> list[str]:
    folder = wherryd.root / "containers"
    return os.listdir(folder) if folder.exists() else []


def spoiled(pods: PodMaker, spoil: Callable[[api_pb2.PodSandboxConfig], object]) -> api_pb2.PodSandboxConfig:
    config = pods.pod()
    spoil(config)
    return config


def test_bad_requests(wherryd: Wherryd, pods: PodMaker) -> None:
    cri = wherryd.cri
    unknown = "f" * 64
    runtime = cri.runtime
    expected: list[tuple[Callable[[], object], grpc.StatusCode, str]] = [
        (lambda: cri.run_pod(api_pb2.PodSandboxConfig()), Code.INVALID_ARGUMENT, "metadata"),
        (lambda: cri.run_pod(spoiled(pods, lambda c: setattr(c, "hostname", "no/slash"))), Code.INVALID_ARGUMENT, "hostname"),
        (lambda: cri.run_pod(pods.pod(), "kata"), Code.INVALID_ARGUMENT, "kata"),
        (
            lambda: cri.run_pod(
                spoiled(pods, lambda c: setattr(c.linux.security_context.namespace_options, "ipc", api_pb2.TARGET))
            ),
            Code.INVALID_ARGUMENT,
            "ipc",
        ),
        (
            lambda: cri.run_pod(spoiled(pods, lambda c: c.linux.sysctls.update({"kernel.panic": "1"}))),
            Code.INVALID_ARGUMENT,
            "kernel.panic",
        ),
        (lambda: cri.pod_status(unknown), Code.NOT_FOUND, unknown),
        (lambda: cri.status(unknown), Code.NOT_FOUND, unknown),
        (lambda: cri.start(unknown), Code.NOT_FOUND, unknown),
        (lambda: cri.execute(unknown, "true"), Code.NOT_FOUND, unknown),
        (lambda: cri.create(unknown, pods.container(BUSYBOX), pods.pod()), Code.NOT_FOUND, unknown),
        (
            lambda: runtime.ReopenContainerLog(api_pb2.ReopenContainerLogRequest(container_id=unknown)),
            Code.NOT_FOUND,
            unknown,
        ),
        (lambda: cri.pull("UPPER/case:x y"), Code.INVALID_ARGUMENT, ""),
        (lambda: cri.pull(""), Code.INVALID_ARGUMENT, ""),
    ]
    for call, code, part in expected:
        found, details = code_of(call)
        assert (found, part in details) == (code, True), details
    cri.stop(unknown)
    cri.remove(unknown)
    cri.remove_pod(unknown)
    cri.remove_image("nobody/has:this")
    missing = api_pb2.ImageStatusRequest(image=api_pb2.ImageSpec(image="nobody/has:this"))
    assert not cri.images.ImageStatus(missing).HasField("image")
    assert left(wherryd) == []


def test_bad_containers_leave_nothing(wherryd: Wherryd, pods: PodMaker) -> None:
    cri = wherryd.cri
    config = pods.pod()
    pod = cri.run_pod(config)
    before = left(wherryd)
    mount = api_pb2.Mount(container_path="relative", host_path="/")
    orders = [
        (pods.container("nobody/has:this", ["/bin/true"]), Code.NOT_FOUND),
        (pods.container(BUSYBOX, ["/bin/true"], mounts=[mount]), Code.INVALID_ARGUMENT),
        (pods.container(BUSYBOX, ["/bin/true"], log_path="../../escape"), Code.INVALID_ARGUMENT),
        (pods.container(BUSYBOX, ["/bin/true"], envs=[api_pb2.KeyValue(key="", value=b"x")]), Code.INVALID_ARGUMENT),
    ]
    for order, code in orders:
        assert code_of(lambda o=order: cri.create(pod, o, config))[0] is code, order
    cri.runtime.StopPodSandbox(api_pb2.StopPodSandboxRequest(pod_sandbox_id=pod))
    assert code_of(lambda: cri.create(pod, pods.container(BUSYBOX, ["/bin/true"]), config))[0] is Code.FAILED_PRECONDITION
    assert cri.containers() == []
    assert set(left(wherryd)) <= set(before)


ANSWER = """test $CNI_COMMAND = ADD && echo '{"cniVersion": "1.0.0", "ips": [{"address": "10.99.0.2/24"}]}'; exit 0"""


def use_plugin(wherryd: Wherryd, script: str) -> None:
    """Make a shell script the node's only network plugin."""
    binaries: Path = wherryd.folder / "bin"
    binaries.mkdir(exist_ok=True)
    plugin = binaries / "testplugin"
    plugin.write_text(f"#!/bin/sh\n{script}\n")
    plugin.chmod(0o755)
    document = {"cniVersion": "1.0.0", "name": "test", "plugins": [{"type": "testplugin"}]}
    (wherryd.conf_dir / "10-test.conflist").write_text(json.dumps(document))
    text = wherryd.config.read_text().replace("bin_dirs = []", f'bin_dirs = ["{binaries}"]\ntimeout = 1.0')
    wherryd.config.write_text(text)
    wherryd.disconnect()
    wherryd.process.stop()
    wherryd.start()


@pytest.mark.parametrize(
    ("script", "code", "part"),
    [
        (
            'test "$CNI_COMMAND" = ADD || exit 0; echo \'{"code": 100, "msg": "no more addresses"}\'; exit 1',
            Code.UNKNOWN,
            "no more",
        ),
        (
            'test "$CNI_COMMAND" = ADD || exit 0; echo \'{"code": 11, "msg": "not yet"}\'; exit 1',
            Code.UNAVAILABLE,
            "not yet",
        ),
        (
            'test "$CNI_COMMAND" = ADD || exit 0; echo \'{"code": 7, "msg": "no range"}\'; exit 1',
            Code.FAILED_PRECONDITION,
            "no range",
        ),
        ("echo this is no JSON; exit 0", Code.UNKNOWN, "testplugin"),
        ('test "$CNI_COMMAND" = ADD || exit 0; sleep 1000 & sleep 1000', Code.DEADLINE_EXCEEDED, "testplugin"),
        ('test "$CNI_COMMAND" = ADD || exit 0; kill -9 $$', Code.UNKNOWN, "testplugin"),
    ],
)
def test_a_network_plugin_that_misbehaves(wherryd: Wherryd, pods: PodMaker, script: str, code: Code, part: str) -> None:
    use_plugin(wherryd, script)
    started = time.monotonic()
    found, details = code_of(lambda: wherryd.cri.run_pod(pods.pod()))
    assert (found, part in details) == (code, True), details
    assert time.monotonic() - started < 8
    for name in os.listdir(wherryd.conf_dir):
        os.unlink(wherryd.conf_dir / name)
    wherryd.cri.remove_all()
    assert left(wherryd) == []


def test_a_plugin_that_is_not_there_leaves_nothing_in_the_way(wherryd: Wherryd, pods: PodMaker) -> None:
    """The same call again is a call of its own, and succeeds once the plugin is there."""
    use_plugin(wherryd, ANSWER)
    plugin, config = wherryd.folder / "bin/testplugin", pods.pod()
    plugin.rename(plugin.with_name("hidden"))
    for _ in range(2):
        code, details = code_of(lambda: wherryd.cri.run_pod(config))
        assert (code, "'testplugin' is neither bundled nor found" in details) == (Code.FAILED_PRECONDITION, True), details
        assert wherryd.cri.pods() == []
        assert left(wherryd) == []
    plugin.with_name("hidden").rename(plugin)
    assert wherryd.cri.pod_status(wherryd.cri.run_pod(config)).state == api_pb2.SANDBOX_READY


def test_a_failed_pod_that_cannot_be_undone_reserves_no_name(wherryd: Wherryd, pods: PodMaker) -> None:
    """What may hold an address is kept, NOTREADY, until the plugin gives it back; the same call runs another pod meanwhile."""
    broken = wherryd.folder / "broken"
    use_plugin(wherryd, f"test -e {broken} && exit 3; {ANSWER}")
    broken.touch()
    config = pods.pod()
    for kept in (1, 2):
        assert code_of(lambda: wherryd.cri.run_pod(config))[0] is Code.UNKNOWN
        assert [pod.state for pod in wherryd.cri.pods()] == [api_pb2.SANDBOX_NOTREADY] * kept
    wherryd.disconnect()
    wherryd.process.stop()
    wherryd.start()
    broken.unlink()
    pod = wherryd.cri.run_pod(config)
    assert wherryd.cri.pod_status(pod).state == api_pb2.SANDBOX_READY
    assert wherryd.cri.run_pod(config) == pod
    wherryd.cri.remove_all()
    assert left(wherryd) == []


def test_many_pods_at_once(wherryd: Wherryd, pods: PodMaker) -> None:
    failures: list[BaseException] = []

    def worker() -> None:
        try:
            for _ in range(5):
                config = pods.pod()
                pod = wherryd.cri.run_pod(config)
                container = wherryd.cri.create(pod, pods.container(BUSYBOX, ["/bin/sleep", "100"]), config)
                wherryd.cri.start(container)
                wherryd.cri.remove_pod(pod)
        except BaseException as error:  # noqa: BLE001 - told by the test
            failures.append(error)

    threads = [threading.Thread(target=worker) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failures == []
    assert left(wherryd) == []
