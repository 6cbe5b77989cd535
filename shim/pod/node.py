"""What every handler works with: the stores, the images, the monitors, the network of this node."""

from __future__ import annotations

import asyncio
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from shim.cdi.cache import Cdi
from shim.errors import DeadlineExceeded
from shim.events import ContainerEvent, EventBus, EventKind
from shim.nri.service import Nri
from shim.pod.flight import Flights
from shim.pod.workers import Workers
from shim.stats.service import Stats

if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import TypeVar

    from shim.config import Config
    from shim.container.spec.host import HostFacts
    from shim.image.service import ImageStore
    from shim.monitor.protocol import Exited
    from shim.pod.binaries import Binary
    from shim.pod.monitors import Monitors
    from shim.pod.network import Jobs, PodNetwork
    from shim.store.containers import Container, ContainerStore
    from shim.store.database import Database
    from shim.store.pods import Pod, PodStore
    from shim.streaming.server import StreamingServer

    T = TypeVar("T")

KILL_SECONDS = 5.0
"""Time beyond its own that a job has to be killed."""


@dataclass(slots=True, kw_only=True)
class Node:
    """The parts of a running daemon; made once by shim.daemon."""

    config: Config
    database: Database
    pods: PodStore
    containers: ContainerStore
    images: ImageStore
    jobs: Jobs
    monitors: Monitors
    network: PodNetwork
    host: HostFacts
    boot_id: str
    events: EventBus = field(default_factory=EventBus)
    flights: Flights = field(default_factory=Flights)
    exited: dict[str, asyncio.Event] = field(default_factory=dict)
    """Set when the container of that id has exited; made by whoever waits first."""
    starting: dict[str, list[Exited]] = field(default_factory=dict)
    """Containers whose start is under way, with the exits that were told meanwhile."""
    binaries: dict[str, Binary] = field(default_factory=dict)
    """What other handlers' binaries can do, by the handler's name."""
    apparmor_problem: str = ""
    """What keeps the default AppArmor profile from being loaded."""
    streaming: StreamingServer = field(init=False)
    """Set by shim.daemon: it needs the node in turn."""
    workers: Workers = field(default_factory=Workers)
    """Threads for work on the node's own disks, which blocks."""
    stats: Stats = field(init=False)
    """Measures what pods and containers use."""
    cdi: Cdi = field(init=False)
    """Devices that vendors describe in files."""
    nri: Nri = field(init=False)
    """Plugins that hear of pods and containers."""

    def __post_init__(self) -> None:
        self.stats = Stats(self.jobs, self.config.metrics.also)
        self.cdi = Cdi(self.config.cdi.spec_dirs)
        self.nri = Nri(self)

    def pod_dir(self, pod_id: str) -> str:
        """Directory of a pod's files."""
        return f"{self.config.root}/pods/{pod_id}"

    def container_dir(self, container_id: str) -> str:
        """Directory of a container's bundle and writable layer."""
        return f"{self.config.root}/containers/{container_id}"

    def mounted_root(self, container_id: str) -> str:
        """Place of a root that users other than root can reach: what lies in `container_dir` they cannot."""
        return f"{self.config.state}/roots/{container_id}"

    @property
    def oci_root(self) -> str:
        """Directory of state.json files: the --root of `wherry-oci`."""
        return f"{self.config.state}/oci"

    async def in_thread(self, work: Callable[[], T], seconds: float, what: str) -> T:
        """Run blocking `work` beside the event loop; raise DeadlineExceeded naming `what` when it takes too long.

        For local file systems: work that has begun goes on when its caller has gone. See `in_job` for what may hang.
        """
        return await self.workers.run(work, seconds, what)

    async def in_job(self, kind: str, params: dict[str, Any], seconds: float, what: str) -> dict[str, Any]:
        """Run a spawner job that looks at what may hang; it is killed after `seconds`, and DeadlineExceeded names `what`.

        A process that not even SIGKILL ends (state D) is left behind: the caller learns of it in time all the same.
        """
        job = asyncio.ensure_future(self.jobs.job(kind, params, timeout=seconds))
        try:
            done, _ = await asyncio.wait([job], timeout=seconds + KILL_SECONDS)
        except asyncio.CancelledError:
            job.cancel()
            await asyncio.wait([job], timeout=KILL_SECONDS)
            raise
        if not done:
            job.cancel()
            raise DeadlineExceeded(f"{what}: a file system does not answer, and its reader cannot be killed (state D)")
        try:
            return job.result()
        except DeadlineExceeded as error:
            raise DeadlineExceeded(f"{what} took longer than {seconds:g} s: a file system is not answering") from error

    def tell(self, kind: EventKind, container_id: str, pod_id: str, *, gone: Pod | None = None) -> None:
        """Publish a change that has just happened; `gone` is the pod when that is what was deleted."""
        if not self.events.heard:
            return
        pod = gone or (self.pods.find(pod_id) if pod_id in self.pods else None)
        containers = self.created_in(pod_id)
        self.events.publish(
            ContainerEvent(
                kind=kind, container_id=container_id, pod_id=pod_id, at=time.time_ns(), pod=pod, containers=containers
            )
        )

    def created_in(self, pod_id: str) -> tuple[Container, ...]:
        """Give a pod's containers whose creation is complete, the newest first.

        Kubelet with evented PLEG takes the first of a name that the status of a pod shows for the current one, and would start
        again what runs already.
        """
        found = (one for one in self.containers.of_pod(pod_id) if one.status.created_at)
        return tuple(sorted(found, key=lambda one: one.status.created_at, reverse=True))

    def exit_event(self, container_id: str) -> asyncio.Event:
        """Give the event that is set when this container exits."""
        return self.exited.setdefault(container_id, asyncio.Event())
