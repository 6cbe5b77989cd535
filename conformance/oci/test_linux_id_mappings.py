"""User namespaces with mappings, and mounts with mapped ids."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

import pytest

from conformance.oci.support import host
from conformance.oci.support.probe import mount_at, script, sections

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from conformance.oci.support.case import Case

pytestmark = pytest.mark.rule("config-linux.md#user-namespace-mappings")


@pytest.fixture(autouse=True)
def user_namespaces() -> None:
    """Every test here needs user namespaces."""
    host.need_user_namespaces()


def ranges(*entries: tuple[int, int, int]) -> list[dict[str, int]]:
    """Give mappings of (container, host, size)."""
    return [{"containerID": inside, "hostID": outside, "size": size} for inside, outside, size in entries]


@pytest.fixture(scope="module")
def seen(shared: Callable[[], Case]) -> dict[str, str]:
    """Look around in a container with a user namespace once."""
    host.need_user_namespaces()
    case = shared()
    case.userns()
    case.namespace("cgroup")
    parts = {
        "uids": "cat /proc/self/uid_map",
        "gids": "cat /proc/self/gid_map",
        "id": "id -u; id -g",
        "setgroups": "cat /proc/self/setgroups",
        "table": "cat /proc/self/mountinfo",
        "devices": "for d in null zero full random urandom tty; do test -c /dev/$d && echo $d; done",
        "writable": "echo x > /dev/null && echo wrote",
        "host": "stat -c '%u %g' /proc/1 /dev/pts /dev/shm",
        "hostname": "hostname",
        "touch": "touch /made && stat -c '%u %g' /made",
        "root": "stat -c '%u %g' /",
    }
    return sections(case.shell(script(**parts)))


def test_maps(seen: dict[str, str]) -> None:
    """The kernel's maps are those of the document."""
    assert seen["uids"].split() == ["0", "200000", "65536"]
    assert seen["gids"].split() == ["0", "200000", "65536"]


def test_root_inside(seen: dict[str, str]) -> None:
    """User 0 inside is user 0 inside."""
    assert seen["id"].split() == ["0", "0"]


def test_groups_can_be_set(seen: dict[str, str]) -> None:
    """A runtime that is root leaves setgroups(2) allowed."""
    assert seen["setgroups"] == "allow"


@pytest.mark.parametrize("path", ["/proc", "/sys", "/dev", "/dev/pts", "/dev/shm"])
def test_file_systems(seen: dict[str, str], path: str) -> None:
    """The mounts of the document are there in a user namespace too."""
    assert mount_at(seen["table"], path).destination == path


def test_devices(seen: dict[str, str]) -> None:
    """The default devices are there and work, though nobody in a user namespace may make devices."""
    assert seen["devices"].split() == ["null", "zero", "full", "random", "urandom", "tty"]
    assert seen["writable"] == "wrote"


def test_ownership(seen: dict[str, str]) -> None:
    """What the runtime makes for the container belongs to its root."""
    assert seen["host"].splitlines() == ["0 0"] * 3
    assert seen["touch"] == "0 0"


def test_hostname(seen: dict[str, str]) -> None:
    """The uts namespace belongs to the user namespace: its name could be set."""
    assert seen["hostname"] == "judge"


def test_host_sees_mapped_ids(case: Case) -> None:
    """The process and what it makes have the mapped ids for the host."""
    case.userns()
    case.start("sh", "-c", "touch /made; echo ready; sleep 300")
    case.until_printed("ready")
    assert os.stat(f"/proc/{case.pid()}").st_uid == 200000
    assert os.stat(case.rootfs / "made").st_uid == 200000


def test_rootfs_keeps_its_owners(case: Case) -> None:
    """The runtime does not change the owners of the root."""
    case.userns()
    before = {path: os.lstat(path).st_uid for path in (case.rootfs, case.rootfs / "etc/passwd", case.rootfs / "bin/busybox")}
    case.shell("true")
    assert {path: os.lstat(path).st_uid for path in before} == before


