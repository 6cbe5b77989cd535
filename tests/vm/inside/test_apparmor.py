"""AppArmor, which Debian's kernel has on: profiles are applied, by both runtimes' words, and unknown ones are refused."""

from __future__ import annotations

import json
import os
import subprocess
from typing import TYPE_CHECKING

import grpc
import pytest

from shim.gen.runtime.v1 import api_pb2

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from tests.support.cri import PodMaker
    from tests.support.daemon import Wherryd
    from tests.system.oci_node import Oci

pytestmark = pytest.mark.vm

MINE, DEFAULT = "wtest-vessel", "wherry-default"
RULES = "flags=(attach_disconnected,mediate_deleted) { file, capability, network, unix, signal, ptrace, deny /tmp/secret w, }"
SCRIPT = "cat /proc/self/attr/current; echo ahoy > /tmp/open; echo ahoy > /tmp/secret"
DENIED = "can't create /tmp/secret: Permission denied"
SecurityProfile = api_pb2.SecurityProfile


def parser(*arguments: str, rules: str) -> None:
    subprocess.run(["apparmor_parser", "--skip-cache", *arguments], input=rules, text=True, check=True)


@pytest.fixture
def profile(request: pytest.FixtureRequest) -> Iterator[str]:
    """Load a profile that allows all but writing to one file, and give its name."""
    name = getattr(request, "param", MINE)
    rules = f"profile {name} {RULES}"
    parser("--replace", rules=rules)
    yield name
    parser("--remove", rules=rules)


@pytest.fixture
def bare(ours: Oci) -> Oci:
    """Give a container with a writable /tmp."""
    ours.config["mounts"].append({"destination": "/tmp", "type": "tmpfs", "source": "tmpfs"})
    return ours


def test_a_program_is_confined(bare: Oci, profile: str) -> None:
    bare.config["process"]["apparmorProfile"] = profile
    done = bare.run("sh", "-c", SCRIPT)
    assert (done.stdout, done.returncode) == (f"{profile} (enforce)\n", 1)
    assert DENIED in done.stderr


def test_an_exec_is_confined(bare: Oci, profile: str, tmp_path: Path) -> None:
    """By the container's own profile, by the one on the command line, by the one of its document."""
    bare.config["process"]["apparmorProfile"] = profile
    name = bare.start("sleep", "1000")
    confined = bare.call("exec", name, "sh", "-c", SCRIPT)
    assert (confined.stdout, DENIED in confined.stderr) == (f"{profile} (enforce)\n", True)
    assert bare.ok("exec", "--apparmor", "unconfined", name, "sh", "-c", SCRIPT) == "unconfined\n"
    document = tmp_path / "process.json"
    document.write_text(json.dumps(bare.config["process"] | {"args": ["cat", "/proc/self/attr/current"]}))
    assert bare.ok("exec", "--process", str(document), name) == f"{profile} (enforce)\n"
    missing = bare.call("exec", "--apparmor", "wtest-none", name, "true")
    assert missing.returncode == 255
    assert "wtest-none" in missing.stderr
    assert bare.state(name)["status"] == "running"


def test_an_exec_that_takes_two_forks_is_confined(bare: Oci, profile: str) -> None:
    """The kernel lets only that process choose a profile that has opened its file itself."""
    bare.config["process"]["apparmorProfile"] = profile
    for powers in bare.config["process"]["capabilities"].values():
        powers.append("CAP_SYS_PTRACE")
    name = bare.start("sleep", "1000")
    assert bare.ok("exec", name, "cat", "/proc/self/attr/current") == f"{profile} (enforce)\n"


def test_an_image_with_a_proc_of_its_own(bare: Oci, profile: str) -> None:
    """CVE-2023-28642: a label goes to the kernel's procfs, not to a file of the image, for a container and for an exec."""
    files = [bare.rootfs / "proc/self/attr" / name for name in ("exec", "apparmor/exec", "current")]
    for file in files:
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text("fake")
    (bare.rootfs / "proc/thread-self").symlink_to("self")
    bare.config["mounts"] = [mount for mount in bare.config["mounts"] if mount["destination"] != "/proc"]
    bare.config["process"]["apparmorProfile"] = profile
    done = bare.run("sh", "-c", SCRIPT)
    assert (done.stdout, done.returncode) == ("fake", 1)
    assert DENIED in done.stderr
    name = bare.start("sleep", "1000")
    assert DENIED in bare.call("exec", name, "sh", "-c", SCRIPT).stderr
    assert {file.read_text() for file in files} == {"fake"}


def test_an_unknown_profile_is_an_error_that_leaves_nothing(bare: Oci) -> None:
    bare.config["process"]["apparmorProfile"] = "wtest-none"
    done = bare.run("true")
    assert done.returncode == 1
    (line,) = done.stderr.splitlines()
    assert "AppArmor profile wtest-none" in line
    assert json.loads(bare.ok("list", "--format", "json") or "null") in (None, [])


