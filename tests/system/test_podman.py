"""podman with `wherry-oci` as its runtime, and beside it with runc: what it prints and exits with is the same."""

from __future__ import annotations

import os
import secrets
import subprocess
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.support.tools import MissingToolError
from tests.support.wait import wait_for
from tests.system.oci_node import OURS
from tests.system.podman_node import Podman, plain
from tests.system.rootless_node import UID, sailor

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.system.rootless_node import Sailor

__all__ = ["sailor"]
pytestmark = pytest.mark.system
LOOP = "trap 'exit 9' TERM; echo up; while :; do sleep 0.05; done"


def _or_skip(error: MissingToolError) -> None:
    if os.environ.get("CI"):
        pytest.fail(str(error), pytrace=False)
    pytest.skip(str(error))


@pytest.fixture(scope="module")
def podman() -> Iterator[Podman]:
    """Give podman as root, with the image "ship"."""
    with tempfile.TemporaryDirectory(prefix="wherry-t") as name:
        try:
            made = Podman(Path(name), f"wherry-{secrets.token_hex(4)}")
        except MissingToolError as error:
            _or_skip(error)
        try:
            made.ok("import", f"{name}/rootfs.tar", "ship")
            made.ok("run", "--rm", f"--cgroup-parent=/{made.parent}", "ship", "true")  # leaves the parent's cgroups behind
            yield made
        finally:
            made.close()


@pytest.fixture(scope="module")
def rootless(sailor: Sailor) -> Iterator[Podman]:
    """Give podman for a user without privileges."""
    with tempfile.TemporaryDirectory(prefix="wherry-t") as name:
        os.chmod(name, 0o711)
        prefix = sailor.prefix()
        try:
            made = Podman(Path(name), "none", launcher=sailor.launcher, prefix=prefix, driver="vfs")
        except MissingToolError as error:
            _or_skip(error)
        for place in ("home", "networks", "."):
            os.chown(Path(name, place), UID, UID)
        try:
            made.ok("import", f"{name}/rootfs.tar", "ship")
            yield made
        finally:
            made.close()


ROOT_CASES = {
    "output": ("--network=none", "ship", "echo", "ahoy"),
    "exit code": ("--network=none", "ship", "sh", "-c", "exit 7"),
    "absent program": ("--network=none", "ship", "absent"),
    "no program": ("--network=none", "ship", "/etc/passwd"),
    "user and capabilities": (
        "--network=none", "--user=hand", "--cap-drop=all", "--cap-add=NET_RAW",
        "ship", "sh", "-c", "id; grep Cap /proc/self/status",
    ),
    "read-only": ("--network=none", "--read-only", "ship", "sh", "-c", "touch /x; touch /tmp/x && echo written"),
    "limits": (
        "--network=none", "--memory=64m", "--pids-limit=40", "--ulimit=nofile=100:200", "--ulimit=nproc=99:99",
        "ship", "sh", "-c", "ulimit -n; ulimit -Hn; ulimit -p",
    ),
    "no limit of processes": ("--network=none", "--pids-limit=-1", "ship", "sh", "-c", "sleep 0 & wait; echo forked"),
    "terminal": ("--network=none", "-t", "ship", "sh", "-c", "tty; stty size"),
    "init": ("--network=none", "--init", "ship", "cat", "/proc/1/comm"),
    "host's namespaces": ("--network=host", "--pid=host", "--ipc=host", "ship", "readlink", "/proc/self/ns/net"),
    "user namespace": ("--network=none", "--uidmap=0:100000:2000", "ship", "cat", "/proc/self/uid_map"),
    "environment and directory": ("--network=none", "-e", "SAIL=up", "-w", "/made/here", "ship", "sh", "-c", "echo $SAIL $PWD"),
    "privileged": ("--network=none", "--privileged", "ship", "sh", "-c", "mount -t tmpfs x /tmp && grep Cap /proc/self/status"),
    "systemd's mounts": ("--network=none", "--systemd=always", "ship", "sh", "-c", "mount | grep -c -e /run -e /tmp"),
    "bridge": ("ship", "sh", "-c", "ip -o addr show dev eth0 | grep -c 'inet '"),
}  # fmt: skip


@pytest.mark.parametrize("case", ROOT_CASES)
def test_run_is_as_with_runc(podman: Podman, case: str) -> None:
    told = []
    for runtime in (OURS, "runc"):
        done = podman.call("run", "--rm", f"--cgroup-parent=/{podman.parent}", *ROOT_CASES[case], runtime=runtime)
        told.append((done.returncode, plain(done.stdout), plain(done.stderr)))
    assert told[0] == told[1]


