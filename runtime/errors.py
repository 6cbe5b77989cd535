"""The errors of the OCI runtime, one tree.

    RuntimeFault          something failed: at which step, on what path, with which errno
    ├ UsageFault          the command line is wrong
    ├ SpecFault           config.json (or another document) is wrong; names the JSON pointer
    ├ NotFoundFault       the container does not exist
    ├ ExistsFault         a container with that id exists already
    ├ StateFault          the container is in a state that forbids the operation
    ├ StartFault          the user's program could not be executed
    ├ KernelFault         the kernel, or this host, lacks a feature that was asked for
    ├ CgroupFault         a cgroup could not be made, changed or removed
    ├ HookFault           a hook failed or took too long
    └ ProtocolFault       a process of ours died or spoke out of turn

Faults cross processes as values (`to_value`, `from_value`), never as pickles. Messages are lower case, carry no full stop,
and name the object, the step and what to do.
"""

from __future__ import annotations

import os

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any, ClassVar, Self


_LONGEST = 8192
"""Characters of a message, twice PATH_MAX. A document may name a path of megabytes, which no datagram and no line holds."""


class RuntimeFault(Exception):  # noqa: N818 - the tree is named after faults, as the protocol's messages are
    """Base of the tree.

    `step` is what was being done ("mount /proc"), `errno` and `path` are those of the system call, when there was one.
    """

    kind: ClassVar[str] = "runtime"

    def __init__(self, message: str, *, step: str = "", errno: int | None = None, path: str | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.step = step
        self.errno = errno
        self.path = path

    def __str__(self) -> str:
        parts = [self.step, self.message]
        if self.path is not None and self.path not in self.message and self.path not in self.step:
            parts.insert(1, self.path)
        if self.errno is not None:
            reason = os.strerror(self.errno).lower()
            if reason not in self.message.lower() and "not found in $PATH" not in self.message:
                parts.append(reason)
        return ": ".join(part for part in parts if part)

    @classmethod
    def from_os(cls, error: OSError, step: str, message: str = "", *, path: str | None = None) -> Self:
        """Give the fault of a failed system call; the error keeps its errno and its path."""
        named = path if path is not None else error.filename
        if isinstance(named, bytes):
            named = os.fsdecode(named)
        return cls(message, step=step, errno=error.errno, path=named if isinstance(named, str) else None)

    def to_value(self) -> dict[str, Any]:
        """Give the fault as plain values, for a pipe or a socket; what is too long for one is cut."""
        value: dict[str, Any] = {"kind": self.kind, "message": cut(self.message), "step": cut(self.step)}
        value["errno"] = self.errno
        value["path"] = None if self.path is None else cut(self.path)
        return value


class UsageFault(RuntimeFault):
    """The command line is wrong."""

    kind = "usage"


class SpecFault(RuntimeFault):
    """A document is wrong; `pointer` (RFC 6901) says where, `document` which one."""

    kind = "spec"

    def __init__(
        self,
        message: str,
        *,
        pointer: str = "",
        document: str = "config.json",
        step: str = "",
        errno: int | None = None,
        path: str | None = None,
    ) -> None:
        super().__init__(message, step=step, errno=errno, path=path)
        self.pointer = pointer
        self.document = document

    def __str__(self) -> str:
        where = f"{self.document}: {self.pointer}" if self.pointer else self.document
        return f"{where}: {super().__str__()}"

    def to_value(self) -> dict[str, Any]:
        """Give the fault as plain values, the pointer with them."""
        return super().to_value() | {"pointer": cut(self.pointer), "document": self.document}


class NotFoundFault(RuntimeFault):
    """The container does not exist."""

    kind = "not-found"


class ExistsFault(RuntimeFault):
    """A container with that id exists already."""

    kind = "exists"


class StateFault(RuntimeFault):
    """The container is in a state that forbids the operation."""

    kind = "state"


class StartFault(RuntimeFault):
    """The user's program could not be executed: `errno` and `path` are those of execve(2) or of the search in PATH."""

    kind = "start"


class KernelFault(RuntimeFault):
    """The kernel, or this host, lacks `feature`, which was asked for; nothing weaker was done instead."""

    kind = "kernel"

    def __init__(
        self, message: str, *, feature: str = "", step: str = "", errno: int | None = None, path: str | None = None
    ) -> None:
        super().__init__(message, step=step, errno=errno, path=path)
        self.feature = feature

    def to_value(self) -> dict[str, Any]:
        """Give the fault as plain values, the feature with them."""
        return super().to_value() | {"feature": self.feature}


class CgroupFault(RuntimeFault):
    """A cgroup could not be made, changed or removed."""

    kind = "cgroup"


class HookFault(RuntimeFault):
    """A hook failed or took too long."""

    kind = "hook"


class ProtocolFault(RuntimeFault):
    """A process of ours died or spoke out of turn."""

    kind = "protocol"


_KINDS: dict[str, type[RuntimeFault]] = {
    fault.kind: fault
    for fault in (
        UsageFault,
        SpecFault,
        NotFoundFault,
        ExistsFault,
        StateFault,
        StartFault,
        KernelFault,
        CgroupFault,
        HookFault,
        ProtocolFault,
    )
}


def cut(text: str) -> str:
    """Shorten a text that is too long to be read, and say so."""
    return text if len(text) <= _LONGEST else f"{text[:_LONGEST]}… ({len(text)} characters)"


def from_value(value: dict[str, Any]) -> RuntimeFault:
    """Give back the fault that `to_value` described; one of an unknown kind becomes a RuntimeFault."""
    rest = {name: part for name, part in value.items() if name not in ("kind", "message")}
    kind = _KINDS.get(str(value.get("kind")), RuntimeFault)
    allowed = {"step", "errno", "path"}
    if kind is SpecFault:
        allowed |= {"pointer", "document"}
    elif kind is KernelFault:
        allowed |= {"feature"}
    return kind(str(value.get("message", "")), **{name: part for name, part in rest.items() if name in allowed})
