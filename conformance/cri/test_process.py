"""What a ContainerConfig says about the process: command, environment, directory, user, limits, volumes, devices."""

from __future__ import annotations

import os
import subprocess
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from shim.gen.runtime.v1 import api_pb2

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from conformance.cri.subject import Pod, Subject

    Order = api_pb2.ContainerConfig
    Set = Callable[[Order], Any]


def _env(*pairs: tuple[str, bytes]) -> list[api_pb2.KeyValue]:
    return [api_pb2.KeyValue(key=key, value=value) for key, value in pairs]


def _security(order: Order) -> api_pb2.LinuxContainerSecurityContext:
    return order.linux.security_context


def _user(order: Order, user: int, group: int | None = None, *groups: int) -> None:
    _security(order).run_as_user.value = user
    if group is not None:
        _security(order).run_as_group.value = group
    _security(order).supplemental_groups.extend(groups)


def _strict_groups(order: Order, user: int, group: int, *groups: int) -> None:
    _user(order, user, group, *groups)
    _security(order).supplemental_groups_policy = api_pb2.Strict


def _ambient(order: Order, user: int, capability: str) -> None:
    _user(order, user)
    _security(order).capabilities.add_ambient_capabilities.append(capability)


def _capabilities(order: Order, add: tuple[str, ...] = (), drop: tuple[str, ...] = ()) -> None:
    _security(order).capabilities.CopyFrom(api_pb2.Capability(add_capabilities=add, drop_capabilities=drop))


def _seccomp(order: Order, kind: int) -> None:
    _security(order).seccomp.CopyFrom(api_pb2.SecurityProfile(profile_type=kind))  # type: ignore[arg-type]  # the stub says class