def test_the_life_of_a_container(podman: Podman) -> None:
    limits = ("--memory=64m", "--pids-limit=50", "--health-cmd=true")
    podman.ok("run", "-d", "--name=life", f"--cgroup-parent=/{podman.parent}", *limits, "ship", "sh", "-c", LOOP)
    wait_for(lambda: podman.ok("logs", "life") == "up", "the first line of the log")
    assert podman.ok("exec", "life", "sh", "-c", "echo in") == "in"
    for words, code in ((("sh", "-c", "exit 3"), 3), (("absent",), 127), (("/etc/passwd",), 126), (("/etc",), 126)):
        assert podman.call("exec", "life", *words).returncode == code
    assert podman.ok("exec", "--user=hand", "-w", "/tmp", "-e", "A=b", "life", "sh", "-c", "id -u; pwd; echo $A").split() == [
        "1000",
        "/tmp",
        "b",
    ]
    podman.ok("pause", "life")
    assert podman.ok("inspect", "life", "--format={{.State.Status}}") == "paused"
    podman.ok("unpause", "life")
    stats = podman.ok("stats", "--no-stream", "--format={{.MemUsage}} {{.PIDs}}", "life")
    assert "/ 67.11MB" in stats
    assert "trap" in podman.ok("top", "life", "args")
    assert podman.call("healthcheck", "run", "life").returncode == 0
    podman.ok("stop", "-t", "10", "life")
    assert podman.ok("inspect", "life", "--format={{.State.Status}} {{.State.ExitCode}}") == "exited 9"
    podman.ok("start", "life")
    podman.ok("kill", "--signal=KILL", "life")
    assert podman.ok("wait", "life") == "137"
    podman.ok("restart", "-t", "0", "life")
    podman.ok("rm", "-f", "-t", "0", "life")
    assert podman.ok("ps", "-aq") == ""


def test_a_pod_shares_what_its_infra_container_holds(podman: Podman) -> None:
    podman.ok("pod", "create", "--name=crew", f"--cgroup-parent=/{podman.parent}", "-p", "127.0.0.1:8123:80")
    podman.ok("run", "-d", "--pod=crew", "--name=server", "ship", "httpd", "-f", "-p", "80", "-h", "/etc")
    fetch = podman.inside("busybox", "wget", "-qO-", "http://127.0.0.1:8123/passwd")
    wait_for(lambda: subprocess.run(fetch, capture_output=True, check=False).stdout.startswith(b"root:"), "the published port")
    assert "root:" in podman.ok("run", "--rm", "--pod=crew", "ship", "wget", "-qO-", "http://127.0.0.1/passwd")
    podman.ok("pod", "pause", "crew")
    assert podman.ok("pod", "ps", "--format={{.Status}}") == "Paused"
    podman.ok("pod", "unpause", "crew")
    podman.ok("pod", "stop", "-t", "0", "crew")
    assert podman.ok("pod", "ps", "--format={{.Status}}") == "Exited"
    podman.call("pod", "rm", "-f", "crew")
    podman.sweep()
    assert podman.ok("ps", "-aq") == ""


def test_build_runs_its_steps(podman: Podman) -> None:
    where = str(podman.folder / "home")
    said = podman.ok("build", "--network=none", "-t", "built", where)
    assert "\n0\n" in said
    assert podman.ok("run", "--rm", "--network=none", f"--cgroup-parent=/{podman.parent}", "built", "cat", "/built") == "built"


def test_podman_asks_the_runtime_for_its_version(podman: Podman) -> None:
    assert OURS in podman.ok("info", "--format={{.Host.OCIRuntime.Name}} {{.Host.OCIRuntime.Version}}")


USER_CASES = {
    "root": ("ship", "id"),
    "mapped user": ("--user=1000", "ship", "sh", "-c", "id; touch /x"),
    "his own id": ("--userns=keep-id", "ship", "id", "-u"),
    "absent program": ("ship", "absent"),
    "exit code": ("ship", "sh", "-c", "exit 5"),
    "devices": ("ship", "ls", "/dev"),
    "terminal": ("-t", "ship", "tty"),
    "privileged": ("--privileged", "ship", "sh", "-c", "mount -t tmpfs x /tmp && echo mounted"),
    "init": ("--init", "ship", "cat", "/proc/1/comm"),
}


@pytest.mark.parametrize("case", USER_CASES)
def test_run_without_root_is_as_with_runc(rootless: Podman, case: str) -> None:
    told = []
    for runtime in (OURS, "runc"):
        done = rootless.call("run", "--rm", "--network=none", *USER_CASES[case], runtime=runtime)
        told.append((done.returncode, plain(done.stdout), plain(done.stderr)))
    assert told[0] == told[1]


def test_without_cgroups(rootless: Podman) -> None:
    done = rootless.call("run", "--rm", "--network=none", "--cgroups=disabled", "ship", "cat", "/proc/self/uid_map")
    assert (done.returncode, done.stdout.split()[:3]) == (0, ["0", str(UID), "1"]), done.stderr


def test_the_life_of_a_container_without_root(rootless: Podman) -> None:
    rootless.ok("run", "-d", "--name=life", "--network=none", "-v", f"{rootless.folder}/home:/home", "ship", "sh", "-c", LOOP)
    assert rootless.ok("exec", "life", "id", "-u") == "0"
    assert rootless.ok("exec", "--user=hand", "life", "id", "-u") == "1000"
    assert rootless.call("exec", "life", "absent").returncode == 127
    assert rootless.ok("exec", "life", "ls", "/home/Containerfile") == "/home/Containerfile"
    assert "trap" in rootless.ok("top", "life", "args")
    rootless.ok("stop", "-t", "10", "life")
    assert rootless.ok("inspect", "life", "--format={{.State.Status}} {{.State.ExitCode}}") == "exited 9"
    assert rootless.ok("logs", "life") == "up"
    rootless.ok("rm", "-f", "life")
    assert rootless.ok("ps", "-aq") == ""
