"""What no document asks for: descriptors that are closed or full, sockets that are not there, an output nobody can have."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.system.test_oci_namespaces import in_user_namespace

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.system.oci_node import Oci

pytestmark = pytest.mark.system


def shell(node: Oci, command: str) -> subprocess.CompletedProcess[str]:
    """Run a shell's command line; $0 is the runtime with its state directory."""
    line = command.replace("RUNTIME", f"{node.program} --root {node.root}")
    return subprocess.run(["sh", "-c", line], capture_output=True, text=True, check=False, cwd=node.bundle, timeout=60)


@pytest.mark.parametrize("closed", ["<&-", ">&-", "2>&-", "<&- >&- 2>&-"])
def test_closed_descriptors(ours: Oci, closed: str) -> None:
    """They become /dev/null: nothing the runtime opens is taken for its output, or the container's; as with runc, not crun."""
    ours.write("sh", "-c", "for fd in 0 1 2; do test -e /proc/self/fd/$fd || exit 7; done; echo out; echo err >&2")
    done = shell(ours, f"RUNTIME run {ours.new_id()} {closed}")
    assert done.returncode == 0, done.stderr
    assert done.stdout == ("" if ">&-" in closed.split() else "out\n")


@pytest.mark.parametrize("command", ["features", "--version", "help"])
def test_an_output_that_is_full(ours: Oci, command: str) -> None:
    done = shell(ours, f"RUNTIME {command} > /dev/full")
    assert done.returncode == 1
    assert "write /dev/stdout: no space left on device" in done.stderr
    assert len(done.stderr.splitlines()) == 1


@pytest.mark.parametrize("command", ["create", "run", "run --detach"])
def test_a_pidfd_socket_that_is_not_there(ours: Oci, command: str) -> None:
    """The container exists by then: it goes again."""
    ours.write("sleep", "100")
    name = ours.new_id()
    done = shell(ours, f"RUNTIME {command} --pidfd-socket /none/such {name} < /dev/null")
    assert done.returncode == 1
    assert done.stderr.count("level=error") == 1
    assert ours.call("state", name).returncode == 1
    assert os.listdir(ours.root) == []


@pytest.mark.parametrize("limit", [1, 4096, 102400])
def test_a_memory_limit_that_init_does_not_fit_into(ours: Oci, limit: int) -> None:
    """The kernel ends init, or refuses the limit: either is said, and not that some process spoke no more."""
    ours.config["linux"]["resources"] = {"memory": {"limit": limit, "swap": limit}}
    done = ours.run("true")
    assert done.returncode == 1
    assert done.stderr.count("level=error") == 1
    assert "OOM-killed (memory limit too low?)" in done.stderr or "memory" in done.stderr.partition("the kernel refuses")[2]
    assert os.listdir(ours.root) == []


@pytest.fixture
def full(ours: Oci) -> Iterator[str]:
    """Give the path of a cgroup in which there may be one process and no more."""
    if not os.path.isdir("/sys/fs/cgroup/pids"):
        pytest.skip("this host has no cgroup v1 pids controller")
    folder = Path("/sys/fs/cgroup/pids") / ours.new_id()
    folder.mkdir()
    (folder / "pids.max").write_text("1")
    yield f"/{folder.name}"
    for path in Path("/sys/fs/cgroup").glob(f"*/{folder.name}"):
        path.rmdir()


def test_a_cgroup_that_is_full(ours: Oci, full: str) -> None:
    """Where stage1 may not fork init, which takes one process more, that is said."""
    in_user_namespace(ours)
    ours.config["linux"]["cgroupsPath"] = f"{full}/inner"
    done = ours.run("true")
    assert done.returncode == 1
    (line,) = done.stderr.splitlines()
    assert "fork: no more processes may be made here: raise pids.max" in line
    assert os.listdir(ours.root) == []
    assert not list(Path("/sys/fs/cgroup").glob(f"*{full}/inner"))


@pytest.mark.parametrize("text", ["", "{", "[]", "{}", '{"id": 5}', "null"])
def test_a_state_that_is_none_is_deleted(ours: Oci, text: str) -> None:
    """A creator that was killed at the wrong moment, or a full disk: `delete --force` takes the folder away."""
    name = ours.new_id()
    (ours.root / name).mkdir(parents=True)
    (ours.root / name / "state.json").write_text(text)
    for command in ("state", "start", "delete"):
        done = ours.call(command, name)
        assert (done.returncode, done.stderr.count("level=error")) == (1, 1), (command, done.stderr)
        assert "defect" not in done.stderr
    ours.ok("list")
    done = ours.call("delete", "--force", name)
    assert (done.returncode, done.stderr.count("level=warning")) == (0, 1)
    assert "are not known any more" in done.stderr
    assert os.listdir(ours.root) == []


@pytest.mark.parametrize("pages", [1, 3, 4])
def test_a_state_directory_that_is_full(ours: Oci, pages: int) -> None:
    """A state that is saved in part would be none, and what runs would be known to nobody."""
    page = os.sysconf("SC_PAGESIZE")
    ours.root.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={pages * page}", "none", ours.root], check=True)
    try:
        ours.config["annotations"] = {"org.example": "x" * page}
        ours.config["linux"]["seccomp"] = {
            "defaultAction": "SCMP_ACT_ALLOW",
            "syscalls": [{"names": ["mkdir"], "action": "SCMP_ACT_ERRNO"}],
        }
        done = ours.run("true")
        assert done.returncode == (pages < 4), done.stderr
        if done.returncode:
            assert done.stderr.count("level=error") == 1
            assert "no space left on device" in done.stderr
        assert os.listdir(ours.root) == []
    finally:
        subprocess.run(["umount", ours.root], check=True)


def test_a_state_that_was_never_written_is_deleted(ours: Oci) -> None:
    """A creator that was killed first of all leaves a container that has ended."""
    name = ours.new_id()
    (ours.root / name).mkdir(parents=True)
    assert ours.state(name)["status"] == "stopped"
    ours.ok("delete", name)
    assert os.listdir(ours.root) == []


def test_delete_when_root_and_cgroups_are_gone(ours: Oci) -> None:
    name = ours.start("true")
    ours.wait_status(name, "stopped")
    for folder in Path("/sys/fs/cgroup").rglob(name):
        folder.rmdir()
    ours.rootfs.rename(ours.bundle / "elsewhere")
    ours.ok("delete", name)
    assert os.listdir(ours.root) == []
