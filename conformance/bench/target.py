"""A CRI endpoint under measurement: where it is, what to call pods, which processes are its own."""

from __future__ import annotations

import shutil
import subprocess
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from shim.gen.runtime.v1 import api_pb2
from tests.support.cri import Cri, PodMaker
from tests.support.daemon import BUSYBOX, Containerd, Endpoint, Wherryd
from tests.support.tools import find_tool

if TYPE_CHECKING:
    from collections.abc import Sequence

    from tests.support.images import TestImage

RUNTIME_FOLDERS = ("state", "netns")
"""What of an endpoint's folder is on a tmpfs when it is installed: below /run."""
AT_ONCE = 8
"""Pods started at the same time where several are."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Pod:
    """A running pod with one container."""

    pod: str
    container: str
    config: api_pb2.PodSandboxConfig


@dataclass(slots=True, kw_only=True)
class Target:
    """One side of the comparison."""

    name: str
    endpoint: Endpoint
    make: PodMaker = field(init=False)

    def __post_init__(self) -> None:
        self.make = PodMaker(logs=str(self.endpoint.logs))

    @property
    def cri(self) -> Cri:
        """The connection."""
        return self.endpoint.cri

    def start(self, image: TestImage) -> None:
        """Start the daemon, with its runtime state in memory as it is below /run, and give it the image."""
        for name in RUNTIME_FOLDERS:
            folder = self.endpoint.folder / name
            folder.mkdir(exist_ok=True)
            subprocess.run(["mount", "-t", "tmpfs", "-o", "mode=755", "tmpfs", str(folder)], check=True)
        self.endpoint.start()
        self.endpoint.load({BUSYBOX: image})

    def stop(self) -> None:
        """Remove all pods, stop the daemon and drop its runtime state."""
        try:
            self.endpoint.stop()
        finally:
            for name in RUNTIME_FOLDERS:
                subprocess.run(["umount", "--lazy", str(self.endpoint.folder / name)], check=False, capture_output=True)

    def version(self) -> str:
        """Give its name and version."""
        answer = self.cri.runtime.Version(api_pb2.VersionRequest(), timeout=10)
        return f"{answer.runtime_name} {answer.runtime_version}"

    def start_pod(self, command: Sequence[str] = ("sleep", "1000000")) -> Pod:
        """Run a pod with one container of the test image."""
        config = self.make.pod(cgroup_parent=self.endpoint.cgroup_parent)
        pod = self.cri.run_pod(config)
        container = self.cri.create(pod, self.make.container(BUSYBOX, command), config)
        self.cri.start(container)
        return Pod(pod=pod, container=container, config=config)

    def remove_pod(self, pod: Pod) -> None:
        """Stop and remove a pod the way kubelet does, without grace."""
        self.cri.stop(pod.container)
        self.cri.remove(pod.container)
        self.cri.remove_pod(pod.pod)

    def start_pods(self, count: int) -> list[Pod]:
        """Run several pods, some at once."""
        with ThreadPoolExecutor(AT_ONCE) as threads:
            return list(threads.map(lambda _number: self.start_pod(), range(count)))

    def remove_pods(self, pods: Sequence[Pod]) -> None:
        """Remove several pods, some at once."""
        with ThreadPoolExecutor(AT_ONCE) as threads:
            list(threads.map(self.remove_pod, pods))

    def user_pids(self) -> set[int]:
        """Give the processes that users asked for: they are not the daemon's cost."""
        return {int(self.cri.info(container.id)["pid"]) for container in self.cri.containers()}

    def own_pids(self) -> list[int]:
        """Give every other process it keeps: daemon, shims, monitors, pause processes."""
        users = self.user_pids()
        return [pid for pid in self.endpoint.helpers() if pid not in users]


def _own_copy(containerd: str, folder: Path) -> str:
    """Copy containerd and what it starts: two that run the same files would share their pages, and each count half of them."""
    folder.mkdir(parents=True)
    source = Path(containerd).resolve().parent
    for name in ("containerd", "containerd-shim-runc-v2", "ctr"):
        if (source / name).exists():
            shutil.copy2(source / name, folder / name)
    return str(folder / "containerd")


def make_targets(names: Sequence[str], folder: Path, *, containerd: str, runtimes: dict[str, str]) -> list[Target]:
    """Make the named sides: "wherry", "runc" and "crun" (under containerd); copies of programs go below `folder`."""
    found = []
    for number, name in enumerate(names):
        subnet = f"10.{192 + number}.0.0/16"
        if name == "wherry":
            found.append(Target(name=name, endpoint=Wherryd("wbench-w", subnet)))
        else:
            runtime = runtimes.get(name) or name
            binary = _own_copy(containerd or find_tool("containerd"), folder / name)
            endpoint = Containerd(f"wbench-{name}", subnet, runtime=runtime, binary=binary)
            found.append(Target(name=name, endpoint=endpoint))
    return found
