"""A bundle and the OCI runtimes that judge each other: the same command line, the same document, the same answer expected."""

from __future__ import annotations

import json
import os
import secrets
import shutil
import subprocess
import sys
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from tests.support.tools import find_tool
from tests.support.wait import wait_for

if TYPE_CHECKING:
    from collections.abc import Iterator

OURS = "wherry-oci"
RUNTIMES = tuple(os.environ.get("WHERRY_TEST_RUNTIMES", f"{OURS} runc crun").split())
"""Who is tested; the virtual machine is too slow to ask the peers each time."""
SECONDS = 60
HYBRID = "/sys/fs/cgroup/unified"
"""Where a hybrid layout has its v2 hierarchy: crun refuses to work where it sees one."""
DEFAULT_CAPS = ["CAP_AUDIT_WRITE", "CAP_KILL", "CAP_NET_BIND_SERVICE"]


def program(runtime: str) -> str:
    """Give the path of a runtime's binary."""
    return str(Path(sys.executable).parent / OURS) if runtime == OURS else find_tool(runtime)


def default_config(*args: str) -> dict[str, Any]:
    """Give what `spec` writes, without a terminal, for a program."""
    namespaces = ("pid", "network", "ipc", "uts", "mount")
    return {
        "ociVersion": "1.0.2",
        "process": {
            "user": {"uid": 0, "gid": 0},
            "args": list(args),
            "env": ["PATH=/bin"],
            "cwd": "/",
            "capabilities": {kind: list(DEFAULT_CAPS) for kind in ("bounding", "effective", "permitted")},
            "rlimits": [{"type": "RLIMIT_NOFILE", "soft": 1024, "hard": 1024}],
            "noNewPrivileges": True,
        },
        "root": {"path": "rootfs", "readonly": True},
        "hostname": "boat",
        "mounts": [
            {"destination": "/proc", "type": "proc", "source": "proc"},
            {"destination": "/dev", "type": "tmpfs", "source": "tmpfs", "options": ["nosuid", "mode=755", "size=65536k"]},
            {
                "destination": "/dev/pts",
                "type": "devpts",
                "source": "devpts",
                "options": ["nosuid", "noexec", "newinstance", "ptmxmode=0666", "mode=0620"],
            },
            {"destination": "/sys", "type": "sysfs", "source": "sysfs", "options": ["nosuid", "noexec", "nodev", "ro"]},
        ],
        "linux": {"namespaces": [{"type": kind} for kind in namespaces], "maskedPaths": [], "readonlyPaths": []},
    }


class Oci:
    """One runtime with a state directory and a bundle of its own; every container it made is gone at the end."""

    def __init__(self, runtime: str, folder: Path) -> None:
        self.runtime = runtime
        self.bundle = folder
        self.root = folder / "state"
        self.program = program(runtime)
        hide = runtime == "crun" and os.path.isdir(HYBRID)
        self.prefix = ["unshare", "-m", "sh", "-c", f'umount {HYBRID}; exec "$0" "$@"'] if hide else []
        self.config = default_config("true")
        self.options: list[str] = []
        self.ids: list[str] = []

    @property
    def ours(self) -> bool:
        return self.runtime == OURS

    @property
    def rootfs(self) -> Path:
        return self.bundle / "rootfs"

    def new_id(self) -> str:
        self.ids.append(f"t-{secrets.token_hex(6)}")
        return self.ids[-1]

    def call(self, *arguments: str, **options: Any) -> subprocess.CompletedProcess[str]:
        """Run one command; output is captured, decoded, and not judged."""
        options.setdefault("stdin", subprocess.DEVNULL)
        options.setdefault("stdout", subprocess.PIPE)
        options.setdefault("stderr", subprocess.PIPE)
        command = [*self.prefix, self.program, "--root", str(self.root), *self.options, *arguments]
        return subprocess.run(command, text=True, timeout=SECONDS, check=False, cwd=self.bundle, **options)

    def ok(self, *arguments: str, **options: Any) -> str:
        """Run one command that must succeed and give what it printed."""
        done = self.call(*arguments, **options)
        assert done.returncode == 0, f"{self.runtime} {' '.join(arguments)}: {done.stderr}{done.stdout or ''}"
        return done.stdout or ""

    def write(self, *args: str) -> None:
        """Write config.json, with another program when given."""
        if args:
            self.config["process"]["args"] = list(args)
        (self.bundle / "config.json").write_text(json.dumps(self.config))

    def run(self, *args: str, **options: Any) -> subprocess.CompletedProcess[str]:
        """Run a program in a new container to its end."""
        self.write(*args)
        return self.call("run", self.new_id(), **options)

    def output(self, *args: str, **options: Any) -> str:
        """Run a program in a new container; it must succeed; give what it printed."""
        done = self.run(*args, **options)
        assert done.returncode == 0, f"{self.runtime}: exit {done.returncode}: {done.stderr}{done.stdout}"
        return done.stdout

    def shell(self, script: str, **options: Any) -> str:
        """Run a shell script in a new container."""
        return self.output("sh", "-ec", script, **options)

    def start(self, *args: str, **options: Any) -> str:
        """Create and start a container; its output goes nowhere unless told otherwise."""
        self.write(*args)
        name = self.new_id()
        quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL} | options
        done = self.call("create", name, **quiet)
        assert done.returncode == 0, f"{self.runtime} create failed: {self.call('create', name).stderr}"
        self.ok("start", name)
        return name

    def state(self, name: str) -> dict[str, Any]:
        answer: dict[str, Any] = json.loads(self.ok("state", name))
        return answer

    def wait_status(self, name: str, status: str) -> None:
        wait_for(lambda: self.state(name)["status"] == status, f"{name} to be {status}")

    def close(self) -> None:
        for name in self.ids:
            self.call("delete", "--force", name)
        shutil.rmtree(self.root, ignore_errors=True)


def make_node(runtime: str, rootfs: Path) -> Iterator[Oci]:
    """Give a runtime around a busybox root, and clean up behind it."""
    node = Oci(runtime, rootfs.parent)
    try:
        yield node
    finally:
        node.close()


@pytest.fixture(params=RUNTIMES)
def oci(request: pytest.FixtureRequest, busybox_rootfs: Path) -> Iterator[Oci]:
    """Give each runtime in turn: what the peers do is what we must do."""
    yield from make_node(request.param, busybox_rootfs)


@pytest.fixture
def ours(busybox_rootfs: Path) -> Iterator[Oci]:
    """Give wherry-oci alone, for what the peers do otherwise or not at all."""
    yield from make_node(OURS, busybox_rootfs)


def options_of(mountinfo: str, destination: str) -> set[str]:
    """Give the per-mount options of the topmost mount on `destination`."""
    found: set[str] = set()
    for line in mountinfo.splitlines():
        fields = line.split(" ")
        if fields[4:5] == [destination]:
            found = set(fields[5].split(","))
    assert found, f"{destination} is no mount:\n{mountinfo}"
    return found


def propagation_of(mountinfo: str, destination: str) -> str:
    """Give private, shared, slave or unbindable for the topmost mount on `destination`."""
    words = "private"
    for line in mountinfo.splitlines():
        fields = line.split(" ")
        if fields[4] == destination:
            optional = " ".join(fields[6 : fields.index("-")])
            words = next(
                (word for word in ("shared", "unbindable", "slave") if word in optional or "master" in optional), "private"
            )
            if "master" in optional and "shared" not in optional:
                words = "slave"
    return words


def unlink(path: Path) -> None:
    """Remove a file that may be gone."""
    with suppress(FileNotFoundError):
        os.unlink(path)
