"""Requests that cannot be served, one by one against a live daemon: the right code, soon, the cause named, nothing left."""

from __future__ import annotations

import os
import time
from typing import TYPE_CHECKING

import grpc
import pytest

from shim.gen.runtime.v1 import api_pb2
from shim.gen.wherry.v1 import wherry_pb2
from tests.support import images
from tests.support.daemon import BUSYBOX
from tests.support.registry import free_port

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.support.cri import PodMaker
    from tests.support.daemon import Wherryd

    Spoil = Callable[[api_pb2.ContainerConfig], object]
    SpoilPod = Callable[[api_pb2.PodSandboxConfig], object]

pytestmark = pytest.mark.system

Code = grpc.StatusCode
BAD, STATE, FULL = Code.INVALID_ARGUMENT, Code.FAILED_PRECONDITION, Code.RESOURCE_EXHAUSTED
BOUND = 5.0
"""Seconds within which every answer must be there."""


def refusal(call: Callable[[], object]) -> tuple[grpc.StatusCode, str]:
    started = time.monotonic()
    with pytest.raises(grpc.RpcError) as caught:
        call()
    assert time.monotonic() - started < BOUND
    return caught.value.code(), caught.value.details()


def left(wherryd: Wherryd) -> list[str]:
    folders = (wherryd.root / "containers", wherryd.state / "oci", wherryd.root / "content" / "partial")
    return [f"{folder.name}/{name}" for folder in folders if folder.exists() for name in os.listdir(folder)]


def security(config: api_pb2.ContainerConfig) -> api_pb2.LinuxContainerSecurityContext:
    return config.linux.security_context


def localhost(path: str) -> api_pb2.SecurityProfile:
    return api_pb2.SecurityProfile(profile_type=api_pb2.SecurityProfile.Localhost, localhost_ref=path)


def mount(path: str, host: str = "/tmp") -> Spoil:
    return lambda config: config.mounts.append(api_pb2.Mount(container_path=path, host_path=host))


CONTAINERS: dict[str, tuple[Spoil, grpc.StatusCode, str]] = {
    "relative cwd": (lambda config: setattr(config, "working_dir", "rel"), BAD, "working_dir 'rel'"),
    "unknown user": (lambda config: setattr(security(config), "run_as_username", "ghost"), BAD, "user 'ghost'"),
    "negative uid": (lambda config: setattr(security(config).run_as_user, "value", -1), BAD, "run_as_user -1"),
    "overflowing uid": (lambda config: setattr(security(config).run_as_user, "value", 2**40), BAD, "run_as_user"),
    "negative memory": (lambda config: setattr(config.linux.resources, "memory_limit_in_bytes", -5), BAD, "memory_limit"),
    "garbage cpuset": (lambda config: setattr(config.linux.resources, "cpuset_cpus", "x"), BAD, "cpuset_cpus 'x'"),
    "absent cpus": (lambda config: setattr(config.linux.resources, "cpuset_cpus", "999"), BAD, "the cgroup above has not all"),
    "little memory": (
        lambda config: setattr(config.linux.resources, "memory_limit_in_bytes", 1 << 14),
        FULL,
        "raise linux.res",
    ),
    "short period": (
        lambda config: setattr(config.linux.resources, "cpu_period", 1),
        BAD,
        "its quota and period are 1 ms to 1 s",
    ),
    "oom score": (lambda config: setattr(config.linux.resources, "oom_score_adj", 5000), BAD, "oom_score_adj 5000"),
    "env name": (lambda config: config.envs.append(api_pb2.KeyValue(key="a=b", value=b"x")), BAD, "envs[0].key"),
    "NUL in env": (lambda config: config.envs.append(api_pb2.KeyValue(key="a", value=b"x\0y")), BAD, "NUL"),
    "NUL in args": (lambda config: config.args.append("x\0y"), BAD, "NUL"),
    "mount on the root": (mount("/"), BAD, "container's root"),
    "mount over /proc/sys": (mount("/proc/sys"), BAD, "/proc/sys cannot be mounted over"),
    "file on a directory": (mount("/etc", "/etc/hostname"), BAD, "mount on /etc: a file cannot be mounted on a directory"),
    "directory on a file": (mount("/etc/passwd"), BAD, "mount on /etc/passwd: a directory cannot be mounted on a file"),
    "mount below a file": (mount("/etc/passwd/x"), BAD, "/etc/passwd/x: not a directory"),
    "no seccomp profile": (lambda config: security(config).seccomp.CopyFrom(localhost("/no/such.json")), BAD, "localhost_ref"),
    "garbage seccomp": (lambda config: security(config).seccomp.CopyFrom(localhost("/etc/passwd")), BAD, "not JSON"),
    "no device": (
        lambda config: config.devices.append(api_pb2.Device(host_path="/dev/nope", container_path="/dev/x", permissions="r")),
        BAD,
        "devices[0].host_path '/dev/nope'",
    ),
    "log outside": (lambda config: setattr(config, "log_path", "../../x"), BAD, "log_path"),
    "log on a directory": (lambda config: setattr(config, "log_path", "folder"), STATE, "folder of the container cannot be"),
    "log below a file": (lambda config: setattr(config, "log_path", "file/x.log"), STATE, "file on the host cannot be"),
    "stop signal": (lambda config: setattr(config, "stop_signal", 999), BAD, "stop_signal 999"),
    "no image name": (lambda config: config.image.ClearField("image"), BAD, "image"),
    "malformed image": (lambda config: setattr(config.image, "image", "a b"), BAD, "a b"),
    "unknown image": (lambda config: setattr(config.image, "image", "no/such:1"), Code.NOT_FOUND, "no/such"),
}


