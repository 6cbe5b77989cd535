"""The same CRI requests given to containerd: its spec and ours must decide alike."""

from __future__ import annotations

import pprint
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import pytest
from google.protobuf import json_format

from shim.container.spec.build import build_spec
from shim.container.spec.detect import detect_host
from shim.container.spec.inputs import PodFiles, SpecInputs
from shim.container.spec.layers import LayeredRootfs
from shim.container.spec.sources import gather_sources
from shim.container.spec.users import resolve_user
from shim.gen.runtime.v1 import api_pb2
from tests.support.cri import PodMaker
from tests.support.images import busybox_image, files_layer

if TYPE_CHECKING:
    from pathlib import Path

    from tests.support.daemon import Containerd

pytestmark = pytest.mark.system

IMAGE = "docker.io/library/spec:latest"
PASSWD = "root:x:0:0:root:/root:/bin/sh\nalice:x:1000:1001:Alice:/home/alice:/bin/sh\n"
GROUP = "root:x:0:\nwheel:x:10:root\nalice:x:1001:\nstaff:x:50:alice\n"


@dataclass
class Image:
    env: tuple[str, ...] = ("PATH=/bin", "FROM=image")
    entrypoint: tuple[str, ...] = ("/bin/sh",)
    cmd: tuple[str, ...] = ("-c", "true")
    working_dir: str = "/work"
    user: str = "alice"
    stop_signal: str = ""


CONFIG = {
    "Env": list(Image.env),
    "Entrypoint": list(Image.entrypoint),
    "Cmd": list(Image.cmd),
    "WorkingDir": "/work",
    "User": "alice",
}

SECURITY: list[dict[str, Any]] = [
    {},
    {"runAsUser": {"value": 0}},
    {"runAsUser": {"value": 1000}},
    {"runAsUser": {"value": 4242}, "runAsGroup": {"value": 7}},
    {"runAsUsername": "root", "supplementalGroups": [99, 5]},
    {"capabilities": {"addCapabilities": ["NET_ADMIN"], "dropCapabilities": ["CHOWN"]}},
    {"capabilities": {"dropCapabilities": ["ALL"]}},
    {"capabilities": {"addCapabilities": ["ALL"]}},
    {"capabilities": {"addCapabilities": ["KILL"], "dropCapabilities": ["ALL"]}},
    {"maskedPaths": ["/proc/kcore"], "readonlyPaths": ["/proc/sys"], "readonlyRootfs": True, "noNewPrivs": True},
    {"privileged": True},
    {"seccomp": {"profileType": "RuntimeDefault"}},
    {"seccomp": {"profileType": "Unconfined"}},
]
OTHERS: list[dict[str, Any]] = [
    {"command": ["/bin/echo"]},
    {"args": ["-c", "exit 0"]},
    {"command": ["/bin/echo"], "args": ["x"], "workingDir": "/tmp", "tty": True},
    {"envs": [{"key": "FROM", "value": "Y3Jp"}, {"key": "PATH", "value": ""}]},
    {"linux": {"resources": {"cpuPeriod": 100000, "cpuQuota": 50000, "cpuShares": 512, "memoryLimitInBytes": 1 << 26}}},
    {"linux": {"resources": {"memoryLimitInBytes": 1 << 26, "memorySwapLimitInBytes": 1 << 27, "oomScoreAdj": 300}}},
    {"devices": [{"hostPath": "/dev/null", "containerPath": "/dev/mine", "permissions": "rw"}]},
    {
        "mounts": [
            {"containerPath": "/a/b/c", "hostPath": "/usr", "readonly": True},
            {"containerPath": "/a", "hostPath": "/usr"},
            {"containerPath": "/etc/hosts", "hostPath": "/etc/hosts"},
        ]
    },
    {"mounts": [{"containerPath": "/dev", "hostPath": "/dev"}]},
]
CASES = [{"linux": {"securityContext": security}} for security in SECURITY] + OTHERS


