"""Who the process is: ids, groups, umask and what depends on them."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import pytest

from conformance.oci.support.probe import script, sections

if TYPE_CHECKING:
    from conformance.oci.support.case import Case

pytestmark = pytest.mark.rule("config.md#posix-platform-user")


@pytest.mark.parametrize("user", [(0, 0), (1000, 1000), (4321, 8765), (0, 5), (65534, 65534), (4294967290, 4294967290)])
def test_ids(case: Case, user: tuple[int, int]) -> None:
    """All four user ids and group ids are those of the document; no passwd entry is needed."""
    case.process["user"] = {"uid": user[0], "gid": user[1]}
    said = case.shell("grep -E '^(Uid|Gid)' /proc/self/status").split()
    assert said == ["Uid:", *[str(user[0])] * 4, "Gid:", *[str(user[1])] * 4]


@pytest.mark.parametrize("groups", [[], [5], [5, 100, 2000], list(range(300, 340))], ids=["none", "one", "some", "many"])
def test_additional_gids(case: Case, groups: list[int]) -> None:
    """The supplementary groups are exactly additionalGids; the caller's own and those of /etc/group are not added."""
    case.process["user"] = {"uid": 1000, "gid": 1000, "additionalGids": groups}
    said = case.shell("grep Groups /proc/self/status").split()[1:]
    assert sorted(map(int, said)) == groups


def test_groups_of_the_caller(case: Case) -> None:
    """The caller's supplementary groups are not the container's."""
    said = case.output("grep", "Groups", "/proc/self/status", extra_groups=[7, 77])
    assert said.split()[1:] == []


@pytest.mark.parametrize("umask", [0o022, 0o077, 0o002, 0])
def test_umask(case: Case, umask: int) -> None:
    """The umask is user.umask."""
    case.process["user"]["umask"] = umask
    assert int(case.shell("umask"), 8) == umask


def test_umask_default(case: Case) -> None:
    """Without user.umask the caller's oddities do not reach files: it is 0022."""
    assert int(case.shell("umask"), 8) == 0o022


def test_files_belong_to_the_user(case: Case) -> None:
    """What the process makes belongs to its ids."""
    os.chmod(case.rootfs / "mnt", 0o777)
    case.process["user"] = {"uid": 1234, "gid": 4321}
    case.shell("touch /mnt/file")
    found = os.stat(case.rootfs / "mnt/file")
    assert (found.st_uid, found.st_gid) == (1234, 4321)


def test_streams_belong_to_the_user(case: Case) -> None:
    """A process that is not root can open its standard streams again by /dev/stdout and its like."""
    case.process["user"] = {"uid": 1000, "gid": 1000}
    done = case.run("sh", "-c", "echo yes > /dev/stdout && echo also > /dev/stderr")
    assert (done.stdout, done.stderr) == ("yes\n", "also\n")


@pytest.mark.rule("config.md#process")
def test_program_only_for_others(case: Case) -> None:
    """The program is executed with the user's rights: a file that only root may execute is refused."""
    (case.rootfs / "mine").write_bytes((case.rootfs / "bin/busybox").read_bytes())
    os.chmod(case.rootfs / "mine", 0o700)
    case.process["user"] = {"uid": 1000, "gid": 1000}
    case.run_refused("/mine", "true", want="uid 1000 may not execute it")


@pytest.mark.rule("config.md#process")
def test_cwd_of_the_user(case: Case) -> None:
    """A working directory only the user may enter can be the user's."""
    (case.rootfs / "home").mkdir(mode=0o700)
    os.chown(case.rootfs / "home", 1000, 1000)
    case.process.update(user={"uid": 1000, "gid": 1000}, cwd="/home")
    assert case.output("pwd") == "/home\n"


@pytest.mark.rule("runc: HOME is that of the user's passwd entry unless process.env has one")
@pytest.mark.parametrize(
    ("uid", "env", "home"),
    [
        (0, [], "/root"),
        (1000, [], "/home/sailor"),
        (4242, [], "/"),
        (0, ["HOME=/elsewhere"], "/elsewhere"),
        (1000, ["HOME=/elsewhere"], "/elsewhere"),
    ],
)
def test_home(case: Case, uid: int, env: list[str], home: str) -> None:
    """HOME is the document's, or else that of the container's passwd, or else the root."""
    case.process["user"] = {"uid": uid, "gid": uid}
    case.process["env"] += env
    assert case.shell("echo $HOME") == home


@pytest.mark.parametrize("field", ["uid", "gid"])
@pytest.mark.parametrize("value", [-1, "root", 4294967295, 4294967296, 1.5])
def test_invalid_id(case: Case, field: str, value: object) -> None:
    """An id that is no unsigned number of 32 bits is an error, and so is the last of those, which is nobody's."""
    case.process["user"][field] = value
    case.refused("true")


def test_device_files_stay_the_hosts(case: Case) -> None:
    """Standard streams that are device files of the host keep their owner."""
    before = os.stat("/dev/null")
    case.process["user"] = {"uid": 1000, "gid": 1000}
    with open("/dev/null", "r+b") as null:
        case.run("true", stdin=null, stdout=null)
    after = os.stat("/dev/null")
    assert (after.st_uid, after.st_gid, after.st_mode) == (before.st_uid, before.st_gid, before.st_mode)


def test_proc_belongs_to_the_user(case: Case) -> None:
    """The process may look at itself: its /proc entries are its own."""
    case.process["user"] = {"uid": 1000, "gid": 1000}
    found = sections(case.shell(script(own="cat /proc/self/environ > /dev/null && echo yes", owner="stat -Lc %u /proc/self")))
    assert found == {"own": "yes", "owner": "1000"}