BOUNDING = "grep CapBnd /proc/self/status | cut -f2"
PROCESS: dict[str, tuple[Set, str, str]] = {
    "environment": (lambda o: o.envs.extend(_env(("A", b"1"), ("B", b"x y=z"))), "echo $A,$B", "1,x y=z"),
    "empty value": (lambda o: o.envs.extend(_env(("E", b""))), "echo ${E-unset}.", "."),
    "PATH of the image": (lambda _o: None, "echo $PATH", "/bin:/usr/bin"),
    "PATH of the order": (lambda o: o.envs.extend(_env(("PATH", b"/bin:/x"))), "echo $PATH", "/bin:/x"),
    "HOME of root": (lambda _o: None, "echo $HOME", "/root"),
    "HOME of a user": (lambda o: setattr(_security(o), "run_as_username", "app"), "echo $HOME", "/home"),
    "hostname in the environment": (lambda _o: None, 'test -n "$HOSTNAME" && echo yes', "yes"),
    "directory": (lambda o: setattr(o, "working_dir", "/tmp"), "pwd", "/tmp"),
    "directory that is made": (lambda o: setattr(o, "working_dir", "/made/up"), "pwd", "/made/up"),
    "root by default": (lambda _o: None, "id -u; id -g", "0\n0"),
    "uid": (lambda o: _user(o, 1234), "id -u; id -g", "1234\n0"),
    "uid and gid": (lambda o: _user(o, 1234, 4321), "id -u; id -g", "1234\n4321"),
    "uid of the image's users": (lambda o: _user(o, 1000), "id -G", "1001 29 44"),
    "user name": (lambda o: setattr(_security(o), "run_as_username", "app"), "id -u; id -g", "1000\n1001"),
    "supplemental groups": (lambda o: _user(o, 1234, 4321, 7, 8), "id -G", "4321 7 8"),
    "merged groups": (lambda o: _user(o, 1000, 1001, 7), "id -G | tr ' ' '\\n' | sort -n | tr '\\n' ' '", "7 29 44 1001 "),
    "strict groups": (
        lambda o: _strict_groups(o, 1000, 1001, 7),
        "id -G",
        "1001 7",
    ),
    "default capabilities": (lambda _o: None, BOUNDING, "00000000a80425fb"),
    "one more capability": (lambda o: _capabilities(o, add=("NET_ADMIN",)), BOUNDING, "00000000a80435fb"),
    "one capability less": (lambda o: _capabilities(o, drop=("CHOWN",)), BOUNDING, "00000000a80425fa"),
    "no capability": (lambda o: _capabilities(o, drop=("ALL",)), BOUNDING, "0000000000000000"),
    "all but those": (lambda o: _capabilities(o, add=("KILL",), drop=("ALL",)), BOUNDING, "0000000000000020"),
    "no effective capability of a user": (lambda o: _user(o, 1), "grep CapEff /proc/self/status | cut -f2", "0000000000000000"),
    "ambient capability of a user": (
        lambda o: _ambient(o, 1000, "NET_BIND_SERVICE"),
        "grep -E 'CapAmb|CapEff' /proc/self/status | cut -f2",
        "0000000000000400\n0000000000000400",
    ),
    "new privileges": (lambda _o: None, "grep NoNewPrivs /proc/self/status | cut -f2", "0"),
    "no new privileges": (
        lambda o: setattr(_security(o), "no_new_privs", True),
        "grep NoNewPrivs /proc/self/status | cut -f2",
        "1",
    ),
    "seccomp unconfined": (
        lambda o: _seccomp(o, api_pb2.SecurityProfile.Unconfined),
        "grep Seccomp: /proc/self/status | cut -f2",
        "0",
    ),
    "seccomp of the runtime": (
        lambda o: _seccomp(o, api_pb2.SecurityProfile.RuntimeDefault),
        "grep Seccomp: /proc/self/status | cut -f2",
        "2",
    ),
    "writable root": (lambda _o: None, "echo x > /new && cat /new", "x"),
    "read-only root": (lambda o: setattr(_security(o), "readonly_rootfs", True), "echo x > /new || echo no", "no"),
    "masked path": (lambda o: _security(o).masked_paths.append("/data"), "ls /data | wc -l", "0"),
    "masked file": (lambda o: _security(o).masked_paths.append("/etc/group"), "wc -c < /etc/group", "0"),
    "read-only path": (lambda o: _security(o).readonly_paths.append("/home"), "touch /home/x || echo no", "no"),
    "masked path that is not there": (lambda o: _security(o).masked_paths.append("/no/such"), "echo fine", "fine"),
    "read-only /sys": (lambda _o: None, "touch /sys/x 2>/dev/null || echo no", "no"),
    "read-only cgroups": (lambda _o: None, "cd /sys/fs/cgroup; for d in . */; do mkdir $d/x && echo $d; done; echo no", "no"),
    "devices": (
        lambda _o: None,
        "for d in null zero full random urandom tty; do test -c /dev/$d && echo $d; done | wc -l",
        "6",
    ),
    "standard descriptors": (lambda _o: None, "readlink /dev/stdout; readlink /dev/fd", "/proc/self/fd/1\n/proc/self/fd"),
    "no standard input": (lambda _o: None, "cat | wc -c", "0"),
    "terminal": (lambda o: setattr(o, "tty", True), "test -t 0 && test -t 1 && tty", "/dev/pts/0"),
    "no terminal": (lambda _o: None, "test -t 1 || echo none", "none"),
    "pid 1": (lambda _o: None, "echo $$", "1"),
    "oom_score_adj": (
        lambda o: setattr(o.linux.resources, "oom_score_adj", 321),
        "cat /proc/self/oom_score_adj",
        "321",
    ),
}


@pytest.mark.parametrize("name", PROCESS)
def test_process_has(shared_pod: Pod, name: str) -> None:
    change, script, expected = PROCESS[name]
    order = shared_pod.order(("sh", "-c", script))
    change(order)
    shared_pod.cri.start(container := shared_pod.cri.create(shared_pod.id, order, shared_pod.config))
    status = shared_pod.cri.wait_exit(container)
    from conformance.cri.subject import log_texts

    found = "".join(text.partition(" ")[2] for text in log_texts(status.log_path) if text.startswith("stdout"))
    assert found.replace("\r\n", "\n").rstrip("\n") == expected.rstrip("\n")


