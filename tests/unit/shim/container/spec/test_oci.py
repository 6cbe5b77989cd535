"""Whatever is built must be a config.json that the OCI runtime takes."""

from __future__ import annotations

import json
import os
from dataclasses import replace

import pytest

from runtime.spec.parse import parse_spec
from runtime.spec.validate import validate
from shim.container.spec.build import build_spec
from shim.container.spec.host import CgroupLayout, DeviceNode, HostSources, MountSource, SourcePropagation
from shim.container.spec.inputs import HandlerFeatures, SpecSettings

MAPS = [{"hostId": 100000, "containerId": 0, "length": 65536}]
USERNS = {"namespaceOptions": {"usernsOptions": {"mode": "POD", "uids": MAPS, "gids": MAPS}}}
FEATURES = HandlerFeatures(recursive_read_only_mounts=True, user_namespaces=True)
NULL = DeviceNode(path="", kind="c", major=1, minor=3)

CASES = {
    "plain": ({}, {}),
    "terminal": ({"tty": True, "stdin": True}, {}),
    "privileged": ("privileged", "privileged"),
    "host": (
        {},
        {"linux": {"securityContext": {"namespaceOptions": {"network": "NODE", "ipc": "NODE", "pid": "NODE"}}}},
    ),
    "confined": (
        {
            "linux": {
                "securityContext": {
                    "seccomp": {"profileType": "RuntimeDefault"},
                    "capabilities": {"dropCapabilities": ["ALL"], "addAmbientCapabilities": ["NET_BIND_SERVICE"]},
                    "maskedPaths": ["/proc/kcore", "/sys/firmware"],
                    "readonlyPaths": ["/proc/sys"],
                    "readonlyRootfs": True,
                    "noNewPrivs": True,
                },
                "resources": {
                    "cpuPeriod": 100000,
                    "cpuQuota": 20000,
                    "cpuShares": 2,
                    "memoryLimitInBytes": 1 << 26,
                    "oomScoreAdj": 999,
                    "unified": {"memory.oom.group": "1"},
                    "hugepageLimits": [{"pageSize": "2MB", "limit": 0}],
                },
            }
        },
        {},
    ),
    "mounts": (
        {
            "mounts": [
                {"containerPath": "/m", "hostPath": "/h", "readonly": True, "recursiveReadOnly": True},
                {"containerPath": "/b", "hostPath": "/h", "propagation": "PROPAGATION_BIDIRECTIONAL"},
            ],
            "devices": [{"hostPath": "/dev/null", "containerPath": "/dev/n", "permissions": "rw"}],
        },
        {},
    ),
    "userns": ({}, {"linux": {"securityContext": USERNS}}),
}


@pytest.mark.parametrize("layout", list(CgroupLayout))
@pytest.mark.parametrize("case", CASES)
def test_the_runtime_takes_it(kit, case, layout):
    config, pod = (kit.security(privileged=True) if part == "privileged" else part for part in CASES[case])
    if layout is not CgroupLayout.V2:
        config = json.loads(json.dumps(config))
        config.get("linux", {}).get("resources", {}).pop("unified", None)
    given = kit.inputs(config, pod, features=FEATURES, host=replace(kit.HOST, cgroup_layout=layout, hugetlb_controller=True))
    sources = HostSources(
        mounts=tuple(MountSource(path="/h", propagation=SourcePropagation.SHARED) for _ in given.config.mounts),
        devices=tuple((NULL,) for _ in given.config.devices),
        host_devices=(replace(NULL, path="/dev/null"),),
    )
    text = json.dumps(build_spec(replace(given, sources=sources))).encode()
    spec = parse_spec(text)
    validate(spec)
    assert spec.process is not None
    assert spec.process.args == ("/entry", "image-arg")


@pytest.mark.parametrize("cgroup", ["", "/system.slice/wherry-p.scope"])
def test_cgroup_paths_of_both_drivers(kit, cgroup):
    spec = parse_spec(build_spec(kit.inputs(settings=SpecSettings(pod_cgroup=cgroup))))
    validate(spec)
    assert spec.linux.cgroups_path.startswith(f"{cgroup}/" if cgroup else "/wherry-")


def test_bytes_of_the_environment_reach_execve(kit):
    given = kit.inputs()
    given.config.envs.add(key="RAW", value=bytes(range(1, 256)))
    spec = parse_spec(json.dumps(build_spec(given)).encode())
    assert spec.process is not None
    raw = next(entry for entry in spec.process.env if entry.startswith("RAW="))
    assert os.fsencode(raw) == b"RAW=" + bytes(range(1, 256))
