"""A container in a pod on a plain node, of which each test changes what it is about."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import pytest
from google.protobuf import json_format

from shim.container.spec.capabilities import KNOWN
from shim.container.spec.host import CgroupLayout, HostFacts, HostSources, MountSource
from shim.container.spec.inputs import PodFiles, ResolvedUser, SpecInputs
from shim.gen.runtime.v1 import api_pb2


@dataclass
class Image:
    env: tuple[str, ...] = ()
    entrypoint: tuple[str, ...] = ("/entry",)
    cmd: tuple[str, ...] = ("image-arg",)
    working_dir: str = ""
    user: str = ""
    stop_signal: str = ""


def container(**fields: Any) -> api_pb2.ContainerConfig:
    return json_format.ParseDict(
        {"metadata": {"name": "app"}, "image": {"image": "busybox"}} | fields, api_pb2.ContainerConfig()
    )


def pod(**fields: Any) -> api_pb2.PodSandboxConfig:
    metadata = {"name": "pod", "namespace": "default", "uid": "u-1"}
    return json_format.ParseDict({"metadata": metadata, "hostname": "pod-host"} | fields, api_pb2.PodSandboxConfig())


HOST = HostFacts(capabilities=KNOWN, cgroup_layout=CgroupLayout.V2, hostname="node", swap_controller=True)
PINS = {kind: f"/run/wherry/pods/p/ns/{kind}" for kind in ("network", "ipc", "uts", "pid", "user")}


def inputs(config: dict[str, Any] | None = None, in_pod: dict[str, Any] | None = None, **changes: Any) -> SpecInputs:
    """Give inputs; `config` and `in_pod` are in proto3's JSON form."""
    asked = container(**(config or {}))
    sources = HostSources(mounts=tuple(MountSource(path=mount.host_path) for mount in asked.mounts))
    base = SpecInputs(
        container_id="c" * 64,
        pod_id="p" * 64,
        config=asked,
        pod=pod(**(in_pod or {})),
        image=Image(),
        image_name="docker.io/library/busybox:latest",
        user=ResolvedUser(),
        host=HOST,
        sources=sources,
        pod_namespaces=PINS,
        pod_files=PodFiles(hostname="/p/hostname", hosts="/p/hosts", resolv_conf="/p/resolv.conf", shm="/p/shm"),
    )
    return replace(base, **changes)


def security(**fields: Any) -> dict[str, Any]:
    """Give the JSON of a config with this security context, for a container or a pod."""
    return {"linux": {"securityContext": fields}}


class Kit:
    """What the tests use of this module, which pytest imports under a name of its own."""

    Image = Image
    HOST = HOST
    PINS = PINS
    container = staticmethod(container)
    pod = staticmethod(pod)
    inputs = staticmethod(inputs)
    security = staticmethod(security)


@pytest.fixture
def kit() -> type[Kit]:
    return Kit