def test_command_of_the_image(subject: Subject, shared_pod: Pod) -> None:
    container = shared_pod.run(())
    assert subject.cri.wait_exit(container).exit_code == 0  # /bin/sh without a standard input


def test_arguments_replace_the_image_s(shared_pod: Pod) -> None:
    assert shared_pod.finish((), args=["sh", "-c", "exit 9"]).exit_code == 9


def test_command_and_arguments(shared_pod: Pod) -> None:
    assert shared_pod.finish(("sh", "-c"), args=["exit $1", "x", "8"]).exit_code == 8


@pytest.fixture
def folder() -> Iterator[Path]:
    with tempfile.TemporaryDirectory(prefix="wherry-t") as name:
        os.chmod(name, 0o755)
        Path(name, "file").write_text("of the node\n", encoding="utf-8")
        yield Path(name)


def test_volume(shared_pod: Pod, folder: Path) -> None:
    mount = api_pb2.Mount(container_path="/vol", host_path=str(folder))
    assert shared_pod.shell("cat /vol/file; echo back > /vol/new", mounts=[mount]) == "of the node\n"
    assert (folder / "new").read_text() == "back\n"


def test_read_only_volume(shared_pod: Pod, folder: Path) -> None:
    mount = api_pb2.Mount(container_path="/vol", host_path=str(folder), readonly=True)
    assert shared_pod.finish(("sh", "-c", "cat /vol/file && ! touch /vol/new"), mounts=[mount]).exit_code == 0


def test_mount_options(shared_pod: Pod, folder: Path) -> None:
    (folder / "run").write_text("#!/bin/sh\n", encoding="utf-8")
    (folder / "run").chmod(0o755)
    mount = api_pb2.Mount(container_path="/vol", host_path=str(folder), mount_options=["noexec", "nosuid", "nodev"])
    script = "/vol/run 2>/dev/null && echo ran; grep ' /vol ' /proc/mounts | cut -d' ' -f4"
    options = shared_pod.shell(script, mounts=[mount]).strip().split(",")
    assert {"noexec", "nosuid", "nodev"} <= set(options)


@pytest.fixture
def shared_folder(folder: Path) -> Iterator[Path]:
    """Give a directory that is a shared mount of its own."""
    (folder / "inner").mkdir()
    subprocess.run(["mount", "--bind", str(folder), str(folder)], check=True)
    try:
        subprocess.run(["mount", "--make-shared", str(folder)], check=True)
        yield folder
    finally:
        subprocess.run(["umount", "--recursive", "--lazy", str(folder)], check=True)


PROPAGATIONS = {
    "neither way": (api_pb2.PROPAGATION_PRIVATE, False, False),
    "into the container": (api_pb2.PROPAGATION_HOST_TO_CONTAINER, True, False),
    "both ways": (api_pb2.PROPAGATION_BIDIRECTIONAL, True, True),
}


@pytest.mark.parametrize("name", PROPAGATIONS)
def test_mounts_made_later_are_seen(subject: Subject, shared_folder: Path, name: str) -> None:
    propagation, inward, outward = PROPAGATIONS[name]
    config = subject.pod()
    config.linux.security_context.privileged = True
    pod = subject.run_config(config)
    order = pod.order(mounts=[api_pb2.Mount(container_path="/vol", host_path=str(shared_folder), propagation=propagation)])
    order.linux.security_context.privileged = True
    container = subject.cri.create(pod.id, order, config)
    subject.cri.start(container)
    subprocess.run(["mount", "-t", "tmpfs", "none", str(shared_folder / "inner")], check=True)
    assert (b" /vol/inner " in subject.cri.execute(container, "cat", "/proc/mounts").stdout) is inward
    made = subject.cri.execute(container, "sh", "-c", "mkdir /vol/own && mount -t tmpfs none /vol/own")
    assert made.exit_code == 0, made.stderr
    assert os.path.ismount(shared_folder / "own") is outward