def test_containers(wherryd: Wherryd, pods: PodMaker) -> None:
    config = pods.pod()
    pod = wherryd.cri.run_pod(config)
    os.makedirs(f"{config.log_directory}/folder")
    with open(f"{config.log_directory}/file", "wb"):
        pass
    for name, (spoil, code, text) in CONTAINERS.items():
        order = pods.container(BUSYBOX, ["sleep", "100"])
        spoil(order)
        found, details = refusal(lambda o=order: wherryd.cri.create(pod, o, config))
        assert (found, text in details) == (code, True), (name, found, details)
        assert not details.startswith("["), details  # no error number of Python's
        assert left(wherryd) == [], name
    assert wherryd.cri.containers() == []


PODS: dict[str, tuple[SpoilPod, str]] = {
    "no metadata": (lambda config: config.ClearField("metadata"), "metadata"),
    "unknown sysctl": (lambda config: config.linux.sysctls.update({"net.nope": "1"}), "net.nope"),
    "the node's sysctl": (lambda config: config.linux.sysctls.update({"vm.swappiness": "1"}), "vm.swappiness"),
    "a path as sysctl": (lambda config: config.linux.sysctls.update({"net/../../kernel/x": "1"}), "net/../../kernel/x"),
    "long hostname": (lambda config: setattr(config, "hostname", "x" * 65), "hostname"),
    "broken hostname": (lambda config: setattr(config, "hostname", "a/b\n"), "hostname"),
    "injected DNS": (lambda config: config.dns_config.servers.append("1.1.1.1\noptions x"), "dns_config.servers[0]"),
    "cgroup outside": (lambda config: setattr(config.linux, "cgroup_parent", "/../../x"), "cgroup_parent"),
    "no port": (
        lambda config: config.port_mappings.append(api_pb2.PortMapping(host_port=70000, container_port=80)),
        "host_port 70000",
    ),
    "port that leads nowhere": (
        lambda config: config.port_mappings.append(api_pb2.PortMapping(host_port=8099)),
        "host_port 8099",
    ),
    "bandwidth": (lambda config: config.annotations.update({"kubernetes.io/ingress-bandwidth": "much"}), "'much'"),
    "namespace": (lambda config: setattr(config.linux.security_context.namespace_options, "network", 7), "network 7"),
}


def test_pods(wherryd: Wherryd, pods: PodMaker) -> None:
    for name, (spoil, text) in PODS.items():
        config = pods.pod()
        spoil(config)
        code, details = refusal(lambda c=config: wherryd.cri.run_pod(c))
        assert (code, text in details) == (BAD, True), (name, code, details)
        assert os.listdir(wherryd.netns) == []
        assert not (wherryd.state / "pods").exists() or os.listdir(wherryd.state / "pods") == []
    assert refusal(lambda: wherryd.cri.run_pod(pods.pod(), "nope"))[0] is BAD


@pytest.mark.parametrize(
    ("command", "exit_code", "text"),
    [
        ("nope", 127, "executable file not found in $PATH"),
        ("/nope", 127, "no such file or directory"),
        ("/etc", 126, "permission denied"),
        ("/etc/passwd", 126, "permission denied"),
        ("", 127, "not found"),
    ],
)
def test_commands(wherryd: Wherryd, pods: PodMaker, command: str, exit_code: int, text: str) -> None:
    config = pods.pod()
    pod = wherryd.cri.run_pod(config)
    container = wherryd.cri.create(pod, pods.container(BUSYBOX, [command]), config)
    assert text in refusal(lambda: wherryd.cri.start(container))[1]
    status = wherryd.cri.status(container)
    assert (status.state, status.exit_code, status.reason) == (api_pb2.CONTAINER_EXITED, exit_code, "ContainerCannotRun")
    assert text in status.message
    wherryd.cri.remove(container)
    assert left(wherryd) == []


def test_arguments_beyond_the_kernel_s_limit(wherryd: Wherryd, pods: PodMaker) -> None:
    config = pods.pod()
    pod = wherryd.cri.run_pod(config)
    container = wherryd.cri.create(pod, pods.container(BUSYBOX, ["echo"], args=["x" * (4 << 20)]), config)
    assert "argument list too long" in refusal(lambda: wherryd.cri.start(container))[1]
    assert wherryd.cri.status(container).exit_code == 128


@pytest.mark.parametrize("reference", ["", "a b", "busybox:", "busybox@sha256:xyz", "http://x/y", "x" * 5000, "../.."])
def test_references(wherryd: Wherryd, reference: str) -> None:
    assert refusal(lambda: wherryd.cri.pull(reference))[0] is BAD


@pytest.mark.parametrize("wherryd", [{"extra": "[image]\nretries = 1\n"}], indirect=True)
def test_a_registry_that_is_not_there(wherryd: Wherryd) -> None:
    code, details = refusal(lambda: wherryd.cri.pull(f"127.0.0.1:{free_port()}/x:1"))
    assert code is Code.UNAVAILABLE
    assert details.startswith("RegistryUnavailable: ")
    assert "connect call failed" in details or "refused" in details
    assert "object at" not in details


def test_archives(wherryd: Wherryd) -> None:
    whole = images.docker_archive({"localhost/new:1": images.busybox_image(config={"User": "app"})})
    for blob in (b"", b"x" * 10_000, whole[:200_000]):
        load = [wherry_pb2.LoadRequest(data=blob)]
        assert refusal(lambda messages=load: wherryd.cri.wherry.Load(iter(messages), timeout=20))[0] is BAD
        assert left(wherryd) == []
        assert [name for name in os.listdir(wherryd.root) if name.startswith("load-")] == []
