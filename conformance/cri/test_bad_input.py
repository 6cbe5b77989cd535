"""Requests that contradict themselves or the node: refused soon, the cause told, nothing left, and the daemon serves on."""

from __future__ import annotations

import os
from contextlib import suppress
from typing import TYPE_CHECKING, Any

import grpc
import pytest

from conformance.cri.subject import Code, refused
from shim.gen.runtime.v1 import api_pb2

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from conformance.cri.subject import Pod, Subject

    Change = Callable[[Any], Any]


def _modes(config: Any) -> api_pb2.NamespaceOption:
    found: api_pb2.NamespaceOption = config.linux.security_context.namespace_options
    return found


def _profile(config: Any, kind: Any, reference: str = "") -> None:
    profile = api_pb2.SecurityProfile(profile_type=kind, localhost_ref=reference)
    config.linux.security_context.seccomp.CopyFrom(profile)


PODS: dict[str, Change] = {
    "no metadata": lambda c: c.ClearField("metadata"),
    "unknown network mode": lambda c: setattr(_modes(c), "network", 77),
    "unknown pid mode": lambda c: setattr(_modes(c), "pid", 77),
    "unknown ipc mode": lambda c: setattr(_modes(c), "ipc", 77),
    "unknown protocol": lambda c: c.port_mappings.append(
        api_pb2.PortMapping(protocol=77, container_port=80, host_port=8080)  # type: ignore[arg-type]  # that is the point
    ),
    "a port beyond all numbers": lambda c: c.port_mappings.append(api_pb2.PortMapping(container_port=80, host_port=70000)),
    "an address that is none": lambda c: c.port_mappings.append(
        api_pb2.PortMapping(container_port=80, host_port=8080, host_ip="1.2.3")
    ),
    "another container's pids": lambda c: setattr(_modes(c), "pid", api_pb2.TARGET),
    "unknown sysctl": lambda c: c.linux.sysctls.update({"kernel.no_such_thing": "1"}),
    "a sysctl that leaves": lambda c: c.linux.sysctls.update({"net/../../etc/x": "1"}),
    "a hostname that is too long": lambda c: setattr(c, "hostname", "h" * 300),
    "a group without a user": lambda c: setattr(c.linux.security_context.run_as_group, "value", 5),
    "user namespace without mappings": lambda c: setattr(_modes(c).userns_options, "mode", api_pb2.POD),
    "unknown user namespace mode": lambda c: setattr(_modes(c).userns_options, "mode", api_pb2.CONTAINER),
}


@pytest.mark.parametrize("name", PODS)
def test_pod(subject: Subject, name: str) -> None:
    before = subject.pod_ids()
    config = subject.pod(network=True)
    PODS[name](config)
    message = refused(lambda: subject.run_config(config))
    assert message
    assert subject.pod_ids() == before


def test_pod_without_a_configuration(subject: Subject) -> None:
    refused(lambda: subject.cri.runtime.RunPodSandbox(api_pb2.RunPodSandboxRequest(), timeout=10))


def test_pod_of_an_unknown_handler(subject: Subject) -> None:
    before = subject.pod_ids()
    refused(lambda: subject.cri.run_pod(subject.pod(), "no-such-handler"))
    assert subject.pod_ids() == before


def _mount(config: api_pb2.ContainerConfig, path: str, source: str, **fields: Any) -> None:
    config.mounts.append(api_pb2.Mount(container_path=path, host_path=source, **fields))


