"""Attacks that came through a CRI server: by a pod's configuration, an image's, a command's output."""

from __future__ import annotations

import os
import subprocess
import sys
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

import grpc
import pytest

from shim.gen.runtime.v1 import api_pb2
from tests.support import images
from tests.support.daemon import BUSYBOX
from tests.support.images import entry, folder
from tests.support.racing import attacker, rounds
from tests.support.wait import wait_for

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.support.cri import PodMaker
    from tests.support.daemon import Wherryd

pytestmark = pytest.mark.system

MEGABYTE = 1 << 20
NOBODY = 65534


def resident(pids: list[int]) -> int:
    """Give the bytes of private memory of some processes."""
    total = 0
    for pid in pids:
        for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines():
            if line.startswith(("Private_Dirty:", "Private_Clean:")):
                total += int(line.split()[1]) * 1024
    return total


def started(wherryd: Wherryd, pods: PodMaker, image: str, *command: str) -> tuple[str, str]:
    config = pods.pod()
    pod = wherryd.cri.run_pod(config)
    container = wherryd.cri.create(pod, pods.container(image, list(command)), config)
    wherryd.cri.start(container)
    return pod, container


def test_a_sysctl_that_carries_another(wherryd: Wherryd, pods: PodMaker) -> None:
    """CVE-2022-0811: what follows a separator in a value does not become a sysctl of the host."""
    before = Path("/proc/sys/kernel/core_pattern").read_text()
    for value in ("1+kernel.core_pattern=|/bin/x", "1\nkernel.core_pattern=|/bin/x", "1 kernel.core_pattern=|/bin/x"):
        with suppress(grpc.RpcError):  # the kernel takes a number and then white space
            wherryd.cri.run_pod(pods.pod(linux={"sysctls": {"kernel.shm_rmid_forced": value}}))
        assert Path("/proc/sys/kernel/core_pattern").read_text() == before


OVERFLOWS = ("4294967296", "4294967296:0", "2147483648:4294967296", "0x100000000", "-1", "1000:-1", "99999999999999999999")


def test_a_user_beyond_all_numbers(wherryd: Wherryd, pods: PodMaker) -> None:
    """CVE-2024-40635: a number that does not fit does not become root."""
    config = pods.pod()
    pod = wherryd.cri.run_pod(config)
    wherryd.load({f"over.flow/user:{n}": images.busybox_image(config={"User": user}) for n, user in enumerate(OVERFLOWS)})
    for n, user in enumerate(OVERFLOWS):
        with pytest.raises(grpc.RpcError) as caught:
            wherryd.cri.create(pod, pods.container(f"over.flow/user:{n}", ["id"]), config)
        assert user.split(":")[0].lstrip("-") in caught.value.details() or user.split(":")[-1] in caught.value.details()
    assert wherryd.cri.containers() == []


def test_groups_are_the_container_s_own(wherryd: Wherryd, pods: PodMaker) -> None:
    """CVE-2023-25173 and 2022-2995: a user has the groups its image gives it, and none of the daemon's."""
    files = [
        entry("etc/passwd", "root:x:0:0::/:/bin/sh\nada:x:1000:1000::/:/bin/sh\n"),
        entry("etc/group", "root:x:0:\nada:x:1000:\nwheel:x:10:ada,root\nbig:x:2000:ada\n"),
    ]
    base = images.busybox_image()
    for user, groups in (("ada", "1000 10 2000"), ("1000", "1000 10 2000"), ("1234:5678", "5678"), ("", "0 10")):
        image = images.TestImage(layers=(*base.layers, images.layer(files)), config={"User": user})
        name = f"groups/{user.replace(':', '-') or 'root'}:1"
        wherryd.load({name: image})
        _, container = started(wherryd, pods, name, "sleep", "1000")
        assert sorted(wherryd.cri.execute(container, "id", "-G").stdout.split()) == sorted(groups.encode().split()), user