def test_recursive_read_only(shared_pod: Pod, folder: Path) -> None:
    (folder / "inner").mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "none", str(folder / "inner")], check=True)
    try:
        mount = api_pb2.Mount(container_path="/vol", host_path=str(folder), readonly=True, recursive_read_only=True)
        assert shared_pod.finish(("sh", "-c", "! touch /vol/new && ! touch /vol/inner/new"), mounts=[mount]).exit_code == 0
    finally:
        subprocess.run(["umount", str(folder / "inner")], check=True)


def test_file_as_volume(shared_pod: Pod, folder: Path) -> None:
    mount = api_pb2.Mount(container_path="/etc/made", host_path=str(folder / "file"))
    assert shared_pod.shell("cat /etc/made", mounts=[mount]) == "of the node\n"


def test_link_as_volume_is_followed(shared_pod: Pod, folder: Path) -> None:
    (folder / "link").symlink_to("file")
    mount = api_pb2.Mount(container_path="/made", host_path=str(folder / "link"))
    assert shared_pod.shell("cat /made", mounts=[mount]) == "of the node\n"


def test_missing_source_is_made(shared_pod: Pod, folder: Path) -> None:
    mount = api_pb2.Mount(container_path="/vol", host_path=str(folder / "not" / "yet"))
    assert shared_pod.finish(("touch", "/vol/x"), mounts=[mount]).exit_code == 0
    assert (folder / "not" / "yet" / "x").exists()


def test_volume_below_a_volume(shared_pod: Pod, folder: Path) -> None:
    (folder / "inner").mkdir()
    mounts = [
        api_pb2.Mount(container_path="/vol/inner", host_path=str(folder)),
        api_pb2.Mount(container_path="/vol", host_path=str(folder)),
    ]
    assert shared_pod.shell("cat /vol/inner/file", mounts=mounts) == "of the node\n"


def test_device(shared_pod: Pod) -> None:
    device = api_pb2.Device(host_path="/dev/zero", container_path="/dev/nothing", permissions="rw")
    assert shared_pod.shell("head -c 3 /dev/nothing | wc -c", devices=[device]) == "3\n"


def test_privileged(subject: Subject) -> None:
    config = subject.pod()
    config.linux.security_context.privileged = True
    pod = subject.run_config(config)
    order = pod.order()
    order.linux.security_context.privileged = True
    container = subject.cri.create(pod.id, order, config)
    subject.cri.start(container)
    run = subject.cri.execute(container, "sh", "-c", "mount -t tmpfs none /mnt || mkdir /x && mount -t tmpfs none /x")
    assert run.exit_code == 0, run.stderr
    node = os.stat("/dev/full")
    assert subject.cri.execute(container, "sh", "-c", "ls /dev | wc -l").stdout.strip().isdigit()
    assert node.st_rdev


def _mapped(config: api_pb2.PodSandboxConfig, first: int = 1_000_000) -> None:
    mapping = api_pb2.IDMapping(host_id=first, container_id=0, length=65536)
    options = api_pb2.UserNamespace(mode=api_pb2.POD, uids=[mapping], gids=[mapping])
    config.linux.security_context.namespace_options.userns_options.CopyFrom(options)


@pytest.mark.parametrize("network", [True, False])
def test_user_namespace(subject: Subject, network: bool) -> None:
    config = subject.pod(network=network)
    _mapped(config)
    pod = subject.run_config(config)
    container = pod.run()
    script = "id -u; stat -c %u /bin/busybox; tr -s ' ' < /proc/self/uid_map; touch /new && stat -c %u /new"
    assert subject.cri.execute(container, "sh", "-c", script).stdout == b"0\n0\n 0 1000000 65536\n0\n"
    assert os.stat(f"/proc/{subject.cri.info(container)['pid']}").st_uid == 1_000_000


