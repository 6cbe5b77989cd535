"""The real `wherry` command against the real daemon."""

from __future__ import annotations

import json
import select
import signal
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.support.images import busybox_image, docker_archive, files_layer, oci_archive
from tests.support.wait import wait_for

if TYPE_CHECKING:
    from tests.support.daemon import Wherryd
    from tests.support.registry import Registry

pytestmark = pytest.mark.system

PROGRAM = str(Path(sys.executable).parent / "wherry")


class Cli:
    """Runs `wherry` against one daemon."""

    def __init__(self, wherryd: Wherryd) -> None:
        self.environment = {"WHERRY_ADDRESS": wherryd.address, "PATH": "/usr/bin:/bin", "COLUMNS": "200"}
        self.logs = ("--log-dir", str(wherryd.logs))

    def __call__(self, *words: str, code: int = 0, stdin: bytes = b"") -> str:
        """Run it, check its exit code, and give its standard output."""
        finished = subprocess.run(
            [PROGRAM, *words], env=self.environment, input=stdin, capture_output=True, check=False, timeout=60
        )
        assert finished.returncode == code, (words, finished.stdout, finished.stderr)
        assert b"Traceback" not in finished.stderr
        return finished.stdout.decode() if code in {0, 3} else finished.stderr.decode()

    def run(self, *words: str, code: int = 0) -> str:
        """Run `wherry run` with a private log directory."""
        return self("run", *self.logs, *words, code=code)


@pytest.fixture
def wherry(wherryd: Wherryd) -> Cli:
    """Give the command."""
    return Cli(wherryd)


def test_run_in_the_foreground(wherry: Cli) -> None:
    assert wherry.run("--rm", "busybox", "echo", "hello") == "hello\n"
    assert wherry.run("--rm", "busybox", "sh", "-c", "echo out; exit 3", code=3) == "out\n"
    assert wherry("ps", "-a", "-q") == ""
    assert wherry("pods", "-q") == ""


