"""What a service manager gives a runtime and hears from it: NOTIFY_SOCKET, LISTEN_FDS; and crun's way to name the document."""

from __future__ import annotations

import json
import os
import socket
import subprocess
from typing import TYPE_CHECKING, Any

import pytest

from tests.support.wait import wait_for

if TYPE_CHECKING:
    from tests.system.oci_node import Oci

pytestmark = pytest.mark.system

QUIET: dict[str, Any] = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL, "stdin": subprocess.DEVNULL}


def hear(manager: socket.socket) -> list[str]:
    """Read until the barrier, as a service manager does, and let go of it."""
    said = []
    while True:
        data, fds, _, _ = socket.recv_fds(manager, 4096, 1)
        if data == b"BARRIER=1":
            os.close(fds[0])
            return said
        said.append(data.decode().strip())


@pytest.mark.parametrize("way", ["start", "run --detach", "run"])
def test_readiness_is_told_to_the_service_manager(ours: Oci, way: str) -> None:
    """runc's way and messages; crun lets the container speak to the manager itself."""
    oci = ours
    path = oci.bundle / "manager.sock"
    environment = os.environ | {"NOTIFY_SOCKET": str(path)}
    oci.write("sh", "-c", 'until test -S "$NOTIFY_SOCKET"; do sleep 0.1; done; exec sleep 100')
    name = oci.new_id()
    inside = oci.root / name / "notify/notify.sock"
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
        manager.bind(str(path))
        manager.settimeout(30)
        if way == "start":
            assert oci.call("create", name, env=environment, **QUIET).returncode == 0
        command = [oci.program, "--root", str(oci.root), *way.split(), name]
        waiting = subprocess.Popen(command, env=environment, cwd=oci.bundle, **QUIET)
        try:
            wait_for(inside.exists, "the socket to be made")
            oci.wait_status(name, "running")
            assert waiting.poll() is None, "it is not ready yet"
            pid = waiting.pid if way == "run" else oci.state(name)["pid"]
            with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as speaker:
                speaker.sendto(b"STATUS=soon\n", str(inside))
                speaker.sendto(b"READY=1\n", str(inside))
            assert hear(manager) == ["READY=1", f"MAINPID={pid}"]
            if way == "run":
                oci.ok("kill", name, "KILL")
            assert waiting.wait(30) == (137 if way == "run" else 0)
        finally:
            waiting.kill()
            waiting.wait()


def test_listening_sockets_are_passed_on(oci: Oci) -> None:
    oci.write("sh", "-c", 'echo "$LISTEN_FDS $LISTEN_PID"; ls -l /proc/self/fd')
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as listener:
        number = listener.fileno()
        words = [oci.program, "--root", str(oci.root), "run", oci.new_id()]
        script = f'exec 3<&{number}; export LISTEN_FDS=1 LISTEN_PID=$$; exec "$@"'
        command = [*oci.prefix, "bash", "-c", script, "bash", *words]
        done = subprocess.run(
            command, cwd=oci.bundle, pass_fds=[number], capture_output=True, text=True, timeout=30, check=True
        )
    assert done.stdout.splitlines()[0].split()[0] == "1"
    assert "3 -> socket:" in done.stdout


def test_the_document_may_lie_elsewhere(oci: Oci) -> None:
    if oci.runtime == "runc":
        pytest.skip("runc has no --config")
    oci.config["process"]["env"].append("FROM=elsewhere")
    oci.config["process"]["args"] = ["sleep", "100"]
    other = oci.bundle / "other"
    other.mkdir()
    (other / "document.json").write_text(json.dumps(oci.config))
    name = oci.new_id()
    done = oci.call("--cgroup-manager", "cgroupfs", "run", "--detach", "--config", "other/document.json", name, **QUIET)
    assert done.returncode == 0
    assert "FROM=elsewhere" in oci.ok("exec", name, "env").splitlines()


def test_a_document_elsewhere_for_create_and_the_level_of_the_log(ours: Oci) -> None:
    ours.config["process"]["args"] = ["sleep", "100"]
    (ours.bundle / "document.json").write_text(json.dumps(ours.config))
    for level in ("error", "debug"):
        log = ours.bundle / level
        words = ("--log", str(log), "--log-level", level, "create", "--config", "document.json", ours.new_id())
        assert ours.call(*words, **QUIET).returncode == 0
        assert (log.exists() and "level=debug" in log.read_text()) == (level == "debug")


def test_a_container_may_do_without_a_cgroup(ours: Oci) -> None:
    """podman --cgroups=disabled asks for it so, of crun and of whoever stands in for it."""
    ours.config["linux"]["resources"] = {"pids": {"limit": 3}}
    ours.write("sleep", "100")
    name = ours.new_id()
    assert ours.call("--cgroup-manager", "disabled", "run", "--detach", name, **QUIET).returncode == 0
    with open(f"/proc/{ours.state(name)['pid']}/cgroup", encoding="ascii") as theirs, open("/proc/self/cgroup") as own:
        assert theirs.read() == own.read()
    assert "cgroups not configured" in ours.call("pause", name).stderr
    other = ours.start("sleep", "100")
    ours.ok("delete", "--force", "--regex", f"^({name}|{other})$")
    assert json.loads(ours.ok("list", "--format", "json") or "null") is None