def test_user_namespace_of_two_ranges_is_refused(subject: Subject) -> None:
    """A pod has one range that begins at 0: kubelet gives no other, and not every id would have a mapping."""
    from conformance.cri.subject import refused

    config = subject.pod(network=True)
    _mapped(config)
    options = config.linux.security_context.namespace_options.userns_options
    second = api_pb2.IDMapping(host_id=3_000_000, container_id=65536, length=1000)
    options.uids.append(second)
    options.gids.append(second)
    before = subject.pod_ids()
    refused(lambda: subject.run_config(config))
    assert subject.pod_ids() == before


def test_user_namespace_with_a_mapped_volume(subject: Subject, folder: Path) -> None:
    """The node's root is the container's on the volume, though its processes have other ids on the node."""
    config = subject.pod(network=True)
    _mapped(config)
    pod = subject.run_config(config)
    maps = config.linux.security_context.namespace_options.userns_options
    mount = api_pb2.Mount(container_path="/vol", host_path=str(folder), uidMappings=maps.uids, gidMappings=maps.gids)
    script = "stat -c %u:%g /vol/file; echo x > /vol/made; tr -s ' ' < /proc/self/uid_map"
    assert pod.shell(script, mounts=[mount]) == "0:0\n 0 1000000 65536\n"
    made = os.stat(folder / "made")
    assert (made.st_uid, made.st_gid) == (0, 0)


def test_the_node_s_ipc_namespace(subject: Subject) -> None:
    config = subject.pod()
    config.linux.security_context.namespace_options.ipc = api_pb2.NODE
    inside = subject.cri.execute(subject.run_config(config).run(), "readlink", "/proc/self/ns/ipc").stdout.decode().strip()
    assert inside == os.readlink("/proc/self/ns/ipc")


PROFILES = {"": "0", "unconfined": "0", "runtime/default": "2", "docker/default": "2", "localhost/FILE": "2"}


@pytest.mark.parametrize("name", PROFILES)
def test_seccomp_profile_of_an_older_client(shared_pod: Pod, folder: Path, name: str) -> None:
    """The strings that SecurityProfile has replaced mean what they meant."""
    (folder / "profile").write_text(
        '{"defaultAction": "SCMP_ACT_ALLOW", "syscalls": [{"names": ["acct"], "action": "SCMP_ACT_ERRNO"}]}'
    )
    order = shared_pod.order(("sh", "-c", "grep Seccomp: /proc/self/status | cut -f2"))
    _security(order).seccomp_profile_path = name.replace("FILE", str(folder / "profile"))
    container = shared_pod.cri.create(shared_pod.id, order, shared_pod.config)
    shared_pod.cri.start(container)
    from conformance.cri.subject import log_texts

    assert log_texts(shared_pod.cri.wait_exit(container).log_path) == [f"stdout/F {PROFILES[name]}\n"]


def test_no_apparmor_profile_of_an_older_client(subject: Subject, shared_pod: Pod) -> None:
    order = shared_pod.order(("true",))
    _security(order).apparmor_profile = "unconfined"
    container = subject.cri.create(shared_pod.id, order, shared_pod.config)
    subject.cri.start(container)
    assert subject.cri.wait_exit(container).exit_code == 0


def test_privileged_in_an_unprivileged_pod_is_refused(subject: Subject, shared_pod: Pod) -> None:
    from conformance.cri.subject import refused

    order = shared_pod.order()
    order.linux.security_context.privileged = True
    refused(lambda: subject.cri.create(shared_pod.id, order, shared_pod.config))


def test_stdin_once_without_stdin(shared_pod: Pod) -> None:
    assert shared_pod.finish(("true",), stdin_once=True).exit_code == 0
