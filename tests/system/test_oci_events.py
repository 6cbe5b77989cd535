"""events: what a container uses and when its memory runs out, as the peers print it; and cgroups that are somebody else's."""

from __future__ import annotations

import json
import os
import secrets
import subprocess
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from tests.system.oci_node import Oci

pytestmark = pytest.mark.system


def test_one_look(oci: Oci) -> None:
    if oci.runtime == "crun":
        pytest.skip("crun has no events")
    oci.config["linux"]["resources"] = {"memory": {"limit": 50 << 20}, "pids": {"limit": 33}}
    name = oci.start("sleep", "60")
    event = json.loads(oci.ok("events", "--stats", name))
    assert (event["type"], event["id"]) == ("stats", name)
    data = event["data"]
    assert data["memory"]["usage"]["limit"] == 50 << 20
    assert 0 < data["memory"]["usage"]["usage"] < 50 << 20
    assert data["pids"] == {"current": 1, "limit": 33}
    assert data["cpu"]["usage"]["total"] > 0


def test_again_and_again_until_the_end(ours: Oci) -> None:
    name = ours.start("sleep", "60")
    command = [ours.program, "--root", str(ours.root), "events", "--interval", "50ms", name]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as watching:
        assert watching.stdout is not None
        for _ in range(3):
            assert json.loads(watching.stdout.readline())["type"] == "stats"
        ours.ok("kill", name, "KILL")
        assert watching.wait(20) == 0


def test_running_out_of_memory_is_an_event(ours: Oci) -> None:
    ours.config["linux"]["resources"] = {"memory": {"limit": 8 << 20, "swap": 8 << 20}}
    ours.write("sh", "-c", "sleep 60")
    name = ours.start("sleep", "60")
    command = [ours.program, "--root", str(ours.root), "events", "--interval", "1000h", name]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as watching:
        assert watching.stdout is not None
        while watching.poll() is None:
            ours.call("exec", name, "sh", "-c", "head -c 64m /dev/zero | tail")
            if os.get_blocking(watching.stdout.fileno()):
                os.set_blocking(watching.stdout.fileno(), False)
            line = watching.stdout.readline()
            if line:
                break
        assert json.loads(line) == {"type": "oom", "id": name}
        ours.ok("kill", name, "KILL")
        assert watching.wait(20) == 0


def test_a_cgroup_in_use_is_refused_and_left_alone(ours: Oci) -> None:
    ours.config["linux"]["cgroupsPath"] = f"/wherry-test-{secrets.token_hex(4)}"
    first = ours.start("sleep", "60")
    done = ours.run("true")
    assert done.returncode == 1
    assert "container's cgroup is not empty" in done.stderr
    assert ours.state(first)["status"] == "running"
    ours.ok("pause", first)
    done = ours.run("true")
    assert "container's cgroup unexpectedly frozen" in done.stderr
    assert ours.state(first)["status"] == "paused"
    assert "cannot exec in a paused container" in ours.call("exec", first, "true").stderr
    ours.ok("resume", first)
