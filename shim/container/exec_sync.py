"""ExecSync: run a command in a container and give its output."""

from __future__ import annotations

from typing import TYPE_CHECKING

from shim.errors import FailedPrecondition, InvalidArgument
from shim.monitor.protocol import ExecRequest, ExecResult
from shim.store.containers import State

if TYPE_CHECKING:
    from collections.abc import Sequence

    from shim.pod.node import Node

RESPONSE_LIMIT = 16 * 1024 * 1024 - 4096
"""Bytes of both streams that fit into one gRPC message of kubelet's limit."""


async def exec_sync(node: Node, container_id: str, command: Sequence[str], seconds: float) -> ExecResult:
    """Run `command` and give its output; the whole tree is killed after `seconds` (0: the configured limit).

    Raises NotFound, FailedPrecondition when the container does not run, InvalidArgument without a command,
    DeadlineExceeded after the timeout.
    """
    container = node.containers.get(container_id)
    if not command:
        raise InvalidArgument("cmd must not be empty")
    if seconds < 0:
        raise InvalidArgument("timeout must not be negative")
    if container.state is not State.RUNNING:
        raise FailedPrecondition(f"container {container.id} is {container.state}, not running")
    request = ExecRequest(
        container_id=container.id,
        process={"args": list(command)},
        timeout_s=seconds or node.config.limits.exec_sync_timeout,
    )
    return _fit(await node.monitors.get(container.pod_id).exec_sync(request))


def _fit(result: ExecResult) -> ExecResult:
    """Cut the output to what the response can carry: standard error first."""
    stdout = result.stdout[:RESPONSE_LIMIT]
    stderr = result.stderr[: max(RESPONSE_LIMIT - len(stdout), 0)]
    return ExecResult(exit_code=result.exit_code, stdout=stdout, stderr=stderr)
