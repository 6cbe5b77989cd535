"""SELinux with a policy of a page, enforced: what labels a container, its mounts and its volumes get, and what they forbid."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path
from typing import TYPE_CHECKING

import grpc
import pytest

from shim.gen.runtime.v1 import api_pb2

if TYPE_CHECKING:
    from tests.support.cri import PodMaker
    from tests.support.daemon import Wherryd
    from tests.system.oci_node import Oci

SELINUX = Path("/sys/fs/selinux")
POLICY = Path(__file__).with_name("policy.cil")

pytestmark = pytest.mark.vm

LEVEL = "s0:c1,c2"
PROCESS, FILES = f"system_u:system_r:container_t:{LEVEL}", f"system_u:object_r:container_file_t:{LEVEL}"


@pytest.fixture(scope="module", autouse=True)
def policy(tmp_path_factory: pytest.TempPathFactory) -> None:
    """Load the policy and enforce it; it stays until the machine is switched off."""
    folder = tmp_path_factory.mktemp("policy")
    compiled, categories = folder / "policy", folder / "categories.cil"
    names = [f"c{number}" for number in range(1024)]
    categories.write_text("\n".join([*(f"(category {name})" for name in names), f"(categoryorder ({' '.join(names)}))"]))
    subprocess.run(["secilc", "-c", "33", "-o", compiled, "-f", "/dev/null", POLICY, categories], check=True)
    (SELINUX / "load").write_bytes(compiled.read_bytes())
    (SELINUX / "enforce").write_text("1")


def label_of(path: Path) -> str:
    return os.getxattr(path, "security.selinux", follow_symlinks=False).rstrip(b"\0").decode()


def test_a_program_and_its_mounts_are_labelled(ours: Oci) -> None:
    """It may write where the label of its mounts lies, and nowhere else."""
    ours.config["mounts"].append({"destination": "/tmp", "type": "tmpfs", "source": "tmpfs"})
    ours.config["root"]["readonly"] = False
    ours.config["process"]["selinuxLabel"] = PROCESS
    ours.config["linux"]["mountLabel"] = FILES
    done = ours.run("sh", "-c", "cat /proc/self/attr/current; echo; echo x > /tmp/mine; echo x > /not-mine")
    assert done.stdout.replace("\0", "").strip() == PROCESS
    assert "/not-mine: Permission denied" in done.stderr
    assert "/tmp/mine" not in done.stderr


def test_an_exec_is_labelled(ours: Oci) -> None:
    ours.config["process"]["selinuxLabel"] = PROCESS
    name = ours.start("sleep", "1000")
    assert ours.ok("exec", name, "cat", "/proc/self/attr/current").rstrip("\0") == PROCESS
    other = PROCESS.replace("c1,c2", "c3")
    assert ours.ok("exec", "--process-label", other, name, "cat", "/proc/self/attr/current").rstrip("\0") == other


@pytest.mark.parametrize("where", ["process", "mount"])
def test_a_label_the_policy_does_not_know_is_an_error_that_leaves_nothing(ours: Oci, where: str) -> None:
    if where == "process":
        ours.config["process"]["selinuxLabel"] = "system_u:system_r:wtest_t:s0"
    else:
        ours.config["linux"]["mountLabel"] = "system_u:object_r:wtest_t:s0"
    done = ours.run("true")
    assert done.returncode == 1
    assert len(done.stderr.splitlines()) == 1
    assert "wtest_t" in done.stderr
    assert not list(ours.root.glob("*/state.json"))


def test_volumes_of_pods_are_relabelled(wherryd: Wherryd, pods: PodMaker, tmp_path: Path) -> None:
    """The container may write to its own root and to the volume that was labelled for it, not to the one that was not."""
    cri, config = wherryd.cri, pods.pod()
    asked, other = tmp_path / "asked", tmp_path / "other"
    outside = tmp_path / "outside"
    outside.touch()
    for folder in (asked, other):
        (folder / "deep").mkdir(parents=True)
    (asked / "deep/link").symlink_to(outside)
    before = label_of(outside)
    pod = cri.run_pod(config)

    def order(name: str, *mounts: api_pb2.Mount) -> api_pb2.ContainerConfig:
        made = pods.container("busybox", ["sleep", "1000"], name=name, mounts=mounts)
        made.linux.security_context.selinux_options.level = LEVEL
        return made

    mounts = (
        api_pb2.Mount(container_path="/asked", host_path=str(asked), selinux_relabel=True),
        api_pb2.Mount(container_path="/other", host_path=str(other)),
    )
    container = cri.create(pod, order("main", *mounts), config)
    cri.start(container)
    assert {label_of(path) for path in (asked, asked / "deep", asked / "deep/link")} == {FILES}
    assert (label_of(outside), label_of(other / "deep")) == (before, before)
    script = (
        "cat /proc/self/attr/current; for at in /own /dev/shm /asked/deep /other/deep; do echo x > $at/x || echo no $at; done"
    )
    answer = cri.execute(container, "sh", "-c", f"mkdir /own; {script}").stdout.replace(b"\0", b"\n").decode()
    assert answer.split() == [PROCESS, "no", "/other/deep"]
    with pytest.raises(grpc.RpcError) as refused:
        cri.create(pod, order("greedy", api_pb2.Mount(container_path="/e", host_path="/etc", selinux_relabel=True)), config)
    assert refused.value.code() is grpc.StatusCode.INVALID_ARGUMENT
    assert "/etc is the system's own" in refused.value.details()


def test_what_takes_no_option_is_labelled_too(ours: Oci) -> None:
    """The message queues, by their root, and what covers masked folders."""
    ours.config["mounts"].append({"destination": "/dev/mqueue", "type": "mqueue", "source": "mqueue"})
    ours.config["linux"] |= {"mountLabel": FILES, "maskedPaths": ["/proc/scsi", "/sys/firmware", "/proc/acpi"]}
    ours.config["process"]["selinuxLabel"] = PROCESS
    name = ours.start("sleep", "1000")
    root = Path(f"/proc/{ours.state(name)['pid']}/root")
    covered = [path for path in ("sys/firmware", "proc/acpi", "proc/scsi") if (root / path).is_dir()]
    assert covered
    assert {label_of(root / path) for path in ("dev/mqueue", *covered)} == {FILES}


def level(label: str) -> str:
    return label.split(":", 3)[3]


def test_every_pod_has_a_level_of_its_own(wherryd: Wherryd, pods: PodMaker, tmp_path: Path) -> None:
    """Its containers share it, a pod that asks for one has that, and what was labelled for one is not another's to write."""
    cri, volume = wherryd.cri, tmp_path / "volume"
    volume.mkdir()
    (volume / "file").touch()

    def container(pod: str, config: api_pb2.PodSandboxConfig, name: str, *, relabel: bool = False) -> str:
        mount = api_pb2.Mount(container_path="/volume", host_path=str(volume), selinux_relabel=relabel)
        made = cri.create(pod, pods.container("busybox", ["sleep", "1000"], name=name, mounts=[mount]), config)
        cri.start(made)
        return made

    def said(one: str, *command: str) -> str:
        return cri.execute(one, *command).stdout.rstrip(b"\0\n").decode()

    config, other_config, asking = pods.pod(), pods.pod(), pods.pod()
    asking.linux.security_context.selinux_options.level = LEVEL
    pod, other, third = (cri.run_pod(one) for one in (config, other_config, asking))
    first = container(pod, config, "first", relabel=True)
    wherryd.disconnect()
    wherryd.process.stop()
    wherryd.start()
    cri = wherryd.cri
    second = container(pod, config, "second")
    foreign = container(other, other_config, "foreign")
    labels = [said(one, "cat", "/proc/self/attr/current") for one in (first, second, foreign)]
    assert labels[0] == labels[1]
    assert level(labels[0]) != level(labels[2])
    assert level(label_of(volume / "file")) == level(labels[0])
    write = ("sh", "-c", "echo x > /volume/file && echo written")
    assert [said(one, *write) for one in (first, second, foreign)] == ["written", "written", ""]
    assert said(container(third, asking, "asking"), "cat", "/proc/self/attr/current") == PROCESS
