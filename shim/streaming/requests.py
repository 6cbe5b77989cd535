"""What the CRI asked to stream: validated, and kept behind a token until the client comes."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class ExecStream:
    """A command to run in a container."""

    container_id: str
    command: tuple[str, ...]
    stdin: bool
    stdout: bool
    stderr: bool
    tty: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class AttachStream:
    """The process of a container to be connected to."""

    container_id: str
    stdin: bool
    stdout: bool
    stderr: bool
    tty: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class PortForwardStream:
    """Ports of a pod to be reached; `ports` are those of a plain WebSocket, which cannot name them itself."""

    pod_id: str
    ports: tuple[int, ...]


StreamRequest = ExecStream | AttachStream | PortForwardStream