def test_other_user(case: Case) -> None:
    """process.user is an id of the container."""
    case.userns()
    case.process["user"] = {"uid": 1000, "gid": 1001, "additionalGids": [1002]}
    assert case.shell("id -u; id -g; grep Groups /proc/self/status").split() == ["1000", "1001", "Groups:", "1002"]


def test_several_ranges(case: Case) -> None:
    """Several ranges are all mapped."""
    case.userns()
    case.linux["uidMappings"] = ranges((0, 200000, 1), (1, 300000, 10), (1000, 400000, 5))
    case.linux["gidMappings"] = ranges((0, 200000, 100))
    assert case.shell("cat /proc/self/uid_map").split() == ["0", "200000", "1", "1", "300000", "10", "1000", "400000", "5"]


def test_unmapped_user(case: Case) -> None:
    """A process.user outside the maps is an error."""
    case.userns(size=100)
    case.process["user"] = {"uid": 5000, "gid": 0}
    case.run_refused("true", want="uid 5000 is not mapped")


def test_no_maps(case: Case) -> None:
    """A new user namespace without mappings is an error for a runtime that is root."""
    case.namespace("user")
    case.run_refused("true", want="nobody is mapped")


def test_maps_without_namespace(case: Case) -> None:
    """Mappings without a user namespace are an error."""
    case.linux["uidMappings"] = ranges((0, 200000, 10))
    case.linux["gidMappings"] = ranges((0, 200000, 10))
    case.refused("true")


def test_overlapping_maps(case: Case) -> None:
    """Maps that the kernel refuses are an error."""
    case.userns()
    case.linux["uidMappings"] = ranges((0, 200000, 10), (5, 300000, 10))
    case.refused("true")


def test_join(case: Case) -> None:
    """The user namespace of another container can be joined by its path, with the same maps."""
    case.userns()
    first = case.sleeper()
    pid = case.pid(first)
    case.namespace("user", f"/proc/{pid}/ns/user")
    case.config["mounts"] = [entry for entry in case.config["mounts"] if entry["destination"] != "/sys"]
    second = case.sleeper()
    assert os.readlink(f"/proc/{case.pid(second)}/ns/user") == os.readlink(f"/proc/{pid}/ns/user")


def test_exec(case: Case) -> None:
    """A process of `exec` is in the user namespace, as its root."""
    case.userns()
    case.sleeper()
    assert case.execute("id -u; cat /proc/self/uid_map").split() == ["0", "0", "200000", "65536"]


def test_bind_mount(case: Case) -> None:
    """A bind mount whose source only the host's root may reach is mounted all the same."""
    case.userns()
    private = case.bundle / "private"
    (private / "inner").mkdir(parents=True)
    (private / "inner/file").write_text("reached\n")
    os.chmod(private, 0o700)
    case.mount("/mnt", private / "inner", "rbind")
    assert case.shell("cat /mnt/file") == "reached"


def test_host_capabilities_are_gone(case: Case) -> None:
    """Root of a user namespace has no power over the host: its clock cannot be set, nor its modules be loaded."""
    case.userns()
    case.grant("CAP_SYS_TIME", "CAP_SYS_ADMIN")
    assert "not permitted" in case.shell("date -s @1000000000 2>&1 || :").lower()


# mounts with mapped ids


@pytest.fixture
def source(case: Case) -> Path:
    """Make files of several owners, to be mounted with mapped ids; skip where the file system cannot."""
    host.need(host.kernel() >= (5, 12), "mounts with mapped ids, Linux 5.12")
    folder = case.bundle / "source"
    folder.mkdir()
    for owner in (0, 1, 1000):
        (folder / str(owner)).write_text("")
        os.chown(folder / str(owner), owner, owner)
    return folder


def owners(case: Case, place: str = "/mnt") -> dict[str, str]:
    """Give who owns the files inside."""
    return dict(line.split(" ", 1) for line in case.shell(f"cd {place}; stat -c '%n %u %g' 0 1 1000").splitlines())


