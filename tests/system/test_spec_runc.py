"""Specs built from CRI requests, executed by the real OCI runtimes: what was asked for is what the process finds."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest
from google.protobuf import json_format

from shim.container.spec.build import build
from shim.container.spec.detect import detect_host
from shim.container.spec.inputs import PodFiles, SpecInputs
from shim.container.spec.layers import LayeredRootfs
from shim.container.spec.sources import gather_sources
from shim.container.spec.users import resolve_user
from shim.gen.runtime.v1 import api_pb2
from tests.support.daemon import without_hybrid

pytestmark = pytest.mark.system

PASSWD = "root:x:0:0:root:/root:/bin/sh\nalice:x:1000:1001:Alice:/home/alice:/bin/sh\n"
GROUP = "root:x:0:\nalice:x:1001:\nstaff:x:50:alice\n"
MASKED = ["/proc/kcore", "/proc/keys", "/sys/firmware"]


@dataclass
class Image:
    env: tuple[str, ...] = ("FROM=image",)
    entrypoint: tuple[str, ...] = ()
    cmd: tuple[str, ...] = ("/bin/true",)
    working_dir: str = "/work"
    user: str = ""
    stop_signal: str = ""


def own_runtime() -> str:
    """Give the path of our own OCI runtime, installed beside this interpreter."""
    return str(Path(sys.executable).parent / "wherry-oci")


@pytest.fixture(params=["runc", "crun", "wherry-oci"])
def run(request, tool, busybox_rootfs, short_dir):
    """Give a function that runs a script in a container of the given CRI configs and gives what it prints."""
    runtime = own_runtime() if request.param == "wherry-oci" else tool(request.param)
    (busybox_rootfs / "etc").mkdir(exist_ok=True)
    (busybox_rootfs / "etc/passwd").write_text(PASSWD)
    (busybox_rootfs / "etc/group").write_text(GROUP)
    for name in ("hostname", "hosts", "resolv.conf"):
        (short_dir / name).write_text(f"{name} of the pod\n")
    files = PodFiles(
        hostname=str(short_dir / "hostname"), hosts=str(short_dir / "hosts"), resolv_conf=str(short_dir / "resolv.conf")
    )
    names = (f"wspec-{os.getpid()}-{request.param}-{count}" for count in range(100))

    def start(script: str, config: dict[str, Any] | None = None, pod: dict[str, Any] | None = None, **image: Any) -> str:
        given = inputs(next(names), script, config or {}, pod or {}, Image(**image))
        given = replace(given, pod_files=files, user=user(given, busybox_rootfs))
        for directory in given.sources.ensure_dirs:
            Path(directory).mkdir(parents=True)
        (short_dir / "config.json").write_text(json.dumps(build(given).config))
        command = [
            *without_hybrid(runtime),
            runtime,
            "--root",
            str(short_dir / "state"),
            "run",
            "--bundle",
            str(short_dir),
            given.container_id,
        ]
        done = subprocess.run(command, capture_output=True, timeout=60, check=False, stdin=subprocess.DEVNULL)
        assert done.returncode == 0, done.stderr.decode()
        return done.stdout.decode("utf-8", "surrogateescape")

    return start


def inputs(name: str, script: str, config: dict[str, Any], pod: dict[str, Any], image: Image) -> SpecInputs:
    base = {"metadata": {"name": "app"}, "image": {"image": "x"}, "command": ["/bin/sh", "-c"], "args": [script]}
    asked = json_format.ParseDict(base | config, api_pb2.ContainerConfig())
    in_pod = json_format.ParseDict({"metadata": {"name": "p"}, "hostname": "pod-host"} | pod, api_pb2.PodSandboxConfig())
    if not in_pod.linux.security_context.HasField("namespace_options"):
        in_pod.linux.security_context.namespace_options.pid = api_pb2.CONTAINER
    return SpecInputs(
        container_id=name,
        pod_id="p",
        config=asked,
        pod=in_pod,
        image=image,
        image_name="x",
        user=resolve_user(LayeredRootfs([]), api_pb2.LinuxContainerSecurityContext(), ""),
        host=detect_host(),
        sources=gather_sources(asked),
        pod_namespaces={},
    )


def user(given: SpecInputs, rootfs: Path):
    return resolve_user(LayeredRootfs([str(rootfs)]), given.config.linux.security_context, given.image.user)


def security(**fields: Any) -> dict[str, Any]:
    return {"linux": {"securityContext": fields}}


def test_environment_directory_and_names(run):
    out = run("env; pwd; hostname; cat /etc/hosts /etc/hostname /etc/resolv.conf", {"envs": [{"key": "CRI", "value": "eA=="}]})
    for line in (
        "FROM=image",
        "CRI=x",
        "HOSTNAME=pod-host",
        "HOME=/root",
        "/work",
        "pod-host",
        "hosts of the pod",
        "hostname of the pod",
        "resolv.conf of the pod",
    ):
        assert line in out.splitlines()


def test_user_and_groups(run):
    out = run("id; echo $HOME", security(supplementalGroups=[77]), user="alice")
    assert "uid=1000(alice) gid=1001(alice)" in out
    assert {"50(staff)", "77", "1001(alice)"} == set(out.split("groups=")[1].split()[0].split(","))
    assert "/home/alice" in out


def test_capabilities_and_flags(run):
    asked = security(capabilities={"dropCapabilities": ["ALL"], "addCapabilities": ["CHOWN"]}, noNewPrivs=True)
    out = run("grep -E 'Cap(Eff|Bnd|Inh|Amb)|NoNewPrivs' /proc/self/status", asked)
    values = dict(line.split(":\t") for line in out.splitlines())
    assert int(values["CapEff"], 16) == int(values["CapBnd"], 16) == 1
    assert int(values["CapInh"], 16) == int(values["CapAmb"], 16) == 0
    assert values["NoNewPrivs"] == "1"


def test_default_seccomp_profile(run):
    asked = security(seccomp={"profileType": "RuntimeDefault"})
    out = run("grep ^Seccomp: /proc/self/status; unshare -U true || echo refused; ls / >/dev/null && echo works", asked)
    assert "Seccomp:\t2" in out
    assert "refused" in out
    assert "works" in out


def test_localhost_seccomp_profile(run, short_dir):
    profile = {
        "defaultAction": "SCMP_ACT_ALLOW",
        "archMap": [{"architecture": "SCMP_ARCH_X86_64", "subArchitectures": ["SCMP_ARCH_X86"]}],
        "syscalls": [
            {"names": ["mkdir", "mkdirat"], "action": "SCMP_ACT_ERRNO", "errnoRet": 1},
            {"names": ["rmdir"], "action": "SCMP_ACT_ERRNO", "includes": {"caps": ["CAP_SYS_ADMIN"]}},
        ],
    }
    (short_dir / "profile.json").write_text(json.dumps(profile))
    reference = str(short_dir / "profile.json")
    asked = security(seccomp={"profileType": "Localhost", "localhostRef": reference})
    out = run("mkdir /tmp/x 2>&1; rmdir /tmp/nothing 2>&1; true", asked)
    assert "Operation not permitted" in out.splitlines()[0]
    assert "No such file" in out.splitlines()[1]


def test_root_and_paths(run):
    asked = security(readonlyRootfs=True, maskedPaths=MASKED, readonlyPaths=["/proc/sys"])
    out = run(
        "touch /x 2>&1; (echo 1 > /proc/sys/kernel/printk) 2>&1; head -c1 /proc/kcore | wc -c; (echo x > /etc/hosts) 2>&1; "
        "mkdir /sys/fs/cgroup/pids/x 2>&1; true",
        asked,
    )
    assert out.count("Read-only file system") + out.count("nonexistent directory") >= 3
    assert "\n0\n" in out


def test_mounts(run, short_dir):
    (short_dir / "data").mkdir()
    (short_dir / "data/file").write_text("inside\n")
    mounts = [
        {"containerPath": "/ro/deep", "hostPath": str(short_dir / "data"), "readonly": True},
        {"containerPath": "/rw", "hostPath": str(short_dir / "made/by/us")},
        {"containerPath": "/../etc/hosts", "hostPath": str(short_dir / "data/file")},
    ]
    out = run("cat /ro/deep/file /etc/hosts; touch /ro/deep/x 2>&1; touch /rw/x && echo written", {"mounts": mounts})
    assert out.count("inside") == 2
    assert "Read-only file system" in out
    assert "written" in out
    assert (short_dir / "made/by/us/x").exists()


def test_namespaces_of_the_pod(run):
    links = "for kind in net ipc uts pid; do readlink /proc/self/ns/$kind; done"
    out = run(f"echo $$; {links}")
    pid, *own = out.splitlines()
    assert pid == "1"
    host = [os.readlink(f"/proc/self/ns/{kind}") for kind in ("net", "ipc", "uts", "pid")]
    assert not set(own) & set(host)
    modes = security(namespaceOptions={"network": "NODE", "ipc": "NODE", "pid": "NODE"})
    out = run(links, None, modes)
    assert out.split() == host


def test_limits(run):
    resources = {"memoryLimitInBytes": 64 << 20, "cpuShares": 512, "oomScoreAdj": 500}
    out = run(
        "cat /proc/self/oom_score_adj /sys/fs/cgroup/memory/memory.limit_in_bytes /sys/fs/cgroup/memory.max 2>/dev/null; true",
        {"linux": {"resources": resources}},
    )
    assert out.split()[:2] == ["500", str(64 << 20)]


def test_devices(run):
    """A device outside the runtimes' default list, so that only the rule of the CRI can allow anything."""
    device = next(path for path in ("/dev/fuse", "/dev/loop-control", "/dev/kmsg") if Path(path).exists())
    asked = {"devices": [{"hostPath": device, "containerPath": "/dev/mine", "permissions": "r"}]}
    script = "(: < /dev/mine) 2>&1 && echo read; (: > /dev/mine) 2>&1; head -c1 /dev/urandom | wc -c; test -c /dev/null"
    read, refused, random = run(script, asked).splitlines()
    assert read == "read"
    assert "Operation not permitted" in refused
    assert random == "1"


def test_privileged(run):
    privileged = security(privileged=True, namespaceOptions={"pid": "CONTAINER"})
    out = run(
        "grep CapBnd /proc/self/status; mount -t tmpfs none /tmp && echo mounted; test -c /dev/kmsg && echo kmsg; "
        "awk '$2 == \"/sys\" {print $4}' /proc/mounts",
        privileged,
        privileged,
    )
    own = next(line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("CapBnd"))
    assert own.split()[1] in out
    assert "mounted" in out
    if Path("/dev/kmsg").exists():
        assert "kmsg" in out.splitlines()
    assert out.splitlines()[-1].startswith("rw,")
