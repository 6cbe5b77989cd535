"""A spawner of the test's own, its monitors, and busybox bundles for them."""

from __future__ import annotations

import contextlib
import json
import os
import secrets
import shutil
import signal
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from shim import wire
from shim.container.alone import cgroup_alone
from shim.monitor.client import MonitorClient
from shim.monitor.protocol import ContainerCreate, Exited, NamespaceRequest, PodNamespaces
from shim.monitor.rest import LONGEST_PATIENCE, PATIENCE
from shim.spawner.client import SpawnerClient

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

ROOT = Path(__file__).parents[2]
_PROGRAM = """
import json, socket, sys
sys.path.insert(0, {root!r})
from shim.spawner import forks
forks.defer()
from shim.spawner.server import run_spawner
from shim.monitor import rest
rest.PATIENCE, rest.LONGEST_PATIENCE = {patience}
run_spawner(socket.socket(fileno=int(sys.argv[1])), kinds=json.loads(sys.argv[2]))
"""


class SpawnerProcess:
    """A spawner in a process of its own."""

    def __init__(self, kinds: dict[str, str], patience: tuple[float, float]) -> None:
        self.sock, theirs = wire.pair()
        with theirs:
            program = _PROGRAM.format(root=str(ROOT), patience=patience)
            self.child = subprocess.Popen(
                [sys.executable, "-c", program, str(theirs.fileno()), json.dumps(kinds)], pass_fds=[theirs.fileno()]
            )

    def kill(self) -> None:
        """Kill -9 and reap it."""
        self.child.send_signal(signal.SIGKILL)
        self.child.wait(10)


@contextlib.asynccontextmanager
async def spawner(
    kinds: dict[str, str] | None = None, patience: tuple[float, float] = (PATIENCE, LONGEST_PATIENCE)
) -> AsyncIterator[tuple[SpawnerClient, SpawnerProcess]]:
    """Give a running spawner and the client to it; both are gone afterwards. `patience`: of its monitors (rest.py)."""
    process = SpawnerProcess(kinds or {}, patience)
    client = SpawnerClient(process.sock)
    try:
        yield client, process
    finally:
        await client.close()
        process.child.wait(20)


class PodHarness:
    """One pod's monitor and the bundles of its containers, below a temporary directory."""

    def __init__(self, client: SpawnerClient, folder: Path, handler: str) -> None:
        self.spawner = client
        self.handler = handler
        self.pod_id = secrets.token_hex(32)
        self.folder = folder
        self.state_dir = folder / "state" / "pods" / self.pod_id
        self.rootfs = folder / "rootfs"
        self.pid = 0
        self.monitor: MonitorClient
        self.namespaces = PodNamespaces()
        if not self.rootfs.exists():
            make_rootfs(self.rootfs)

    @property
    def socket(self) -> str:
        """Path of the monitor's socket."""
        return str(self.state_dir / "monitor.sock")

    def working(self) -> list[int]:
        """Give the monitor that works beside its keeper; none while it rests."""
        children = Path(f"/proc/{self.pid}/task/{self.pid}/children").read_text(encoding="ascii").split()
        names = {int(pid): Path(f"/proc/{pid}/comm") for pid in children}
        return [pid for pid, name in names.items() if name.exists() and name.read_text(encoding="utf-8") == "wherry-monitor\n"]

    def open_fds(self) -> list[str]:
        """Give what the descriptors of the keeper and of its monitor refer to."""
        return [name for pid in (self.pid, *self.working()) for name in open_fds(pid)]

    async def start(self) -> MonitorClient:
        """Start the monitor and connect to it."""
        self.state_dir.mkdir(parents=True, exist_ok=True)
        self.pid = await self.spawner.start_monitor(self.pod_id, str(self.state_dir))
        self.monitor = await MonitorClient.connect(self.socket)
        return self.monitor

    async def stop(self) -> None:
        """Remove the pod, its monitor and its directory."""
        await self.monitor.teardown_pod()
        await self.monitor.shutdown()
        await self.monitor.close()
        shutil.rmtree(self.state_dir, ignore_errors=True)

    async def setup(self, **request: Any) -> PodNamespaces:
        """Make namespaces; a netns pin gets a name of its own below the state directory."""
        request.setdefault("net_pin", str(self.state_dir / "netns"))
        self.namespaces = await self.monitor.setup_pod(NamespaceRequest(**({"ipc": True, "uts": True} | request)))
        return self.namespaces

    def request(self, *args: str, change: Any = None, **settings: Any) -> ContainerCreate:
        """Write a bundle that runs `args` and give the order for it; `change(config)` may edit config.json."""
        container_id = secrets.token_hex(32)
        bundle = self.folder / "containers" / container_id
        bundle.mkdir(parents=True)
        config = make_config(list(args), str(self.rootfs), f"/wherry-test-{container_id}", self.namespaces.paths)
        config["process"]["terminal"] = settings.get("terminal", False)
        if change is not None:
            change(config)
        text = json.dumps(config).encode()
        (bundle / "config.json").write_bytes(text)
        settings.setdefault("alone", "" if self.handler else cgroup_alone(text))
        return ContainerCreate(
            container_id=container_id,
            bundle=str(bundle),
            state_root=str(self.folder / "oci"),
            handler=self.handler,
            log_path=settings.pop("log_path", str(bundle / "log")),
            **settings,
        )

    async def run(self, *args: str, **settings: Any) -> ContainerCreate:
        """Create and start a container."""
        request = self.request(*args, **settings)
        await self.monitor.create(request)
        await self.monitor.start(request.container_id)
        return request

    async def exited(self, container_id: str) -> Exited:
        """Wait for the end of a container."""
        return await exit_of(self.monitor, container_id)


