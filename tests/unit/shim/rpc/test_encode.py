import json

import pytest

from shim.container.create import create_container
from shim.container.start import start_container
from shim.gen.runtime.v1 import api_pb2
from shim.pod.run import run_pod_sandbox
from shim.rpc import encode
from shim.rpc.encode import signal_name
from tests.unit.shim.fakes import container_config, pod_config


@pytest.mark.parametrize(
    ("number", "name"),
    [
        (15, "SIGNAL_SIGTERM"),
        (10, "SIGNAL_SIGUSR1"),
        (34, "SIGNAL_SIGRTMIN"),
        (37, "SIGNAL_SIGRTMINPLUS3"),
        (63, "SIGNAL_SIGRTMAXMINUS1"),
        (64, "SIGNAL_SIGRTMAX"),
    ],
)
def test_signal_names(number, name):
    assert signal_name(number) == name


def test_every_signal_has_a_name_in_the_cri():
    for number in range(1, 65):
        if number in {32, 33}:  # the C library keeps these
            continue
        assert signal_name(number) in api_pb2.Signal.DESCRIPTOR.values_by_name


def test_messages_are_plain_json_as_go_writes_them():
    config = container_config(
        labels={"a": "b"}, envs=[api_pb2.KeyValue(key="K", value=b"\xff")], tty=True, stop_signal=api_pb2.SIGNAL_SIGUSR1
    )
    config.linux.resources.cpu_period = 100_000
    config.linux.security_context.run_as_user.value = 0
    assert encode.plain(config) == {
        "metadata": {"name": "main"},
        "image": {"image": "busybox"},
        "command": ["/bin/sleep", "1"],
        "envs": [{"key": "K", "value": "/w=="}],
        "labels": {"a": "b"},
        "tty": True,
        "linux": {
            "resources": {"cpu_period": 100_000},
            "security_context": {"namespace_options": {"pid": 1}, "run_as_user": {}},
        },
        "stop_signal": int(api_pb2.SIGNAL_SIGUSR1),
    }


async def test_verbose_information_has_containerd_s_keys(world):
    node, _ = world
    pod = await run_pod_sandbox(node, pod_config(), "")
    info = json.loads(encode.pod_info(node, node.pods.get(pod)))
    assert (info["pid"], info["processStatus"], info["netNamespaceClosed"]) == (0, "running", False)
    container = await create_container(node, pod, container_config())
    await start_container(node, container)
    info = json.loads(encode.pod_info(node, node.pods.get(pod)))
    assert info["pid"] == 100
    assert {one["type"]: one["path"] for one in info["runtimeSpec"]["linux"]["namespaces"]}["network"] == info["netNamespace"]
    assert (info["runtimeHandler"], info["runtimeType"]) == ("wherry", "wherry")
    assert info["config"]["metadata"]["name"] == "web"
    found = json.loads(encode.container_info(node, node.containers.get(container), {"ociVersion": "1"}))
    assert {key: found[key] for key in ("sandboxID", "pid", "removing", "runtimeType", "snapshotKey", "privileged")} == {
        "sandboxID": pod,
        "pid": 100,
        "removing": False,
        "runtimeType": "wherry",
        "snapshotKey": container,
        "privileged": False,
    }
    assert found["runtimeSpec"] == {"ociVersion": "1"}
    image = json.loads(encode.image_info("sha256:abc", b'{"os": "linux"}'))
    assert image == {"chainID": "sha256:abc", "imageSpec": {"os": "linux"}}