def test_output_without_end(wherryd: Wherryd, pods: PodMaker) -> None:
    """CVE-2022-31030, 2022-1708: what a command prints without end is not kept in memory without end."""
    _, container = started(wherryd, pods, BUSYBOX, "sleep", "1000")
    wherryd.cri.execute(container, "true")
    ours = wherryd.helpers()
    before = resident(ours)
    answer = wherryd.cri.execute(container, "dd", "if=/dev/zero", "bs=1M", "count=300", timeout=60)
    assert 15 * MEGABYTE < len(answer.stdout) <= 16 * MEGABYTE
    with pytest.raises(grpc.RpcError) as caught:
        wherryd.cri.execute(container, "yes", timeout=1)
    assert caught.value.code() == grpc.StatusCode.DEADLINE_EXCEEDED
    # Two answers of 16 MiB may still be on their way through the parts of gRPC; 300 MB, or a second of `yes`, may not.
    assert resident(ours) - before < 120 * MEGABYTE


def test_no_way_in_for_a_pod_in_the_host_s_network(wherryd: Wherryd, pods: PodMaker) -> None:
    """CVE-2020-15257: no socket of ours has an abstract name, which a host-network container could reach."""
    config = pods.pod(host_network=True)
    pod = wherryd.cri.run_pod(config)
    container = wherryd.cri.create(pod, pods.container(BUSYBOX, ["sleep", "1000"]), config)
    wherryd.cri.start(container)
    seen = wherryd.cri.execute(container, "cat", "/proc/net/unix").stdout.decode()
    inodes = {link[8:-1] for pid in wherryd.helpers() for link in _links(pid) if link.startswith("socket:[")}
    abstract = [line for line in seen.splitlines()[1:] if line.split()[6] in inodes and "@" in line]
    assert inodes
    assert abstract == []


def _links(pid: int) -> list[str]:
    try:
        return [os.readlink(f"/proc/{pid}/fd/{number}") for number in os.listdir(f"/proc/{pid}/fd")]
    except FileNotFoundError:
        return []


def test_users_of_the_host_do_not_reach_containers_files(wherryd: Wherryd, pods: PodMaker) -> None:
    """CVE-2021-41103 and 2024-25621: a set-uid program of an image cannot be reached, let alone run, by a user of the host."""
    os.chmod(wherryd.folder, 0o755)  # as /var/lib is
    image = images.TestImage(layers=(*images.busybox_image().layers, images.layer([entry("bin/mighty", "x", mode=0o4755)])))
    wherryd.load({"set/uid:1": image})
    started(wherryd, pods, "set/uid:1", "sleep", "1000")
    found = list(Path(wherryd.root).rglob("mighty"))
    assert found  # root does
    program = (
        "import os, sys\n"
        f"os.setgroups([]); os.setgid({NOBODY}); os.setuid({NOBODY})\n"
        "for top in sys.argv[1:]:\n"
        "    for folder, folders, files in os.walk(top):\n"
        "        print('in', folder)\n"
        "    print(os.access(top, os.R_OK | os.X_OK) or os.path.exists(top + '/.'))\n"
    )
    paths = [str(path) for path in (*found, wherryd.root / "layers", wherryd.root / "containers", wherryd.root / "wherry.db")]
    paths += [str(wherryd.state / "pods"), str(wherryd.state / "oci")]
    done = subprocess.run([sys.executable, "-c", program, *paths], capture_output=True, text=True, check=True)
    assert done.stdout == "False\n" * len(paths)
    assert os.stat(wherryd.address).st_mode & 0o007 == 0


