"""podman whose containers are systemd's scopes: as root, and as a user through his own systemd."""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.support.wait import wait_for
from tests.system.oci_node import OURS, program
from tests.system.rootless_node import UID, sailor
from tests.vm.inside.systemd import CGROUPS
from tests.vm.inside.test_user import HOME, RUN, manager

if TYPE_CHECKING:
    from tests.system.rootless_node import Sailor

__all__ = ["manager", "sailor"]
pytestmark = pytest.mark.vm

MEBIBYTE = 1 << 20
LOOP = "trap 'exit 9' TERM; echo up; while :; do sleep 0.2; done"
SETTINGS = """
[engine]
cgroup_manager = "systemd"
events_logger = "file"
runtime_supports_json = ["{name}"]
tmp_dir = "{folder}/tmp"
[engine.runtimes]
{name} = ["{launcher}"]
[containers]
log_driver = "k8s-file"
"""


class Podman:
    """podman with a root file system in an image's place, which needs no network, and storage of its own."""

    def __init__(self, rootfs: Path, launcher: str, *prefix: str) -> None:
        self.rootfs, self.folder = rootfs, rootfs.parent
        (self.folder / "tmp").mkdir()
        (self.folder / "storage.conf").write_text(
            f'[storage]\ndriver = "vfs"\ngraphroot = "{self.folder}/store"\nrunroot = "{self.folder}/runroot"\n'
        )
        (self.folder / "containers.conf").write_text(SETTINGS.format(name=OURS, folder=self.folder, launcher=launcher))
        names = {"CONTAINERS_STORAGE_CONF": "storage.conf", "CONTAINERS_CONF": "containers.conf", "HOME": ""}
        settings = [f"{name}={self.folder}/{file}" for name, file in names.items()]
        self.command = [*prefix, "env", *settings, "podman", "--runtime", OURS]

    def call(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        options = {"capture_output": True, "text": True, "timeout": 120, "stdin": subprocess.DEVNULL, "cwd": "/"}
        return subprocess.run([*self.command, *arguments], check=False, **options)

    def ok(self, *arguments: str) -> str:
        done = self.call(*arguments)
        assert done.returncode == 0, f"podman {' '.join(arguments)}: {done.stderr}"
        return done.stdout.strip()


def born(podman: Podman, parent: str, above: str) -> Path:
    """Start a container in a slice whose path is `above`, and give the cgroup of its scope, which has its limits."""
    limits = ("--memory=64m", "--pids-limit=50", "--network=none", f"--cgroup-parent={parent}")
    container = podman.ok("run", "-d", "--name=life", *limits, "--rootfs", str(podman.rootfs), "sh", "-c", LOOP)
    scope = CGROUPS / above / f"libpod-{container}.scope"
    assert (scope / "memory.max").read_text().strip() == str(64 * MEBIBYTE)
    assert podman.ok("exec", "life", "sh", "-c", "echo in; cat /sys/fs/cgroup/pids.max").split() == ["in", "50"]
    return scope


def died(podman: Podman, scope: Path) -> None:
    podman.ok("stop", "-t", "20", "life")
    assert podman.ok("inspect", "life", "--format={{.State.Status}} {{.State.ExitCode}}") == "exited 9"
    podman.ok("rm", "life")
    wait_for(lambda: not scope.exists(), "the scope to go")


def test_the_life_of_a_scope(busybox_rootfs: Path) -> None:
    podman = Podman(busybox_rootfs, program(OURS))
    try:
        scope = born(podman, "wtest.slice", "wtest.slice")
        podman.ok("update", "--memory=80m", "life")
        assert (scope / "memory.max").read_text().strip() == str(80 * MEBIBYTE)
        podman.ok("pause", "life")
        assert podman.ok("inspect", "life", "--format={{.State.Status}}") == "paused"
        podman.ok("unpause", "life")
        (told,) = json.loads(podman.ok("stats", "--no-stream", "--format=json", "life"))
        assert int(told["pids"]) >= 1
        died(podman, scope)
    finally:
        podman.call("rm", "-f", "-t", "0", "life")
        subprocess.run(["systemctl", "stop", "wtest.slice"], check=True)
        Path("/run/wherry/oci").rmdir()


def test_the_life_of_a_user_s_scope(busybox_rootfs: Path, sailor: Sailor) -> None:
    folder = busybox_rootfs.parent
    podman = Podman(busybox_rootfs, sailor.launcher, *sailor.prefix(XDG_RUNTIME_DIR=str(RUN)))
    os.chmod(folder, 0o711)
    for path in (folder, *folder.rglob("*")):
        os.chown(path, UID, UID, follow_symlinks=False)
    try:
        died(podman, born(podman, "user.slice", f"{HOME}/user.slice"))
    finally:
        podman.call("rm", "-f", "-t", "0", "life")
        podman.ok("system", "migrate")  # ends the process that holds the user namespace
