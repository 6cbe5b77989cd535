"""What plugins share that follow another one in the list."""

from __future__ import annotations

from typing import TYPE_CHECKING

from cni.errors import Malformed

if TYPE_CHECKING:
    from cni.skel import Request
    from cni.types import Result


def result(request: Request) -> Result:
    """Give the result of the plugin before this one; raise Malformed when there is none."""
    if request.prev_result is None:
        raise Malformed(f"is needed: {request.invocation.plugin} follows another plugin", "/prevResult")
    return request.prev_result