def test_options_of_run(wherry: Cli, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("inside\n")
    for folder in (tmp_path, *tmp_path.parents[:2]):
        folder.chmod(0o755)  # the process is not root
    words = ["-e", "A=1", "-v", f"{tmp_path}/file:/data/file:ro", "-w", "/tmp", "-u", "1000:1001", "--hostname", "box"]
    output = wherry.run("--rm", *words, "busybox", "sh", "-c", "echo $A; cat /data/file; pwd; id -u; id -g; hostname")
    assert output.split() == ["1", "inside", "/tmp", "1000", "1001", "box"]


def test_life_of_a_detached_container(wherry: Cli) -> None:
    identifier = wherry.run("-d", "--name", "web", "busybox", "sh", "-c", "echo started; sleep 1000").strip()
    (listed,) = json.loads(wherry("ps", "-o", "json"))
    assert (listed["id"], listed["metadata"]["name"], listed["state"]) == (identifier, "web", "CONTAINER_RUNNING")
    assert "web" in wherry("pods")
    assert wherry("exec", "web", "hostname") == "web\n"
    assert wherry("exec", identifier[:8], "sh", "-c", "echo x; exit 3", code=3) == "x\n"
    wait_for(lambda: wherry("logs", "web") == "started\n", "the first line")
    assert wherry("logs", "-t", "-n", "1", "web").endswith("Z started\n")
    kinds = [entry["kind"] for entry in json.loads(wherry("inspect", "web"))]
    assert kinds == ["pod", "container"]
    assert "still runs" in wherry("rm", "web", code=1)
    wherry("stop", "-t", "0", "web")
    assert "exited (137)" in wherry("ps", "-a")
    wherry("rm", "web")
    assert wherry("pods", "-q") == ""


def test_logs_follow_to_the_end(wherry: Cli) -> None:
    script = "i=0; while [ $i -lt 20 ]; do echo line $i; i=$((i+1)); usleep 20000; done"
    wherry.run("-d", "--name", "counter", "busybox", "sh", "-c", script)
    assert wherry("logs", "-f", "counter").split("\n")[:-1] == [f"line {number}" for number in range(20)]
    assert wherry("logs", "--tail", "2", "counter") == "line 18\nline 19\n"
    assert wherry("logs", "--since", "0s", "counter") == ""


def test_interrupt_stops_what_runs(wherry: Cli) -> None:
    command = [
        PROGRAM,
        "run",
        *wherry.logs,
        "--rm",
        "busybox",
        "sh",
        "-c",
        "trap 'exit 5' TERM; echo ready; while :; do usleep 9999; done",
    ]
    with subprocess.Popen(command, env=wherry.environment, stdout=subprocess.PIPE) as running:
        assert running.stdout is not None
        assert running.stdout.readline() == b"ready\n"
        running.send_signal(signal.SIGINT)
        assert running.wait(30) == 5
    assert wherry("pods", "-q") == ""


def test_a_failed_start_leaves_nothing(wherry: Cli) -> None:
    assert "nonexistent" in wherry.run("busybox", "/nonexistent", code=1)
    assert wherry("pods", "-q") == ""
    assert "--pull never" in wherry.run("--pull", "never", "localhost/not/here", code=1)


def test_images_by_archive(wherry: Cli, tmp_path: Path) -> None:
    first, second = (busybox_image(extra=(files_layer({"etc/which": name}),)) for name in ("first", "second"))
    archive = tmp_path / "images.tar"
    archive.write_bytes(docker_archive({"example.com/first:1": first}))
    assert wherry("load", "-i", str(archive)) == "example.com/first:1\n"
    assert "second:2" in wherry("load", stdin=oci_archive({"example.com/second:2": second}))
    assert wherry.run("--rm", "example.com/second:2", "cat", "/etc/which") == "second"
    wherry("tag", "example.com/first:1", "example.com/again:3")
    listed = wherry("images")
    assert all(name in listed for name in ("example.com/first", "example.com/again", "example.com/second"))
    for kind in ("docker-archive", "oci-archive"):
        saved = tmp_path / kind
        wherry("save", "--format", kind, "-O", str(saved), "example.com/first:1")
        wherry("rmi", "example.com/first:1")
        assert "example.com/again" not in wherry("images")
        wherry("load", "-i", str(saved))
        assert wherry.run("--rm", "example.com/first:1", "cat", "/etc/which") == "first"
    assert not list(tmp_path.glob("*.partial"))


def test_pull(wherry: Cli, shared_registry: Registry) -> None:
    image = busybox_image(extra=(files_layer({"etc/which": "pulled"}),))
    name = shared_registry.push("cli/busybox", "1", image)
    assert wherry("pull", name).strip() == image.id
    assert wherry("images", "-q").split().count(image.id) == 1
    assert wherry.run("--rm", name, "cat", "/etc/which") == "pulled"
    assert wherry("rmi", name).strip() == name
    assert "none/here" in wherry("pull", f"{shared_registry.host}/none/here:1", code=1)


def test_about_the_daemon(wherry: Cli, wherryd: Wherryd) -> None:
    assert "wherry" in wherry("version")
    told = json.loads(wherry("info", "-o", "json"))
    assert told["root"] == str(wherryd.root)
    assert told["NetworkReady"] == "yes"
    assert f"{wherryd.process.pid}, started" in wherry("info")


def test_unknown_names(wherry: Cli) -> None:
    for words in (["exec", "nobody", "true"], ["stop", "nobody"], ["rm", "nobody"], ["rmi", "nobody"], ["inspect", "nobody"]):
        assert "'nobody'" in wherry(*words, code=1)


def test_what_containers_use_and_what_happens_to_them(wherry: Cli) -> None:
    watcher = subprocess.Popen(
        [PROGRAM, "events"], env=wherry.environment | {"PYTHONUNBUFFERED": "1"}, stdout=subprocess.PIPE, text=True
    )
    output = watcher.stdout
    assert output is not None

    def is_told() -> bool:
        wherry.run("--rm", "busybox", "true")
        return bool(select.select([output], [], [], 0)[0])

    try:
        wait_for(is_told, "the first event")
        name = wherry.run("-d", "--name", "busy", "busybox", "sh", "-c", "while :; do :; done").strip()
        header, row = wherry("stats", "--seconds", "0.5", "busy").splitlines()
        assert header.split() == ["CONTAINER", "NAME", "CPU", "MEMORY", "DISK", "INODES"]
        assert float(row.split()[2].rstrip("%")) > 10
        (told,) = json.loads(wherry("stats", "-o", "json"))
        assert told["attributes"]["id"].startswith(name[:12])
        wherry("rm", "-f", "busy")
        seen = [output.readline().split()[1:]]
        while seen[-1][0] != "deleted" or not name.startswith(seen[-1][1]):
            seen.append(output.readline().split()[1:])
    finally:
        watcher.send_signal(signal.SIGINT)
        watcher.communicate(timeout=10)
    assert watcher.returncode in {1, 130}
    kinds = [kind for kind, container, *_ in seen if name.startswith(container)]
    assert kinds == ["created", "started", "stopped", "deleted"]