def contained(wherryd: Wherryd, pods: PodMaker, pod: str, config: api_pb2.PodSandboxConfig, wanted: SecurityProfile) -> str:
    """Run a container under a profile and give its id."""
    order = pods.container("busybox", ["sleep", "1000"], name=f"a{wanted.profile_type}{wanted.localhost_ref}")
    order.linux.security_context.apparmor.CopyFrom(wanted)
    container = wherryd.cri.create(pod, order, config)
    wherryd.cri.start(container)
    return container


def test_profiles_of_pods(wherryd: Wherryd, pods: PodMaker, profile: str) -> None:
    cri, config = wherryd.cri, pods.pod()
    pod = cri.run_pod(config)
    wanted = SecurityProfile(profile_type=SecurityProfile.Localhost, localhost_ref=profile)
    answer = cri.execute(contained(wherryd, pods, pod, config, wanted), "sh", "-c", SCRIPT)
    assert (answer.stdout.decode(), answer.exit_code) == (f"{profile} (enforce)\n", 1)
    assert DENIED in answer.stderr.decode()
    free = contained(wherryd, pods, pod, config, SecurityProfile(profile_type=SecurityProfile.Unconfined))
    assert cri.execute(free, "sh", "-c", SCRIPT).stdout == b"unconfined\n"
    with pytest.raises(grpc.RpcError) as refused:
        contained(
            wherryd, pods, pod, config, SecurityProfile(profile_type=SecurityProfile.Localhost, localhost_ref="wtest-none")
        )
    assert refused.value.code() is grpc.StatusCode.INVALID_ARGUMENT
    assert "'wtest-none' is not loaded" in refused.value.details()
    assert len(cri.containers()) == 2


def loaded() -> bool:
    with open("/sys/kernel/security/apparmor/profiles", encoding="utf-8") as file:
        return f"{DEFAULT} (enforce)\n" in file


def test_the_default_profile_is_loaded_by_the_daemon(wherryd: Wherryd, pods: PodMaker) -> None:
    """At its start, and again when somebody has unloaded it; it is what a container gets that asks for nothing."""
    cri, config = wherryd.cri, pods.pod(linux={"security_context": {"privileged": True}})
    assert loaded()
    pod = cri.run_pod(config)
    parser("--remove", rules=f"profile {DEFAULT} {{}}")
    assert not loaded()
    asked = contained(wherryd, pods, pod, config, SecurityProfile(profile_type=SecurityProfile.RuntimeDefault))
    assert loaded()
    order = pods.container("busybox", ["sleep", "1000"], name="silent")
    order.linux.security_context.capabilities.add_capabilities.append("SYS_ADMIN")
    silent = cri.create(pod, order, config)
    cri.start(silent)
    order = pods.container("busybox", ["sleep", "1000"], name="privileged")
    order.linux.security_context.privileged = True
    free = cri.create(pod, order, config)
    cri.start(free)
    names = [cri.execute(one, "cat", "/proc/self/attr/current").stdout.decode().strip() for one in (asked, silent, free)]
    assert names == [f"{DEFAULT} (enforce)", f"{DEFAULT} (enforce)", "unconfined"]
    script = "sleep 9 & kill $! && echo own; mount -t tmpfs x /mnt || echo no mount; umount /sys || echo no umount"
    script += "; echo 1 > /proc/sys/vm/compact_memory || echo no sysctl; echo x > /tmp/x && ls / > /dev/null && echo files"
    said = cri.execute(silent, "sh", "-c", f"mkdir -p /mnt /tmp; {script}")
    assert said.stdout.decode().splitlines() == ["own", "no mount", "no umount", "no sysctl", "files"], said.stderr
    assert "mount: mounting x on /mnt failed: Permission denied" in said.stderr.decode()
    cri.stop(silent, timeout=1)
    assert cri.status(silent).state == api_pb2.CONTAINER_EXITED


@pytest.mark.parametrize("profile_type", [SecurityProfile.RuntimeDefault, None])
def test_a_node_without_the_parser(
    wherryd: Wherryd, pods: PodMaker, profile_type: SecurityProfile.ProfileType | None, tmp_path: Path
) -> None:
    """Who asks is told what is missing; who does not runs without a profile."""
    cri, config = wherryd.cri, pods.pod()
    pod = cri.run_pod(config)
    parser("--remove", rules=f"profile {DEFAULT} {{}}")
    program = next(path for path in ("/usr/sbin/apparmor_parser", "/sbin/apparmor_parser") if os.path.exists(path))
    empty = tmp_path / "empty"
    empty.touch(mode=0o644)
    subprocess.run(["mount", "--bind", empty, program], check=True)
    try:
        order = pods.container("busybox", ["sleep", "1000"])
        if profile_type is None:
            container = cri.create(pod, order, config)
            cri.start(container)
            assert cri.execute(container, "cat", "/proc/self/attr/current").stdout == b"unconfined\n"
            return
        order.linux.security_context.apparmor.profile_type = profile_type
        with pytest.raises(grpc.RpcError) as refused:
            cri.create(pod, order, config)
        assert refused.value.code() is grpc.StatusCode.FAILED_PRECONDITION
        assert "this node has no apparmor_parser; install it" in refused.value.details()
    finally:
        subprocess.run(["umount", program], check=True)