CONTAINERS: dict[str, Change] = {
    "no metadata": lambda c: c.ClearField("metadata"),
    "no image": lambda c: c.ClearField("image"),
    "an image that is none": lambda c: setattr(c.image, "image", "a b c"),
    "a group without a user": lambda c: setattr(c.linux.security_context.run_as_group, "value", 5),
    "a user unknown to the image": lambda c: setattr(c.linux.security_context, "run_as_username", "nobody-has-this-name"),
    "a negative user": lambda c: setattr(c.linux.security_context.run_as_user, "value", -7),
    "a user beyond 32 bits": lambda c: setattr(c.linux.security_context.run_as_user, "value", 1 << 33),
    "a seccomp profile that is not there": lambda c: _profile(c, api_pb2.SecurityProfile.Localhost, "/no/such/profile"),
    "a seccomp profile that is none": lambda c: _profile(c, api_pb2.SecurityProfile.Localhost, "/etc/hostname"),
    "an unknown kind of seccomp profile": lambda c: _profile(c, 77),
    "a volume on a relative path": lambda c: _mount(c, "relative", "/tmp"),
    "a volume on the root": lambda c: _mount(c, "/", "/tmp"),
    "a volume from a relative path": lambda c: _mount(c, "/vol", "relative"),
    "an unknown propagation": lambda c: _mount(c, "/vol", "/tmp", propagation=77),
    "recursive read-only that may be written": lambda c: _mount(c, "/vol", "/tmp", recursive_read_only=True),
    "recursive read-only that is shared": lambda c: _mount(
        c, "/vol", "/tmp", recursive_read_only=True, readonly=True, propagation=api_pb2.PROPAGATION_HOST_TO_CONTAINER
    ),
    "a device that is not there": lambda c: c.devices.append(
        api_pb2.Device(host_path="/dev/no-such-device", container_path="/dev/x", permissions="rwm")
    ),
    "another container that is none": lambda c: _modes(c).MergeFrom(
        api_pb2.NamespaceOption(pid=api_pb2.TARGET, target_id="f" * 64)
    ),
    "the node's network in a pod of its own": lambda c: setattr(_modes(c), "network", api_pb2.NODE),
    "an unknown pid mode": lambda c: setattr(_modes(c), "pid", 77),
    "an environment variable without a name": lambda c: c.envs.append(api_pb2.KeyValue(key="", value=b"x")),
    "an oom score beyond its range": lambda c: setattr(c.linux.resources, "oom_score_adj", 5000),
    "garbage as cpus": lambda c: setattr(c.linux.resources, "cpuset_cpus", "none"),
    "less memory than a process needs": lambda c: setattr(c.linux.resources, "memory_limit_in_bytes", 1000),
    "an unknown ipc mode": lambda c: setattr(_modes(c), "ipc", 77),
    "an unknown policy of groups": lambda c: setattr(c.linux.security_context, "supplemental_groups_policy", 77),
    "a group beyond 32 bits": lambda c: c.linux.security_context.MergeFrom(
        api_pb2.LinuxContainerSecurityContext(
            run_as_user=api_pb2.Int64Value(value=1), run_as_group=api_pb2.Int64Value(value=1 << 33)
        )
    ),
    "a supplementary group beyond 32 bits": lambda c: c.linux.security_context.supplemental_groups.append(1 << 33),
    "an unknown stop signal": lambda c: setattr(c, "stop_signal", 777),
    "a log path that leaves": lambda c: setattr(c, "log_path", "../outside.log"),
}


@pytest.fixture(scope="module")
def own_network(endpoint: Subject) -> Pod:
    return endpoint.run(network=True)


@pytest.mark.parametrize("name", CONTAINERS)
def test_container(subject: Subject, own_network: Pod, name: str) -> None:
    order = own_network.order()
    CONTAINERS[name](order)
    before = subject.container_ids()
    outside = subject.logs / "outside.log"

    def call() -> None:
        container = subject.cri.create(own_network.id, order, own_network.config)
        try:
            subject.cri.start(container)  # some leave it to their runtime, which is asked now
        finally:
            subject.cri.remove(container)

    try:
        assert refused(call)
        assert subject.container_ids() == before
        assert not outside.exists()
    finally:
        outside.unlink(missing_ok=True)
        for container in subject.container_ids() - before:
            subject.cri.remove(container)


