"""What every handler works with: the stores, the images, the monitors, the network of this node."""

from __future__ import annotations

import asyncio
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from shim.errors import DeadlineExceeded
from shim.events import ContainerEvent, EventBus, EventKind
from shim.pod.flight import Flights

if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import TypeVar

    from shim.config import Config
    from shim.container.spec.host import HostFacts
    from shim.image.service import ImageStore
    from shim.pod.monitors import Monitors
    from shim.pod.network import Jobs, PodNetwork
    from shim.store.containers import ContainerStore
    from shim.store.database import Database
    from shim.store.pods import PodStore
    from shim.streaming.server import StreamingServer

    T = TypeVar("T")


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
    streaming: StreamingServer = field(init=False)
    """Set by shim.daemon: it needs the node in turn."""
    workers: ThreadPoolExecutor = field(default_factory=lambda: ThreadPoolExecutor(8, "wherry-file"))
    """Threads for looking at host paths, which may lie on a dead file server."""

    def pod_dir(self, pod_id: str) -> str:
        """Directory of a pod's files."""
        return f"{self.config.root}/pods/{pod_id}"

    def container_dir(self, container_id: str) -> str:
        """Directory of a container's bundle and writable layer."""
        return f"{self.config.root}/containers/{container_id}"

    @property
    def oci_root(self) -> str:
        """Directory of state.json files: the --root of `wherry-oci`."""
        return f"{self.config.state}/oci"

    async def in_thread(self, work: Callable[[], T], seconds: float, what: str) -> T:
        """Run blocking `work` beside the event loop; raise DeadlineExceeded naming `what` when it takes too long."""
        future = asyncio.get_running_loop().run_in_executor(self.workers, work)
        done, _ = await asyncio.wait([future], timeout=seconds)
        if not done:
            raise DeadlineExceeded(f"{what} took longer than {seconds:g} s: a file system may not be answering")
        return future.result()

    def tell(self, kind: EventKind, container_id: str, pod_id: str) -> None:
        """Publish a change that has just happened."""
        self.events.publish(ContainerEvent(kind=kind, container_id=container_id, pod_id=pod_id, at=time.time_ns()))

    def exit_event(self, container_id: str) -> asyncio.Event:
        """Give the event that is set when this container exits."""
        return self.exited.setdefault(container_id, asyncio.Event())