async def exit_of(client: MonitorClient, container_id: str) -> Exited:
    """Take events until the one that tells of the container's end."""
    async for event in client.events:
        if isinstance(event, Exited) and event.container_id == container_id:
            return event
    raise AssertionError("the monitor is gone")


def make_rootfs(folder: Path) -> None:
    """Make a root directory with busybox in it."""
    for name in ("bin", "proc", "dev", "sys", "tmp", "etc"):
        (folder / name).mkdir(parents=True)
    shutil.copy("/bin/busybox", folder / "bin" / "busybox")
    for name in (
        "sh",
        "sleep",
        "echo",
        "cat",
        "true",
        "yes",
        "head",
        "seq",
        "setsid",
        "kill",
        "dd",
        "tail",
        "hostname",
        "stty",
        "ls",
        "id",
        "ps",
    ):
        (folder / "bin" / name).symlink_to("busybox")
    (folder / "etc" / "plain").write_text("no program\n")


def make_config(args: list[str], rootfs: str, cgroup: str, pins: dict[str, str]) -> dict[str, Any]:
    """Give a config.json that joins the namespaces at `pins`."""
    capabilities = ["CAP_KILL", "CAP_CHOWN", "CAP_SETUID", "CAP_SETGID", "CAP_SYS_CHROOT"]
    namespaces: list[dict[str, str]] = [{"type": "mount"}]
    for kind in ("pid", "ipc", "uts", "network", "user"):
        if kind in pins:
            namespaces.append({"type": kind, "path": pins[kind]})
        elif kind not in ("user", "network"):
            namespaces.append({"type": kind})
    return {
        "ociVersion": "1.0.2",
        "process": {
            "terminal": False,
            "user": {"uid": 0, "gid": 0},
            "args": args,
            "env": ["PATH=/bin", "HOME=/"],
            "cwd": "/",
            "capabilities": dict.fromkeys(("bounding", "effective", "permitted"), capabilities),
            "noNewPrivileges": True,
        },
        "root": {"path": rootfs, "readonly": False},
        "mounts": [
            {"destination": "/proc", "type": "proc", "source": "proc"},
            {"destination": "/dev", "type": "tmpfs", "source": "tmpfs", "options": ["nosuid", "mode=755", "size=65536k"]},
            {"destination": "/dev/pts", "type": "devpts", "source": "devpts", "options": ["newinstance", "ptmxmode=0666"]},
        ],
        "linux": {"namespaces": namespaces, "cgroupsPath": cgroup, "resources": {}},
    }


def crun_wrapper(folder: Path, crun: str) -> str:
    """Give a program that runs crun where it can work: crun 1.8 refuses a host with controllers in both cgroup versions."""
    path = folder / "crun-in-v1"
    path.write_text(
        "#!/bin/sh\n"
        "if [ -f /sys/fs/cgroup/unified/cgroup.controllers ]; then\n"
        f'  exec unshare -m sh -c \'umount /sys/fs/cgroup/unified && exec {crun} "$@"\' crun "$@"\n'
        "fi\n"
        f'exec {crun} "$@"\n'
    )
    path.chmod(0o755)
    return str(path)


def gone(pid: int) -> bool:
    """Say whether a process has ended (a zombie has)."""
    try:
        with open(f"/proc/{pid}/stat", "rb") as stat:
            return stat.read().rpartition(b")")[2].split()[0] in (b"Z", b"X")
    except OSError:
        return True


def open_fds(pid: int) -> list[str]:
    """Give what the descriptors of a process refer to."""
    found = []
    for name in os.listdir(f"/proc/{pid}/fd"):
        with contextlib.suppress(OSError):
            found.append(os.readlink(f"/proc/{pid}/fd/{name}"))
    return found


@contextlib.asynccontextmanager
async def running_pod(folder: Path, handler: str = "", hostname: str = "") -> AsyncIterator[PodHarness]:
    """Give a pod with its namespaces, of a spawner of its own; both are gone afterwards."""
    async with spawner() as (client, _process):
        harness = PodHarness(client, folder, handler)
        await harness.start()
        await harness.setup(hostname=hostname)
        yield harness
        await harness.stop()