@pytest.mark.parametrize("name", ["etc/resolv.conf", "etc/hosts", "etc/hostname", "etc", "dev", "dev/shm", "proc", "sys"])
def test_an_image_whose_files_are_links_to_the_host(wherryd: Wherryd, pods: PodMaker, name: str) -> None:
    """CVE-2024-5154 and kin: what is mounted or written for a pod lands in its image's tree, wherever the image points."""
    outside = wherryd.folder / "outside"
    outside.mkdir()
    (outside / "shadow").write_text("the host's")
    for target in (f"/../../../../../..{outside}", f"..{'/..' * 12}{outside}", str(outside / "shadow"), "/proc/1/root/etc"):
        first = images.busybox_image().layers
        image = images.TestImage(layers=(*first, images.layer([*_cleared(name), entry(name, type=b"2", linkname=target)])))
        wherryd.load({"linked/out:1": image})
        config = pods.pod()
        pod = wherryd.cri.run_pod(config)
        with suppress(grpc.RpcError):  # it may be refused
            container = wherryd.cri.create(pod, pods.container("linked/out:1", ["/bin/true"]), config)
            wherryd.cri.start(container)
            wherryd.cri.wait_exit(container)
        wherryd.cri.remove_pod(pod)
        assert os.listdir(outside) == ["shadow"]
        assert (outside / "shadow").read_text() == "the host's"


def _cleared(name: str) -> list[tuple[object, bytes]]:
    parent, _, last = name.rpartition("/")
    return [folder(parent), entry(f"{parent}/.wh.{last}")] if parent else [entry(f".wh.{last}")]


def test_streams_that_are_cut(wherryd: Wherryd, pods: PodMaker) -> None:
    """CVE-2025-64329, 2022-23471: attachments and commands whose client goes away leave no descriptor and no process behind."""
    _, container = started(wherryd, pods, BUSYBOX, "sleep", "1000")

    def held() -> int:
        return sum(len(_links(pid)) for pid in wherryd.helpers())

    def cut(call: Callable[[], object]) -> None:
        with pytest.raises(grpc.RpcError):
            call()

    cut(lambda: wherryd.cri.execute(container, "sleep", "77", timeout=1))
    before = held()
    for _ in range(5):
        request = api_pb2.ExecSyncRequest(container_id=container, cmd=["sh", "-c", "setsid sleep 77 & sleep 77 & sleep 77"])
        cut(lambda r=request: wherryd.cri.runtime.ExecSync(r, timeout=0.3))
        attach = api_pb2.AttachRequest(container_id=container, stdout=True, stderr=True)
        assert wherryd.cri.runtime.Attach(attach).url
    wait_for(lambda: held() <= before + 2, "the descriptors of the cut streams to be closed")
    left = wherryd.cri.execute(container, "sh", "-c", "ps -o args | grep -c '[s]leep 77'").stdout
    assert left == b"0\n"


def test_a_log_directory_whose_folders_change_into_links(wherryd: Wherryd, pods: PodMaker, tmp_path: Path) -> None:
    """Who may write to a pod's log directory cannot lead the daemon elsewhere, at create or at rotation, however often."""
    cri, config = wherryd.cri, pods.pod()
    outside, logs = tmp_path / "outside", Path(config.log_directory)
    outside.mkdir()
    (logs / "main").mkdir(parents=True)
    (logs / "trap").symlink_to(outside)
    pod = cri.run_pod(config)
    running = cri.create(pod, pods.container(BUSYBOX, ["sleep", "1000"], name="rotated", log_path="main/rotated.log"), config)
    cri.start(running)
    served, refused = 0, set()
    with attacker(logs / "main", logs / "trap"):
        for number in rounds(2.0):
            order = pods.container(BUSYBOX, ["true"], name=f"c{number}", log_path=f"main/{number}.log")
            for call in (
                lambda: cri.runtime.ReopenContainerLog(api_pb2.ReopenContainerLogRequest(container_id=running), timeout=10),
                lambda o=order: cri.remove(cri.create(pod, o, config)),
            ):
                try:
                    call()
                    served += 1
                except grpc.RpcError as error:
                    refused.add((error.code(), "symbolic link" in error.details()))
            assert os.listdir(outside) == []
    assert served > 0
    assert refused == {(grpc.StatusCode.FAILED_PRECONDITION, True)}