def test_decisions_are_containerds(containerd: Containerd, short_dir: Path) -> None:
    containerd.load({IMAGE: busybox_image(config=CONFIG, extra=(files_layer({"etc/passwd": PASSWD, "etc/group": GROUP}),))})
    rootfs = short_dir / "image"
    (rootfs / "etc").mkdir(parents=True)
    (rootfs / "etc/passwd").write_text(PASSWD)
    (rootfs / "etc/group").write_text(GROUP)
    pods = PodMaker(logs=str(containerd.logs))
    pod_config = pods.pod(cgroup_parent=containerd.cgroup_parent)
    pod_config.linux.security_context.privileged = True
    pod = containerd.cri.run_pod(pod_config)
    different = {}
    for index, case in enumerate(CASES):
        config = pods.container(IMAGE, name=f"c{index}")
        json_format.ParseDict(case, config)
        if not config.linux.security_context.HasField("namespace_options"):
            config.linux.security_context.namespace_options.pid = api_pb2.CONTAINER
        container = containerd.cri.create(pod, config, pod_config)
        theirs = decisions(containerd.cri.info(container)["runtimeSpec"])
        ours = decisions(build_spec(inputs(config, pod_config, rootfs)))
        if not names_user(config):
            # containerd before 2.0 took root's groups for a user of the image's choice
            theirs["groups"] = ours["groups"]
        differences = {key: (theirs[key], ours[key]) for key in theirs if theirs[key] != ours[key]}
        if differences:
            different[str(case)] = differences
        containerd.cri.remove(container)
    assert not different, pprint.pformat(different)


def names_user(config: api_pb2.ContainerConfig) -> bool:
    security = config.linux.security_context
    return security.HasField("run_as_user") or bool(security.run_as_username)


def inputs(config: api_pb2.ContainerConfig, pod: api_pb2.PodSandboxConfig, rootfs: Path) -> SpecInputs:
    image = Image()
    return SpecInputs(
        container_id="c",
        pod_id="p",
        config=config,
        pod=pod,
        image=image,
        image_name=IMAGE,
        user=resolve_user(LayeredRootfs([str(rootfs)]), config.linux.security_context, image.user),
        host=detect_host(),
        sources=gather_sources(config),
        pod_namespaces={kind: f"/ns/{kind}" for kind in ("network", "ipc", "uts")},
        pod_files=PodFiles(hostname="/p/hostname", hosts="/p/hosts", resolv_conf="/p/resolv.conf", shm="/p/shm"),
    )


def decisions(spec: dict[str, Any]) -> dict[str, Any]:
    """Give what both must decide alike; leave out names, our HOME (runc sets it) and the versions' lists of system calls."""
    process, linux = spec["process"], spec["linux"]
    capabilities = process.get("capabilities", {})
    resources = linux["resources"]
    return {
        "args": process["args"],
        # containerd leaves doubles to runc, which takes the last
        "env": {name: value for name, _, value in (entry.partition("=") for entry in process["env"]) if name != "HOME"},
        "cwd": process["cwd"],
        "terminal": process.get("terminal", False),
        "uid": (process["user"].get("uid", 0), process["user"].get("gid", 0)),
        "groups": set(process["user"].get("additionalGids", ())),
        "bounding": set(capabilities.get("bounding") or ()),
        "effective": set(capabilities.get("effective") or ()),
        "inheritable": set(capabilities.get("inheritable") or ()),
        "ambient": set(capabilities.get("ambient") or ()),
        "no_new_privileges": process.get("noNewPrivileges", False),
        "oom_score_adj": process.get("oomScoreAdj"),
        "rlimits": process.get("rlimits") or [],
        "readonly": spec["root"].get("readonly", False),
        "mounts": [_mount(mount) for mount in spec["mounts"]],
        "masked": linux.get("maskedPaths") or [],
        "read_only": linux.get("readonlyPaths") or [],
        "cpu": resources.get("cpu") or {},
        "memory": resources.get("memory") or {},
        "device_rules": resources.get("devices") or [],
        "devices": {device["path"] for device in linux.get("devices") or []},
        "namespaces": {entry["type"]: bool(entry.get("path")) for entry in linux["namespaces"]},
        "seccomp": (linux.get("seccomp") or {}).get("defaultAction"),
        "annotations": {key for key in spec["annotations"] if key.startswith("io.kubernetes.cri.")},
    }


def _mount(mount: dict[str, Any]) -> tuple[str, str, str, tuple[str, ...]]:
    source = "" if mount["type"] == "bind" else mount["source"]
    return mount["destination"], mount["type"], source, tuple(mount["options"])