# What a node with these modules does with a label or a profile is its policy; only its absence can be judged anywhere.
if not os.path.exists("/sys/fs/selinux/enforce"):

    @pytest.mark.parametrize("part", ["user", "role", "type", "level"])
    def test_label_of_a_pod_without_selinux(subject: Subject, part: str) -> None:
        before = subject.pod_ids()
        config = subject.pod()
        setattr(config.linux.security_context.selinux_options, part, "s0:c1,c2" if part == "level" else "s0")
        assert part in refused(lambda: subject.run_config(config), Code.FAILED_PRECONDITION)
        assert subject.pod_ids() == before

    @pytest.mark.parametrize("part", ["user", "role", "type", "level"])
    def test_label_of_a_container_without_selinux(subject: Subject, shared_pod: Pod, part: str) -> None:
        order = shared_pod.order()
        setattr(order.linux.security_context.selinux_options, part, "s0:c1,c2" if part == "level" else "s0")
        before = subject.container_ids()
        try:
            assert part in refused(
                lambda: subject.cri.create(shared_pod.id, order, shared_pod.config), Code.FAILED_PRECONDITION
            )
            assert subject.container_ids() == before
        finally:
            for container in subject.container_ids() - before:
                subject.cri.remove(container)

    def test_level_without_categories_asks_for_nothing(subject: Subject) -> None:
        """Kubernetes' node conformance specs of the statistics name it on every node."""
        config = subject.pod()
        config.linux.security_context.selinux_options.level = "s0"
        pod = subject.run_config(config)
        order = pod.order()
        order.linux.security_context.selinux_options.level = "s0"
        subject.cri.create(pod.id, order, config)

    def test_relabelling_without_selinux(shared_pod: Pod, tmp_path: Path) -> None:
        (tmp_path / "file").write_text("inside\n")
        mount = api_pb2.Mount(container_path="/vol", host_path=str(tmp_path), selinux_relabel=True)
        assert shared_pod.shell("cat /vol/file", mounts=[mount]) == "inside\n"


if not os.path.exists("/sys/module/apparmor"):

    @pytest.mark.parametrize("kind", [api_pb2.SecurityProfile.RuntimeDefault, api_pb2.SecurityProfile.Localhost])
    def test_profile_without_apparmor(subject: Subject, shared_pod: Pod, kind: Any) -> None:
        order = shared_pod.order()
        reference = "localhost/x" if kind == api_pb2.SecurityProfile.Localhost else ""
        order.linux.security_context.apparmor.CopyFrom(api_pb2.SecurityProfile(profile_type=kind, localhost_ref=reference))
        before = subject.container_ids()
        refused(lambda: subject.cri.create(shared_pod.id, order, shared_pod.config))
        assert subject.container_ids() == before


def test_container_of_another_pod_as_target(subject: Subject, own_network: Pod, sleeper: str) -> None:
    order = own_network.order()
    _modes(order).MergeFrom(api_pb2.NamespaceOption(pid=api_pb2.TARGET, target_id=sleeper))
    refused(lambda: subject.cri.create(own_network.id, order, own_network.config))


def test_a_target_in_the_same_pod(subject: Subject, shared_pod: Pod, sleeper: str) -> None:
    order = shared_pod.order()
    _modes(order).MergeFrom(api_pb2.NamespaceOption(pid=api_pb2.TARGET, target_id=sleeper))
    container = subject.cri.create(shared_pod.id, order, shared_pod.config)
    subject.cri.start(container)
    links = [subject.cri.execute(one, "readlink", "/proc/self/ns/pid").stdout for one in (container, sleeper)]
    assert links[0] == links[1]


@pytest.mark.parametrize("name", ["Exec", "Attach"])
@pytest.mark.parametrize("wanted", [{}, {"stdout": True, "stderr": True, "tty": True}])
def test_streams_that_make_no_sense(subject: Subject, sleeper: str, name: str, wanted: dict[str, bool]) -> None:
    request = getattr(api_pb2, f"{name}Request")(container_id=sleeper, **wanted)
    if name == "Exec":
        request.cmd.append("true")
    refused(lambda: getattr(subject.cri.runtime, name)(request, timeout=5), Code.INVALID_ARGUMENT)


NO_SUCH = (Code.NOT_FOUND, Code.INVALID_ARGUMENT, Code.UNKNOWN)