def idmap(case: Case, source: Path, *options: str, **maps: Any) -> None:
    """Mount the files with mapped ids."""
    case.mount("/mnt", source, *options).update(maps)


BOTH = {"uidMappings": ranges((0, 200000, 65536)), "gidMappings": ranges((0, 200000, 65536))}


@pytest.mark.rule("config.md#posix-platform-mounts")
@pytest.mark.parametrize("options", [("bind", "idmap"), ("rbind", "ridmap"), ("rbind", "idmap")], ids="-".join)
def test_idmap(case: Case, source: Path, options: tuple[str, ...]) -> None:
    """With the container's maps the host's owners are the container's."""
    case.userns()
    idmap(case, source, *options, **BOTH)
    assert owners(case) == {"0": "0 0", "1": "1 1", "1000": "1000 1000"}


@pytest.mark.rule("config.md#posix-platform-mounts")
def test_idmap_by_maps_alone(case: Case, source: Path) -> None:
    """The mappings alone make a mount a mapped one."""
    case.userns()
    idmap(case, source, "bind", **BOTH)
    assert owners(case)["1000"] == "1000 1000"


@pytest.mark.rule("config.md#linux-mount-options")
@pytest.mark.parametrize("option", ["idmap", "ridmap"])
def test_idmap_of_the_container(case: Case, source: Path, option: str) -> None:
    """Without mappings of its own, idmap means the container's."""
    case.userns()
    idmap(case, source, "rbind", option)
    assert owners(case)["1000"] == "1000 1000"


@pytest.mark.rule("config.md#posix-platform-mounts")
def test_idmap_without_user_namespace(case: Case, source: Path) -> None:
    """Mappings of a mount need no user namespace of the container."""
    idmap(case, source, "bind", "idmap", uidMappings=ranges((0, 5000, 2000)), gidMappings=ranges((0, 6000, 2000)))
    assert owners(case) == {"0": "5000 6000", "1": "5001 6001", "1000": "6000 7000"}


@pytest.mark.rule("config.md#posix-platform-mounts")
def test_idmap_of_its_own(case: Case, source: Path) -> None:
    """Mappings of a mount may differ from the container's."""
    case.userns()
    idmap(
        case,
        source,
        "bind",
        "idmap",
        uidMappings=ranges((0, 201000, 2), (1000, 200007, 1)),
        gidMappings=ranges((0, 200000, 2000)),
    )
    assert owners(case) == {"0": "1000 0", "1": "1001 1", "1000": "7 1000"}


@pytest.mark.rule("config.md#posix-platform-mounts")
def test_idmap_writes(case: Case, source: Path) -> None:
    """What is made through a mapped mount belongs to the mapped owner."""
    case.userns()
    idmap(case, source, "bind", "idmap", **BOTH)
    case.shell("touch /mnt/new")
    assert os.stat(source / "new").st_uid == 0


@pytest.mark.rule("config.md#linux-mount-options")
def test_idmap_without_any_maps(case: Case, source: Path) -> None:
    """idmap without mappings anywhere is an error."""
    idmap(case, source, "bind", "idmap")
    case.refused("true")


@pytest.mark.rule("config.md#posix-platform-mounts")
@pytest.mark.parametrize("kind", ["uidMappings", "gidMappings"])
def test_idmap_half(case: Case, source: Path, kind: str) -> None:
    """uidMappings and gidMappings must be given together."""
    idmap(case, source, "bind", "idmap", **{kind: ranges((0, 200000, 10))})
    case.refused("true")


@pytest.mark.rule("config.md#posix-platform-mounts")
def test_idmap_two_mounts(case: Case, source: Path) -> None:
    """Mounts of one source may have different mappings."""
    maps = [{"uidMappings": ranges((0, first, 2000)), "gidMappings": ranges((0, first, 2000))} for first in (5000, 9000)]
    case.mount("/mnt", source, "bind", "idmap").update(maps[0])
    case.mount("/root", source, "bind", "idmap").update(maps[1])
    said = case.shell("stat -c %u /mnt/1 /root/1")
    assert said.split() == ["5001", "9001"]
