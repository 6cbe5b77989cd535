"""Containers: what was asked for, what became of it."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING, Self

from shim.gen.runtime.v1 import api_pb2
from shim.store.objects import ObjectStore, from_json, table, to_json

if TYPE_CHECKING:
    from shim.store.database import Database

SCHEMA = table("container")


class State(StrEnum):
    """A container's state as CRI names it."""

    CREATING = "creating"  # an intent; not shown
    CREATED = "created"
    RUNNING = "running"
    EXITED = "exited"
    UNKNOWN = "unknown"


@dataclass(frozen=True, slots=True, kw_only=True)
class ContainerMeta:
    """What never changes; paths are absolute, times are nanoseconds since 1970."""

    id: str
    name: str
    pod_id: str
    created_at: int
    image_id: str
    handler: str
    log_path: str = ""
    stop_signal: int = 15


@dataclass(frozen=True, slots=True, kw_only=True)
class ContainerStatus:
    """What changes; the state follows from the times."""

    created_at: int = 0
    """When CreateContainer succeeded; 0 is an intent that was not carried out (yet)."""
    started_at: int = 0
    finished_at: int = 0
    pid: int = 0
    exit_code: int = 0
    reason: str = ""
    message: str = ""
    unknown: bool = False
    """Nobody can say whether it runs."""
    removing: bool = False
    uid: int = 0
    gid: int = 0
    groups: tuple[int, ...] = ()
    resources: bytes = b""
    """Serialized LinuxContainerResources, once updated."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Container:
    """A container."""

    meta: ContainerMeta
    config: api_pb2.ContainerConfig
    status: ContainerStatus

    @property
    def id(self) -> str:
        """64 hexadecimal digits."""
        return self.meta.id

    @property
    def pod_id(self) -> str:
        """The pod it belongs to."""
        return self.meta.pod_id

    @property
    def name(self) -> str:
        """Name, pod and attempt, joined."""
        return self.meta.name

    @property
    def state(self) -> State:
        """The state, from the times."""
        status = self.status
        if status.finished_at:
            return State.EXITED
        if status.unknown:
            return State.UNKNOWN
        if status.started_at:
            return State.RUNNING
        return State.CREATED if status.created_at else State.CREATING

    @property
    def resources(self) -> api_pb2.LinuxContainerResources:
        """The limits it was created with, or was given since."""
        if self.status.resources:
            return api_pb2.LinuxContainerResources.FromString(self.status.resources)
        return self.config.linux.resources

    def with_status(self, status: ContainerStatus) -> Self:
        """Give the same container with another status."""
        return dataclasses.replace(self, status=status)

    def encode(self) -> tuple[bytes, str, str]:
        """Give config, metadata and status as they stand in the row."""
        return self.config.SerializeToString(), to_json(self.meta), to_json(self.status)

    @classmethod
    def decode(cls, _id: str, config: bytes, metadata: str, status: str) -> Self:
        """Make a container of a row; raise ValueError or TypeError for a damaged one."""
        return cls(
            meta=from_json(ContainerMeta, metadata),
            config=api_pb2.ContainerConfig.FromString(config),
            status=from_json(ContainerStatus, status),
        )


class ContainerStore(ObjectStore[Container, ContainerStatus]):
    """All containers."""

    def __init__(self, database: Database) -> None:
        super().__init__(database, "container", Container.decode)

    def of_pod(self, pod_id: str) -> list[Container]:
        """Give the containers of one pod."""
        return [container for container in self if container.meta.pod_id == pod_id]


def container_name(metadata: api_pb2.ContainerMetadata, pod_id: str) -> str:
    """Join what makes a container unique."""
    return "_".join((metadata.name, pod_id, str(metadata.attempt)))
