"""CheckpointContainer, restore by CreateContainer, CheckpointPod and RestorePod, with a real criu."""

from __future__ import annotations

import json
import os
import tarfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

import grpc
import pytest

from shim.gen.runtime.v1 import api_pb2
from tests.support import images
from tests.support.criu import need_criu
from tests.support.daemon import BUSYBOX
from tests.support.wait import wait_for
from tests.system.test_cri_volumes import volume_image

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.support.cri import PodMaker
    from tests.support.daemon import Wherryd

pytestmark = pytest.mark.system

SCRIPT = """
echo kept >/root/made; rm -f /bin/unlink; mkdir -p /root/deep/er; echo x >/dev/shm/here
trap 'exit 7' TERM
i=0; while :; do i=$((i+1)); echo count $i; sleep 0.1; done
"""


@pytest.fixture(autouse=True)
def criu_in_path(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let the daemon find a criu that works on this kernel."""
    monkeypatch.setenv("PATH", f"{os.path.dirname(need_criu())}:{os.environ['PATH']}")


class Scene:
    """A pod with containers that count."""

    def __init__(self, wherryd: Wherryd, pods: PodMaker, *names: str) -> None:
        self.wherryd = wherryd
        self.pods = pods
        self.config = pods.pod()
        self.pod = wherryd.cri.run_pod(self.config)
        self.containers = {name: self.start(name) for name in names or ("main",)}

    def start(self, name: str, script: str = SCRIPT) -> str:
        config = self.pods.container(BUSYBOX, ["sh", "-c", script], name=name)
        container = self.wherryd.cri.create(self.pod, config, self.config)
        self.wherryd.cri.start(container)
        wait_for(lambda: self.count(container) > 2, f"{name} to count")
        return container

    def log(self, container: str) -> str:
        path = Path(self.wherryd.cri.status(container).log_path)
        return path.read_text() if path.exists() else ""

    def count(self, container: str) -> int:
        lines = [line for line in self.log(container).splitlines() if " count " in line]
        return int(lines[-1].rsplit(" ", 1)[1]) if lines else 0

    def first(self, container: str) -> int:
        wait_for(lambda: self.count(container) > 0, "the restored container to count")
        return int(next(line for line in self.log(container).splitlines() if " count " in line).rsplit(" ", 1)[1])

    def goes_on(self, container: str) -> None:
        before = self.count(container)
        wait_for(lambda: self.count(container) > before, "the container to go on")

    def save(self, container: str, location: Path) -> None:
        request = api_pb2.CheckpointContainerRequest(container_id=container, location=str(location), timeout=60)
        self.wherryd.cri.runtime.CheckpointContainer(request, timeout=90)

    def execute(self, container: str, script: str) -> str:
        done = self.wherryd.cri.execute(container, "/bin/sh", "-c", script)
        return f"{done.exit_code} {done.stdout.decode()}"


def test_a_saved_container_runs_on_and_continues_in_another_pod(wherryd: Wherryd, pods: PodMaker, short_dir: Path) -> None:
    scene = Scene(wherryd, pods)
    container = scene.containers["main"]
    archive = short_dir / "checkpoint.tar"
    scene.save(container, archive)
    scene.goes_on(container)
    assert os.stat(archive).st_mode & 0o777 == 0o600
    with tarfile.open(archive) as tar:
        names = set(tar.getnames())
        config = json.load(tar.extractfile("config.dump"))  # type: ignore[arg-type]  # a missing member fails the test
        with tarfile.open(fileobj=tar.extractfile("rootfs-diff.tar")) as inner:
            diff = inner.getnames()
    wanted = {"spec.dump", "config.dump", "status.dump", "status", "checkpoint/inventory.img", "rootfs-diff.tar",
              "deleted.files", "container.log", "dump.log", "stats-dump"}  # fmt: skip
    assert wanted <= names
    assert (config["id"], config["rootfsImageName"]) == (container, BUSYBOX)
    assert {"root/made", "root/deep/er", "bin/.wh.unlink"} <= set(diff)
    saved_at = scene.count(container)
    wherryd.cri.stop(container)

    config_2 = pods.pod()
    pod_2 = wherryd.cri.run_pod(config_2)
    restored = wherryd.cri.create(pod_2, pods.container(str(archive)), config_2)
    assert wherryd.cri.status(restored).state == api_pb2.CONTAINER_CREATED
    assert scene.log(restored) == ""
    wherryd.cri.start(restored)
    assert 2 < scene.first(restored) <= saved_at + 1
    status = wherryd.cri.status(restored)
    assert (status.state, status.image_ref) == (api_pb2.CONTAINER_RUNNING, wherryd.cri.status(container).image_ref)
    assert scene.execute(restored, "cat /root/made; ls -d /root/deep/er; ls /bin/unlink") == "1 kept\n/root/deep/er\n"
    assert not Path(wherryd.root, "containers", restored, "restore").exists()
    wherryd.cri.stop(restored, timeout=10)
    assert wherryd.cri.status(restored).exit_code == 7


def users(wherryd: Wherryd, pods: PodMaker) -> tuple[str, api_pb2.PodSandboxConfig]:
    """Run a pod with a user namespace."""
    config = pods.pod()
    ids = [api_pb2.IDMapping(host_id=200000, container_id=0, length=65536)]
    config.linux.security_context.namespace_options.userns_options.CopyFrom(
        api_pb2.UserNamespace(mode=api_pb2.POD, uids=ids, gids=ids)
    )
    return wherryd.cri.run_pod(config), config


def test_a_checkpoint_is_an_image_too(wherryd: Wherryd, pods: PodMaker, short_dir: Path) -> None:
    scene = Scene(wherryd, pods)
    container = scene.containers["main"]
    scene.save(container, short_dir / "c.tar")
    name = "localhost/checkpoint:1"
    wherryd.load({name: images.TestImage(config={}, layers=(images.Layer(tar=(short_dir / "c.tar").read_bytes()),))})
    wherryd.cri.stop(container)
    pod, mapped = users(wherryd, pods)
    config = pods.container(name)
    config.linux.security_context.namespace_options.CopyFrom(mapped.linux.security_context.namespace_options)
    assert code(lambda: wherryd.cri.create(pod, config, mapped)) == grpc.StatusCode.FAILED_PRECONDITION
    restored = wherryd.cri.create(scene.pod, pods.container(name, name="again"), scene.config)
    wherryd.cri.start(restored)
    assert scene.first(restored) > 2
    scene.goes_on(restored)


def test_a_pod_is_saved_at_one_moment_and_restored(wherryd: Wherryd, pods: PodMaker, short_dir: Path) -> None:
    scene = Scene(wherryd, pods, "one", "two")
    path = short_dir / "pod"
    path.mkdir()
    request = api_pb2.CheckpointPodRequest(
        pod_sandbox_id=scene.pod, output_path=str(path), container_ids=scene.containers.values()
    )
    wherryd.cri.runtime.CheckpointPod(request, timeout=90)
    for container in scene.containers.values():
        scene.goes_on(container)
    assert set(json.loads((path / "pod.options").read_text())["containers"]) == {"one", "two"}
    wherryd.cri.remove_pod(scene.pod)

    command = ["sh", "-c", SCRIPT]
    new = api_pb2.RestorePodRequest(
        checkpoint_path=str(path),
        config=pods.pod(),
        container_configs=[pods.container(BUSYBOX, command, name=name) for name in ("one", "two")],
    )
    wherryd.load({"localhost/other:1": volume_image()})
    others = (
        pods.container(BUSYBOX, ["sh"], name="two"),
        pods.container(BUSYBOX, command, name="two", working_dir="/tmp"),
        pods.container("localhost/other:1", command, name="two"),
    )
    for other in others:
        wrong = api_pb2.RestorePodRequest()
        wrong.CopyFrom(new)
        wrong.container_configs[1].CopyFrom(other)
        assert (
            code(lambda wrong=wrong: wherryd.cri.runtime.RestorePod(wrong, timeout=90)) == grpc.StatusCode.FAILED_PRECONDITION
        )
    assert (wherryd.cri.pods(), wherryd.cri.containers()) == ([], [])
    answer = wherryd.cri.runtime.RestorePod(new, timeout=90)
    restored = {one.name: one.container_id for one in answer.restored_containers}
    assert set(restored) == {"one", "two"}
    for container in restored.values():
        assert wherryd.cri.status(container).state == api_pb2.CONTAINER_CREATED
        wherryd.cri.start(container)
        scene.goes_on(container)
        assert scene.execute(container, "cat /root/made /dev/shm/here") == "0 kept\nx\n"


TALK = """
printf '#!/bin/sh\\nexec cat >/root/heard\\n' >/hear; chmod +x /hear; nc -ll -p 99 -e /hear & sleep 1
(while :; do echo x; sleep 0.1; done) | nc 127.0.0.1 99 & while :; do sleep 1; done
"""


def test_connections_come_back_if_asked_for(wherryd: Wherryd, pods: PodMaker, short_dir: Path) -> None:
    cri, config = wherryd.cri, pods.pod()
    pod = cri.run_pod(config)
    container = cri.create(pod, pods.container(BUSYBOX, ["sh", "-c", TALK]), config)
    cri.start(container)

    def heard(one: str) -> int:
        return len(cri.execute(one, "cat", "/root/heard").stdout)

    wait_for(lambda: heard(container) > 10, "something to be said")
    asked, path = {"tcp-established": "true"}, str(short_dir / "pod")
    os.mkdir(path)
    request = api_pb2.CheckpointPodRequest(pod_sandbox_id=pod, output_path=path, container_ids=[container], options=asked)
    cri.runtime.CheckpointPod(request, timeout=90)
    cri.remove_pod(pod)
    for options in (asked, {}):
        again = pods.container(BUSYBOX, ["sh", "-c", TALK])
        wanted = api_pb2.RestorePodRequest(checkpoint_path=path, config=pods.pod(), container_configs=[again], options=options)
        restored = cri.runtime.RestorePod(wanted, timeout=90)
        container = restored.restored_containers[0].container_id
        cri.start(container)
        before = heard(container)
        if options:
            wait_for(lambda one=container, least=before: heard(one) > least + 4, "more to be said")  # type: ignore[misc]  # no default in a lambda
        table = cri.execute(container, "cat", "/proc/net/tcp").stdout.decode()
        assert (" 01 " in table) is bool(options)
        cri.remove_pod(restored.pod_sandbox_id)


HANDLER = '\n[runtime]\ndefault_handler = "runc"\n\n[runtime.handlers.runc]\npath = "/usr/sbin/runc"\n'


@pytest.mark.parametrize("wherryd", [{"extra": HANDLER}], indirect=True)
def test_another_runtime_saves_and_restores_too(wherryd: Wherryd, pods: PodMaker, short_dir: Path) -> None:
    scene = Scene(wherryd, pods)
    container = scene.containers["main"]
    scene.save(container, short_dir / "c.tar")
    scene.goes_on(container)
    wherryd.cri.stop(container)
    restored = wherryd.cri.create(scene.pod, pods.container(str(short_dir / "c.tar"), name="again"), scene.config)
    wherryd.cri.start(restored)
    assert scene.first(restored) > 2
    assert scene.execute(restored, "cat /root/made") == "0 kept\n"


def test_a_terminal_comes_back(wherryd: Wherryd, pods: PodMaker, short_dir: Path) -> None:
    scene = Scene(wherryd, pods)
    config = pods.container(BUSYBOX, ["sh", "-c", SCRIPT], name="tty", tty=True, stdin=True)
    container = wherryd.cri.create(scene.pod, config, scene.config)
    wherryd.cri.start(container)
    wait_for(lambda: scene.count(container) > 2, "the container to count")
    scene.save(container, short_dir / "c.tar")
    wherryd.cri.stop(container)
    again = pods.container(str(short_dir / "c.tar"), name="again", tty=True, stdin=True)
    restored = wherryd.cri.create(scene.pod, again, scene.config)
    wherryd.cri.start(restored)
    assert scene.first(restored) > 2
    scene.goes_on(restored)


def security(**fields: Any) -> dict[str, Any]:
    context = api_pb2.LinuxContainerSecurityContext(**fields)
    return {"linux": api_pb2.LinuxContainerConfig(security_context=context)}


SHAPES: dict[str, dict[str, Any]] = {
    "read-only root": security(readonly_rootfs=True),
    "seccomp and capabilities": security(
        no_new_privs=True,
        seccomp=api_pb2.SecurityProfile(profile_type=api_pb2.SecurityProfile.RuntimeDefault),
        capabilities=api_pb2.Capability(drop_capabilities=["ALL"]),
        masked_paths=["/proc/keys", "/proc/acpi"],
        readonly_paths=["/proc/sys"],
    ),
    "privileged": security(privileged=True),
    "shared pid": security(namespace_options=api_pb2.NamespaceOption(pid=api_pb2.POD)),
    "host network": security(namespace_options=api_pb2.NamespaceOption(network=api_pb2.NODE, pid=api_pb2.CONTAINER)),
}


@pytest.mark.parametrize("shape", SHAPES)
def test_containers_of_every_shape_come_back(wherryd: Wherryd, pods: PodMaker, short_dir: Path, shape: str) -> None:
    fields = SHAPES[shape]
    modes = fields["linux"].security_context.namespace_options
    config = pods.pod(host_network=modes.network == api_pb2.NODE)
    config.linux.security_context.namespace_options.pid = modes.pid
    config.linux.security_context.privileged = shape == "privileged"
    pod = wherryd.cri.run_pod(config)
    volume = short_dir / "volume"
    (volume / "below").mkdir(parents=True)
    mounts = [
        api_pb2.Mount(container_path="/data", host_path=str(volume)),
        api_pb2.Mount(container_path="/data/ro", host_path=str(volume / "below"), readonly=True),
    ]
    script = "i=0; while :; do i=$((i+1)); echo count $i; sleep 0.1; done"
    container = wherryd.cri.create(pod, pods.container(BUSYBOX, ["sh", "-c", script], mounts=mounts, **fields), config)
    wherryd.cri.start(container)
    scene = Scene.__new__(Scene)
    scene.wherryd, scene.pods, scene.pod, scene.config = wherryd, pods, pod, config
    wait_for(lambda: scene.count(container) > 2, "the container to count")
    look = "cat /proc/self/status | grep -E '^(Uid|Cap|NoNew|Seccomp):'; grep -E ' / | /data' /proc/mounts; hostname"
    before = scene.execute(container, look)
    scene.save(container, short_dir / "c.tar")
    wherryd.cri.stop(container)
    wherryd.cri.remove(container)
    again = pods.container(str(short_dir / "c.tar"), name="again", mounts=mounts, **fields)
    restored = wherryd.cri.create(pod, again, config)
    wherryd.cri.start(restored)
    assert scene.first(restored) > 2
    scene.goes_on(restored)
    after = scene.execute(restored, look)
    assert after.splitlines()[0] == "0 " + before.splitlines()[0][2:]
    assert [line for line in after.splitlines() if "overlay" not in line] == [
        line for line in before.splitlines() if "overlay" not in line
    ]
    pid = wherryd.cri.info(restored)["pid"]
    own = Path(f"/proc/{pid}/status").read_text()
    assert ("Seccomp:\t2" in own) == (shape == "seccomp and capabilities")


def test_bad_requests_for_a_pod(wherryd: Wherryd, pods: PodMaker, short_dir: Path) -> None:
    scene = Scene(wherryd, pods)
    pod, (container,) = scene.pod, scene.containers.values()
    path = short_dir / "p"
    path.mkdir()
    (short_dir / "full").mkdir()
    (short_dir / "full/x").touch()
    created = wherryd.cri.create(pod, pods.container(BUSYBOX, name="created"), scene.config)
    mapped, _ = users(wherryd, pods)
    changes: list[tuple[dict[str, Any], grpc.StatusCode]] = [
        ({"options": {"tcp-close": "maybe"}}, grpc.StatusCode.INVALID_ARGUMENT),
        ({"options": {"unheard-of": "true"}}, grpc.StatusCode.INVALID_ARGUMENT),
        ({"options": {"leave-running": "false"}}, grpc.StatusCode.INVALID_ARGUMENT),
        ({"output_path": "relative"}, grpc.StatusCode.INVALID_ARGUMENT),
        ({"output_path": str(short_dir / "missing")}, grpc.StatusCode.INVALID_ARGUMENT),
        ({"output_path": str(short_dir / "full")}, grpc.StatusCode.INVALID_ARGUMENT),
        ({"container_ids": []}, grpc.StatusCode.INVALID_ARGUMENT),
        ({"container_ids": [container, container]}, grpc.StatusCode.INVALID_ARGUMENT),
        ({"container_ids": [container, container[:12]]}, grpc.StatusCode.INVALID_ARGUMENT),
        ({"container_ids": ["f" * 64]}, grpc.StatusCode.NOT_FOUND),
        ({"container_ids": [created]}, grpc.StatusCode.FAILED_PRECONDITION),
        ({"pod_sandbox_id": "f" * 64}, grpc.StatusCode.NOT_FOUND),
        ({"pod_sandbox_id": mapped}, grpc.StatusCode.FAILED_PRECONDITION),
    ]
    for change, wanted in changes:
        fields = {"pod_sandbox_id": pod, "output_path": str(path), "container_ids": [container]} | change
        request = api_pb2.CheckpointPodRequest(**fields)
        assert code(lambda request=request: wherryd.cri.runtime.CheckpointPod(request, timeout=30)) == wanted, change
    assert list(path.iterdir()) == []
    assert not (short_dir / "missing").exists()


def test_bad_archives_make_no_container(wherryd: Wherryd, pods: PodMaker, short_dir: Path) -> None:
    config = pods.pod()
    pod = wherryd.cri.run_pod(config)
    archive = short_dir / "a.tar"
    archive.write_bytes(b"no tar at all")
    with tarfile.open(short_dir / "b.tar", "w") as tar:
        tar.addfile(tarfile.TarInfo("../config.dump"))
        link = tarfile.TarInfo("config.dump")
        link.type, link.linkname = tarfile.SYMTYPE, "/etc/passwd"
        tar.addfile(link)
    for name in ("a.tar", "b.tar"):
        found = code(lambda name=name: wherryd.cri.create(pod, pods.container(str(short_dir / name)), config))
        assert found == grpc.StatusCode.FAILED_PRECONDITION
    assert code(lambda: wherryd.cri.create(pod, pods.container("/nonexistent.tar"), config)) == grpc.StatusCode.NOT_FOUND
    assert wherryd.cri.containers() == []
    request = api_pb2.RestorePodRequest(checkpoint_path=str(short_dir), config=pods.pod())
    assert code(lambda: wherryd.cri.runtime.RestorePod(request, timeout=30)) == grpc.StatusCode.NOT_FOUND
    assert len(wherryd.cri.pods()) == 1


def code(call: Callable[[], object]) -> grpc.StatusCode:
    with pytest.raises(grpc.RpcError) as caught:
        call()
    found: grpc.StatusCode = caught.value.code()
    return found
