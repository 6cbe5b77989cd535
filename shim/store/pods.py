"""Pods: what was asked for, what became of it."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Self

from shim.gen.runtime.v1 import api_pb2
from shim.store.objects import ObjectStore, from_json, table, to_json

if TYPE_CHECKING:
    from shim.store.database import Database

SCHEMA = table("pod")


@dataclass(frozen=True, slots=True, kw_only=True)
class PodMeta:
    """What never changes; paths are absolute, times are nanoseconds since 1970."""

    id: str
    name: str
    handler: str
    created_at: int
    netns: str = ""
    """Pin of the network namespace; empty in a host-network pod."""
    cgroup: str = ""
    """Pod-level cgroup that we make and remove; empty when kubelet names a parent."""
    selinux_level: str = ""
    """Its level on a node with SELinux: the one it asked for, or one that no other pod has."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PodStatus:
    """What changes; the state follows from the times."""

    ready_at: int = 0
    """When RunPodSandbox succeeded; 0 is an intent that was not carried out (yet)."""
    stopped_at: int = 0
    removing: bool = False
    boot_id: str = ""
    """The boot in which its processes and namespaces were made."""
    network: str = ""
    """Empty, "adding" (ADD may have had effects) or "added"; DEL makes it empty again."""
    network_name: str = ""
    """Name of the CNI network it was added to."""
    ips: tuple[str, ...] = ()
    cni_result: str = ""
    namespaces: dict[str, str] = field(default_factory=dict)
    """Type (ipc, uts, pid, user, net) to the path of the pin."""
    resources: bytes = b""
    """Serialized LinuxContainerResources of the whole pod, once updated."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Pod:
    """A pod sandbox."""

    meta: PodMeta
    config: api_pb2.PodSandboxConfig
    status: PodStatus

    @property
    def id(self) -> str:
        """64 hexadecimal digits."""
        return self.meta.id

    @property
    def name(self) -> str:
        """Name, namespace, uid and attempt, joined."""
        return self.meta.name

    @property
    def ready(self) -> bool:
        """Whether the state is SANDBOX_READY."""
        return self.status.ready_at > 0 and self.status.stopped_at == 0

    @property
    def failed(self) -> bool:
        """Whether its RunPodSandbox failed, and so did the undoing: it is kept so that its removal can try again."""
        return 0 < self.status.ready_at == self.status.stopped_at

    @property
    def host_network(self) -> bool:
        """Whether the pod uses the node's network."""
        return not self.meta.netns

    def with_status(self, status: PodStatus) -> Self:
        """Give the same pod with another status."""
        return dataclasses.replace(self, status=status)

    def encode(self) -> tuple[bytes, str, str]:
        """Give config, metadata and status as they stand in the row."""
        return self.config.SerializeToString(), to_json(self.meta), to_json(self.status)

    @classmethod
    def decode(cls, _id: str, config: bytes, metadata: str, status: str) -> Self:
        """Make a pod of a row; raise ValueError or TypeError for a damaged one."""
        return cls(
            meta=from_json(PodMeta, metadata),
            config=api_pb2.PodSandboxConfig.FromString(config),
            status=from_json(PodStatus, status),
        )


class PodStore(ObjectStore[Pod, PodStatus]):
    """All pods."""

    def __init__(self, database: Database) -> None:
        super().__init__(database, "pod", Pod.decode)


def pod_name(metadata: api_pb2.PodSandboxMetadata) -> str:
    """Join what makes a pod unique."""
    return "_".join((metadata.name, metadata.namespace, metadata.uid, str(metadata.attempt)))