@pytest.mark.parametrize("identifier", ["", "x", "../..", "a/b", "ä", "A" * 5000])
@pytest.mark.parametrize("name", ["ContainerStatus", "PodSandboxStatus", "ExecSync", "StartContainer"])
def test_ids_that_are_none(subject: Subject, name: str, identifier: str) -> None:
    field = "pod_sandbox_id" if "Pod" in name else "container_id"
    request = getattr(api_pb2, f"{name}Request")(**{field: identifier})
    if name == "ExecSync":
        request.cmd.append("true")
    refused(lambda: getattr(subject.cri.runtime, name)(request, timeout=5), *NO_SUCH)


GONE = {
    "container": (
        *("StartContainer", "ContainerStatus", "ContainerStats", "ReopenContainerLog", "UpdateContainerResources"),
        *("CheckpointContainer", "ExecSync", "Exec", "Attach"),
    ),
    "pod": ("PodSandboxStatus", "PodSandboxStats", "PortForward", "UpdatePodSandboxResources", "CheckpointPod"),
}


def _about(name: str, identifier: str) -> Any:
    """Make a request about one pod or container that lacks nothing but the thing itself."""
    request = getattr(api_pb2, f"{name}Request")()
    fields = {field.name for field in request.DESCRIPTOR.fields}
    setattr(request, "container_id" if "container_id" in fields else "pod_sandbox_id", identifier)
    if "cmd" in fields:
        request.cmd.append("true")
    for field in {"stdout", "location", "output_path"} & fields:
        setattr(request, field, True if field == "stdout" else "/tmp/conformance-cri-none")
    return request


@pytest.mark.parametrize("name", GONE["container"])
def test_after_the_removal_of_a_container(subject: Subject, shared_pod: Pod, name: str) -> None:
    container = shared_pod.run()
    subject.cri.remove(container)
    refused(lambda: getattr(subject.cri.runtime, name)(_about(name, container), timeout=10), Code.NOT_FOUND)


@pytest.mark.parametrize("name", GONE["pod"])
def test_after_the_removal_of_a_pod(subject: Subject, pod: Pod, name: str) -> None:
    subject.cri.remove_pod(pod.id)
    refused(lambda: getattr(subject.cri.runtime, name)(_about(name, pod.id), timeout=10), Code.NOT_FOUND)


@pytest.mark.parametrize("kind", ["pod", "container"])
def test_filter_by_an_unknown_state_finds_nothing(subject: Subject, sleeper: str, kind: str) -> None:
    """Whether it is refused or answered by nothing; what is in another state is not in this one."""
    del sleeper
    with suppress(grpc.RpcError):
        if kind == "pod":
            state: Any = api_pb2.PodSandboxStateValue(state=77)  # type: ignore[arg-type]  # that is the point
            pods = api_pb2.ListPodSandboxRequest(filter=api_pb2.PodSandboxFilter(state=state))
            assert not subject.cri.runtime.ListPodSandbox(pods, timeout=5).items
        else:
            state = api_pb2.ContainerStateValue(state=77)  # type: ignore[arg-type]  # that is the point
            containers = api_pb2.ListContainersRequest(filter=api_pb2.ContainerFilter(state=state))
            assert not subject.cri.runtime.ListContainers(containers, timeout=5).containers


def test_a_log_that_is_a_link(subject: Subject, shared_pod: Pod) -> None:
    """Who may write to a pod's log directory must not have the runtime write to another file of the node."""
    target = subject.logs / "target-of-a-link"
    target.write_text("as it was")
    order = shared_pod.order(("echo", "written"), name="linked")
    os.makedirs(shared_pod.config.log_directory, exist_ok=True)
    os.symlink(target, f"{shared_pod.config.log_directory}/{order.log_path}")
    with suppress(grpc.RpcError):
        container = subject.cri.create(shared_pod.id, order, shared_pod.config)
        subject.cri.start(container)
        subject.cri.wait_exit(container)
    assert target.read_text() == "as it was"


def test_it_serves_on(subject: Subject) -> None:
    assert subject.run().finish(("true",)).exit_code == 0
