"""The errors of the CRI server, one tree.

    WherryError                 UNKNOWN
    ├ InvalidArgument           INVALID_ARGUMENT     the request itself is wrong
    ├ NotFound                  NOT_FOUND            the named object does not exist
    ├ AlreadyExists             ALREADY_EXISTS       the named object exists and differs
    ├ PermissionDenied          PERMISSION_DENIED    somebody else (a registry) refuses
    ├ FailedPrecondition        FAILED_PRECONDITION  the object is in a state that forbids this
    ├ ResourceExhausted         RESOURCE_EXHAUSTED   a bound was reached
    ├ Unavailable               UNAVAILABLE          a part of the system is not ready; try again
    ├ DeadlineExceeded          DEADLINE_EXCEEDED    the work took longer than it was given
    ├ Unimplemented             UNIMPLEMENTED        the RPC or the option is not served
    └ Internal                  INTERNAL             the fault is ours

One interceptor (shim.rpc.interceptor) maps them to gRPC; nothing else does. Messages are lower case, carry no full stop,
and name the object, the step and what to do.
"""

from __future__ import annotations

from types import MappingProxyType

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import Any


UNDONE = "undone"
"""In an error's `details`: what failed has left nothing, so that its caller need not undo it."""


class WherryError(Exception):
    """Base of the tree; `code` is the name of a grpc.StatusCode, so that this module need not import grpc."""

    code = "UNKNOWN"
    details: Mapping[str, Any] = MappingProxyType({})
    """Plain values that crossed from another process with the message: errno, path, the fault of the runtime."""


class InvalidArgument(WherryError):
    """The request itself is wrong; repeating it cannot help."""

    code = "INVALID_ARGUMENT"


class NotFound(WherryError):
    """The named object does not exist."""

    code = "NOT_FOUND"


class AlreadyExists(WherryError):
    """The named object exists already and is not the one that was asked for."""

    code = "ALREADY_EXISTS"


class PermissionDenied(WherryError):
    """Somebody we asked, such as a registry, refuses the credentials of the request."""

    code = "PERMISSION_DENIED"


class FailedPrecondition(WherryError):
    """The object is in a state that forbids the operation."""

    code = "FAILED_PRECONDITION"


class ResourceExhausted(WherryError):
    """A bound (bytes, entries, ids, addresses, disk) was reached."""

    code = "RESOURCE_EXHAUSTED"


class Unavailable(WherryError):
    """A part of the system is not ready; the same request may succeed later."""

    code = "UNAVAILABLE"


class DeadlineExceeded(WherryError):
    """The work took longer than it was given and has been undone."""

    code = "DEADLINE_EXCEEDED"


class Unimplemented(WherryError):
    """The RPC or the option is not served by this daemon."""

    code = "UNIMPLEMENTED"


class Internal(WherryError):
    """The fault is ours."""

    code = "INTERNAL"
