"""Debian's podman with the runtimes under test, in namespaces of its own where everything it starts ends with them."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from contextlib import suppress
from typing import TYPE_CHECKING

from tests.support import images
from tests.support.tools import CNI_PLUGINS, find_cni_plugins, find_tool
from tests.system.oci_node import OURS, program

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

SECONDS = 60
_CGROUPS = "/sys/fs/cgroup"
_PRIVATE = f"""
mount -t tmpfs tmpfs /run
mkdir -p /run/lock /run/netns /run/cgroups /var/lib/cni
mount -t tmpfs tmpfs /var/lib/cni
if [ ! -e {_CGROUPS}/cgroup.procs ]; then
    mount --rbind {_CGROUPS} /run/cgroups
    mount -t tmpfs tmpfs {_CGROUPS}
    for one in /run/cgroups/*; do
        [ -e $one/cgroup.procs ] || continue
        mkdir {_CGROUPS}/${{one##*/}}
        mount --bind $one {_CGROUPS}/${{one##*/}}
    done
fi
ip link set lo up
echo ready
exec cat
"""
"""podman makes folders for controllers that are not mounted, so it gets a tmpfs of its own around those that are."""
_VOLATILE = (
    (re.compile(r"[0-9a-f]{64}"), "<id>"),
    (re.compile(r"[0-9a-f]{11,12}\b"), "<short>"),
    (re.compile(r'time="[^"]*" '), ""),
)


class Podman:
    """podman with a storage, networks and a /run of its own; the runtimes are known to it by name."""

    def __init__(
        self, folder: Path, parent: str, *, launcher: str = "", prefix: Sequence[str] = (), driver: str = "overlay"
    ) -> None:
        self.podman = find_tool("podman")
        find_tool("catatonit")
        find_cni_plugins()
        self.folder = folder
        self.parent = parent
        self.launcher = launcher or program(OURS)
        self.prefix = prefix
        self.settings = {
            "CONTAINERS_STORAGE_CONF": str(folder / "storage.conf"),
            "CONTAINERS_CONF": str(folder / "containers.conf"),
            "HOME": str(folder / "home"),
            "TMPDIR": str(folder / "home"),
        }
        self._configure(driver)
        start = [
            "--mount",
            "--net",
            "--pid",
            "--ipc",
            "--uts",
            "--fork",
            "--kill-child",
            "--mount-proc",
            "--propagation=private",
        ]
        self.holder = subprocess.Popen(
            ["unshare", *start, "sh", "-ec", _PRIVATE], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        assert self.holder.stdout is not None
        assert self.holder.stdout.readline() == "ready\n"
        self.inner = _only_child(self.holder.pid)

    def _configure(self, driver: str) -> None:
        folder = self.folder
        for name in ("home", "networks", "rootfs"):
            (folder / name).mkdir(exist_ok=True)
        images.unpack_busybox(folder / "rootfs")
        (folder / "rootfs/etc").mkdir(exist_ok=True)
        (folder / "rootfs/etc/passwd").write_text("root:x:0:0::/:/bin/sh\nhand:x:1000:1000::/:/bin/sh\n")
        archive = folder / "rootfs.tar"
        subprocess.run(["tar", "-C", folder / "rootfs", "-cf", archive, "."], check=True)
        (folder / "storage.conf").write_text(
            f'[storage]\ndriver = "{driver}"\ngraphroot = "{folder}/store"\nrunroot = "{folder}/runroot"\n'
        )
        (folder / "containers.conf").write_text(f"""
[engine]
cgroup_manager = "cgroupfs"
events_logger = "file"
runtime_supports_json = ["crun", "runc", "{OURS}"]
runtime_supports_nocgroup = ["crun", "{OURS}"]
tmp_dir = "{folder}/home/tmp"
[engine.runtimes]
{OURS} = ["{self.launcher}"]
[containers]
log_driver = "k8s-file"
[network]
network_backend = "cni"
cni_plugin_dirs = ["{CNI_PLUGINS}"]
network_config_dir = "{folder}/networks"
""")
        (folder / "home/Containerfile").write_text("FROM ship\nRUN echo built > /built && id -u\n")

    def inside(self, *words: str) -> list[str]:
        """Give the words that run a command where podman and its containers are."""
        enter = ["nsenter", f"--target={self.inner}", "--mount", "--net", "--pid", "--ipc", "--uts", "--wdns=/"]
        settings = [f"{name}={value}" for name, value in self.settings.items()]
        return [*enter, *self.prefix, "env", *settings, *words]

    def call(self, *arguments: str, runtime: str = OURS) -> subprocess.CompletedProcess[str]:
        """Run one podman command with a runtime; output is captured and not judged."""
        command = self.inside(self.podman, "--runtime", runtime, *arguments)
        return subprocess.run(command, capture_output=True, text=True, timeout=SECONDS, check=False, stdin=subprocess.DEVNULL)

    def ok(self, *arguments: str, runtime: str = OURS) -> str:
        """Run one command that must succeed and give what it printed."""
        done = self.call(*arguments, runtime=runtime)
        assert done.returncode == 0, f"podman {' '.join(arguments)}: {done.stderr}"
        return done.stdout.strip()

    def sweep(self, keep: Sequence[str] = ("", "/conmon")) -> None:
        """Remove the empty cgroups that podman leaves behind below its parent, in hierarchies it does not know."""
        for top in (_CGROUPS, *(f"{_CGROUPS}/{name}" for name in os.listdir(_CGROUPS))):
            kept = {f"{top}/{self.parent}{name}" for name in keep}
            for path, _, _ in os.walk(f"{top}/{self.parent}", topdown=False):
                if path not in kept:
                    with suppress(OSError):
                        os.rmdir(path)

    def close(self) -> None:
        """End everything and remove what podman leaves: its storage, and cgroups that it never removes."""
        assert self.holder.stdin is not None
        assert self.holder.stdout is not None
        self.holder.kill()
        self.holder.wait()
        self.holder.stdin.close()
        self.holder.stdout.close()
        self.sweep(keep=())
        shutil.rmtree(self.folder / "store", ignore_errors=True)


def _only_child(pid: int) -> int:
    with open(f"/proc/{pid}/task/{pid}/children", encoding="ascii") as children:
        return int(children.read())


def plain(text: str) -> str:
    """Take out of an output what differs from run to run and the runtime's own name."""
    for pattern, word in _VOLATILE:
        text = pattern.sub(word, text)
    return text.replace(OURS, "<runtime>").replace("runc", "<runtime>").replace("crun", "<runtime>")
