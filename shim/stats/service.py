"""The node's measurer: one thread that reads, and what is remembered between calls.

Everything that reads cgroups, namespaces or /proc runs on that thread, one call after the other; the event loop only hands
over values and takes messages back. The thread is alone because it enters the pods' network namespaces.
"""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

from shim.pod.workers import Workers
from shim.stats.cgroup import Group, Groups
from shim.stats.layer import LayerUsages
from shim.stats.metrics import chosen
from shim.stats.rates import Rates
from shim.stats.sockets import FILES
from shim.stats.tasks import History
from shim.stats.walk import walk

if TYPE_CHECKING:
    from collections.abc import Callable, Container
    from typing import TypeVar

    from shim.pod.network import Jobs
    from shim.stats.values import Usage

    T = TypeVar("T")

SECONDS = 30.0
"""Time one reading may take; the kernel answers all of them from memory."""
SMALL = 1000
"""Entries of a layer that the thread looks at before it gives up: about 3 ms."""
JOB_SECONDS = 600.0
"""Time a job may walk through one layer."""


class Stats:
    """What is shared by all stats and metrics RPCs; made once a node."""

    def __init__(self, jobs: Jobs, also: tuple[str, ...] = ()) -> None:
        self._jobs = jobs
        self.also = frozenset(also)
        """Kinds of metrics beyond the usual ones."""
        self.metrics = chosen(also)
        self.socket_files = tuple(file for kind in also for file in FILES.get(kind, ()))
        self.history = History()
        self._thread = Workers(1)
        self._groups: Groups | None = None
        self._found: dict[str, Group] = {}
        self._rates = Rates()
        self.layers = LayerUsages(self._walk_small, self._walk_large)

    async def run(self, work: Callable[[], T]) -> T:
        """Give work(), done by the thread; raise what it raises."""
        return await self._thread.run(work, SECONDS, "measuring what containers use")

    def close(self) -> None:
        """Let the thread end."""
        self._thread.close()

    def keep(self, known: Container[str]) -> None:
        """Forget all but these pods and containers; on the thread."""
        self._rates.keep(known)
        self.history.keep(known)
        for item_id in [one for one in self._found if one not in known]:
            del self._found[item_id]

    def group(self, item_id: str, path: Callable[[], str]) -> Group:
        """Give the cgroup of a pod or container, whose path() never changes; on the thread."""
        group = self._found.get(item_id)
        if group is None:
            if self._groups is None:
                self._groups = Groups()
            group = self._found[item_id] = self._groups.find(path())
        return group

    def rate(self, item_id: str, usage: Usage, born: int) -> int | None:
        """Give nanoseconds of processor time a second, lately; on the thread."""
        return None if usage.cpu is None else self._rates.note(item_id, usage.at, usage.cpu.usage, born)

    async def _walk_small(self, directory: str) -> tuple[int, int] | None:
        return await self.run(partial(walk, directory, SMALL))

    async def _walk_large(self, directory: str) -> tuple[int, int] | None:
        done = await self._jobs.job("usage", {"path": directory}, timeout=JOB_SECONDS)
        return int(done["used"]), int(done["inodes"])
