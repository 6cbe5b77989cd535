"""The calls a plugin may subscribe to: which event, which method, which messages."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from shim.gen.nri.v1alpha1 import api_pb2 as nri

if TYPE_CHECKING:
    from google.protobuf.message import Message

PLUGIN = "nri.pkg.api.v1alpha1.Plugin"
RUNTIME = "nri.pkg.api.v1alpha1.Runtime"
ALL_EVENTS = (1 << (nri.LAST - 1)) - 1
"""The mask of everything there is; event N has bit N-1."""
VERSION = "v0.12.0"
"""The version of NRI that is spoken here, as plugins are told."""

_WITH_ANSWER = {
    nri.CREATE_CONTAINER,
    nri.UPDATE_CONTAINER,
    nri.STOP_CONTAINER,
    nri.UPDATE_POD_SANDBOX,
    nri.VALIDATE_CONTAINER_ADJUSTMENT,
}


@dataclass(frozen=True, slots=True)
class Call:
    """One call; a `told` one has no answer that matters, and older plugins serve StateChange in its place."""

    event: int
    method: str
    answer: type[Message]
    told: bool

    def wanted(self, mask: int) -> bool:
        """Tell whether a plugin with this mask has subscribed to it."""
        return bool(mask >> (self.event - 1) & 1)


def _call(event: int, name: str) -> Call:
    method = name.title().replace("_", "")
    return Call(event, method, getattr(nri, f"{method}Response"), told=event not in _WITH_ANSWER)


CALLS = {event: _call(event, name) for name, event in nri.Event.items() if event not in (nri.UNKNOWN, nri.LAST)}
