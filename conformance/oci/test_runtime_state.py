"""The state of a container and the operation that queries it."""

from __future__ import annotations

import os
import re
from typing import TYPE_CHECKING

import pytest

from conformance.oci.support import host

if TYPE_CHECKING:
    from conformance.oci.support.case import Case

pytestmark = pytest.mark.rule("runtime.md#state")


def test_created(case: Case) -> None:
    """After create the status is `created`: the program has not been executed."""
    case.create("true")
    assert case.status() == "created"


def test_running(case: Case) -> None:
    """After start the status is `running` until the program ends."""
    case.sleeper()
    assert case.status() == "running"


def test_stopped(case: Case) -> None:
    """When the program has ended the status is `stopped`: the container is not gone yet."""
    case.start("true")
    case.until("stopped")


def test_stopped_by_a_signal(case: Case) -> None:
    """A killed container is `stopped` as one that ended by itself is."""
    name = case.create("true")
    case.ok("kill", name, "KILL")
    case.until("stopped")


def test_oci_version(case: Case) -> None:
    """The state names the version of the specification it complies with, a semantic version."""
    case.create("true")
    assert re.fullmatch(r"\d+\.\d+\.\d+([-+].*)?", case.state()["ociVersion"])


def test_id(case: Case) -> None:
    """The state gives the container's id."""
    case.create("true")
    assert case.state()["id"] == case.id


@pytest.mark.parametrize("status", ["created", "running"])
def test_pid(case: Case, status: str) -> None:
    """The pid of a created or running container is that of its process, as the runtime sees it."""
    if status == "created":
        case.create("true")
    else:
        case.sleeper()
    pid = case.pid()
    assert pid > 0
    assert os.readlink(f"/proc/{pid}/ns/uts") != os.readlink("/proc/self/ns/uts")


def test_pid_of_a_running_container_is_its_program(case: Case) -> None:
    """The pid of a running container is the program's, with the arguments that were asked for."""
    case.sleeper()
    assert host.read(f"/proc/{case.pid()}/cmdline").startswith("sh\0-c\0")


def test_bundle_is_absolute(case: Case) -> None:
    """The state gives the bundle's absolute path, however it was named."""
    name = case.new_id()
    case.write("true")
    case.ok("create", "--bundle", f"./{case.bundle.name}", name, cwd=case.bundle.parent, stdout=None, stderr=None)
    assert case.state()["bundle"] == str(case.bundle)


def test_annotations(case: Case) -> None:
    """The state gives the annotations of the configuration."""
    case.config["annotations"] = {"org.example.one": "1", "org.example.two": "second value"}
    case.create("true")
    annotations = case.state()["annotations"]
    assert annotations["org.example.one"] == "1"
    assert annotations["org.example.two"] == "second value"


def test_no_annotations(case: Case) -> None:
    """Without annotations there is no map, or an empty one."""
    case.create("true")
    assert not case.state().get("annotations")


def test_annotations_stay(case: Case) -> None:
    """A change of config.json after create does not change what the state says."""
    case.config["annotations"] = {"org.example": "before"}
    case.create("true")
    case.config["annotations"] = {"org.example": "after"}
    case.write()
    assert case.state()["annotations"]["org.example"] == "before"


@pytest.mark.rule("runtime.md#query-state")
def test_unknown_container(case: Case) -> None:
    """To query a container that does not exist is an error."""
    case.fails("state", "judge-nobody")


@pytest.mark.rule("runtime.md#query-state")
def test_without_id(case: Case) -> None:
    """To query nothing is an error."""
    case.fails("state")


@pytest.mark.rule("runtime.md#query-state")
def test_deleted_container(case: Case) -> None:
    """A deleted container does not exist."""
    name = case.start("true")
    case.until("stopped")
    case.ok("delete", name)
    case.fails("state", name)


@pytest.mark.rule("runtime.md#scope-of-a-container")
def test_containers_of_another_root(case: Case) -> None:
    """Containers are known within their own --root."""
    case.create("true")
    done = case.runtime.call("--root", str(case.bundle / "other"), "state", case.id, cwd=case.bundle)
    assert done.returncode != 0
