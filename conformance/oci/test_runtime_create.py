"""The operation that makes a container and runs nothing."""

from __future__ import annotations

import json
import os
import subprocess
from typing import TYPE_CHECKING

import pytest

from conformance.oci.support import leaks

if TYPE_CHECKING:
    from conformance.oci.support.case import Case

pytestmark = pytest.mark.rule("runtime.md#create")


def test_runs_nothing(case: Case) -> None:
    """The user's program is not run by create."""
    name = case.create("sh", "-c", "echo ran > /ran")
    assert case.status() == "created"
    assert not (case.rootfs / "ran").exists()
    case.ok("start", name)
    case.until("stopped")
    assert (case.rootfs / "ran").exists()


def test_environment_is_made(case: Case) -> None:
    """The namespaces, the root and the mounts of the configuration exist once create has returned."""
    case.create("true")
    pid = case.pid()
    for kind in ("pid", "net", "ipc", "uts", "mnt"):
        assert os.readlink(f"/proc/{pid}/ns/{kind}") != os.readlink(f"/proc/self/ns/{kind}"), f"{kind} is the host's"
    with open(f"/proc/{pid}/mountinfo", encoding="utf-8") as file:
        points = [line.split(" ")[4] for line in file]
    assert "/proc" in points
    assert "/dev/pts" in points


def test_without_id(case: Case) -> None:
    """Create without an id is an error."""
    case.write("true")
    case.fails("create")


def test_without_bundle(case: Case) -> None:
    """Create with a bundle that does not exist is an error."""
    case.fails("create", "--bundle", str(case.bundle / "absent"), case.new_id())


def test_id_in_use(case: Case) -> None:
    """Create with the id of a present container is an error, and leaves that container alone."""
    name = case.create("true")
    pid = case.pid()
    case.fails("create", name)
    assert case.status() == "created"
    assert case.pid() == pid


def test_id_of_a_stopped_container(case: Case) -> None:
    """An id is in use until its container is deleted."""
    name = case.start("true")
    case.until("stopped")
    case.fails("create", name)


def test_id_can_be_used_again(case: Case) -> None:
    """An id is free once its container has been deleted."""
    name = case.start("true")
    case.until("stopped")
    case.ok("delete", name)
    case.ok("create", name, stdout=None, stderr=None)
    assert case.status() == "created"


@pytest.mark.parametrize(
    "name", ["", "a/b", "..", "../x", "a b", "a\nb"], ids=["empty", "slash", "dots", "parent", "space", "line"]
)
def test_invalid_id(case: Case, name: str) -> None:
    """An id that cannot be a name is refused, and no container made of it."""
    case.write("true")
    done = case.call("create", name, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    made = leaks.left_state(case.root)
    case.ids += made
    assert done.returncode != 0
    assert not made


@pytest.mark.parametrize("name", ["a", "0", "under_score", "with.dot", "plus+plus", "UPPER-lower"])
def test_valid_id(case: Case, name: str) -> None:
    """Letters, digits and `_ + - .` make an id."""
    case.linux["cgroupsPath"] = case.cgroups_path(case.id)
    case.write("true")
    case.ids.append(name)
    case.ok("create", name, stdout=None, stderr=None)
    assert case.state(name)["id"] == name


def test_later_change_of_config(case: Case) -> None:
    """What is changed in config.json after create does not reach the container."""
    name = case.create("sh", "-c", "echo first; hostname")
    case.config["hostname"] = "changed"
    case.write("sh", "-c", "echo second")
    case.ok("start", name)
    case.until("stopped")
    assert case.printed() == "first\njudge"


def test_config_removed_after_create(case: Case) -> None:
    """Start, kill and delete need no config.json any more."""
    name = case.create("sh", "-c", "echo done; sleep 100")
    (case.bundle / "config.json").unlink()
    case.ok("start", name)
    case.until_printed("done")
    case.ok("kill", name, "KILL")
    case.until("stopped")
    case.ok("delete", name)


@pytest.mark.rule("runtime.md#errors")
def test_failure_leaves_nothing(case: Case) -> None:
    """A create that fails half-way leaves nothing: no process, mount, cgroup or container."""
    case.mount("/late", case.bundle / "no-such-source", "bind")
    case.refused("true")


@pytest.mark.rule("runtime.md#errors")
def test_id_free_after_a_failure(case: Case) -> None:
    """The id of a failed create can be used."""
    entry = case.mount("/late", case.bundle / "no-such-source", "bind")
    case.refused("true")
    case.config["mounts"].remove(entry)
    case.write("true")
    case.ok("create", case.id, stdout=None, stderr=None)
    assert case.status() == "created"


@pytest.mark.rule("config.md#root")
def test_missing_rootfs(case: Case) -> None:
    """A directory must exist at root.path."""
    case.config["root"]["path"] = "no-such-root"
    case.refused("true")


def test_process_may_be_absent(case: Case) -> None:
    """Without `process` start is an error (whether or not create already said so)."""
    del case.config["process"]
    name = case.new_id()
    case.write()
    if case.call("create", name, stdout=None, stderr=None).returncode == 0:
        case.fails("start", name)


def test_two_containers_of_one_bundle(case: Case) -> None:
    """A bundle can be the description of several containers."""
    first = case.create("true")
    second = case.create("true")
    assert case.pid(first) != case.pid(second)


def test_process_does_not_see_the_caller(case: Case) -> None:
    """What create changed for the container did not change for its caller: the working directory and the environment."""
    before = (os.getcwd(), json.dumps(dict(os.environ), sort_keys=True))
    case.create("true")
    assert (os.getcwd(), json.dumps(dict(os.environ), sort_keys=True)) == before
