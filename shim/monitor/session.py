"""A client of the monitor: its link, what it asked for, and what ends with it."""

from __future__ import annotations

from shim import wire
from shim.errors import FailedPrecondition, WherryError
from shim.link import Link, close_all
from shim.monitor.protocol import VERSIONS
from shim.reactor import READ, Cancelled

TYPE_CHECKING = False
if TYPE_CHECKING:
    import socket
    from collections.abc import Awaitable
    from typing import Any

    from shim.monitor.rest import Luggage
    from shim.monitor.server import Monitor, Reply
    from shim.reactor import Task


class Session:
    """One client."""

    def __init__(self, monitor: Monitor, sock: socket.socket) -> None:
        self._monitor = monitor
        self.greeted = False
        self.streams: list[str] = []
        """Processes started by exec_stream over this link."""
        self._cancellable: dict[int, Task[None]] = {}
        self._serving = 0
        self.link = Link(monitor.reactor, sock, self._received)

    def _received(self, message: dict[str, Any], fds: list[int]) -> None:
        self._monitor.activity += 1
        seq, op = message.get("seq"), message.get("op")
        if op not in self._monitor.streaming:  # nothing else takes descriptors
            close_all(fds)
        if type(seq) is not int or not isinstance(op, str):
            self.link.close()
        elif not self.greeted:
            self._hello(seq, op, message)
        elif op == "cancel":
            task = self._cancellable.pop(message.get("target", -1), None)
            if task is not None:
                task.cancel()
        else:
            task = self._monitor.reactor.spawn(self._serve(seq, op, message, fds))
            if op == "exec_sync" and not task.done:
                self._cancellable[seq] = task

    def _hello(self, seq: int, op: str, message: dict[str, Any]) -> None:
        versions = message.get("versions")
        common = [version for version in VERSIONS if isinstance(versions, list) and version in versions]
        if op != "hello" or not common:
            text = f"the monitor of pod {self._monitor.pod_id} speaks versions {list(VERSIONS)}; say hello with one of them"
            self.link.send({"seq": seq, "error": wire.value_of(FailedPrecondition(text))})
            self.link.close()
            return
        self.greeted = True
        self.link.send({"seq": seq, "ok": {"version": common[0], "pod_id": self._monitor.pod_id, "pid": self._monitor.pid}})

    def _answer(self, op: str, message: dict[str, Any], given: list[int]) -> Awaitable[Reply]:
        streaming = self._monitor.streaming.get(op)
        if streaming is not None:
            return streaming(message, given, self)
        operation = self._monitor.operations.get(op)
        return self._monitor.unknown(op) if operation is None else operation(message)

    async def _serve(self, seq: int, op: str, message: dict[str, Any], given: list[int]) -> None:
        fds: list[int] = []
        self._serving += 1
        try:
            answer = await self._answer(op, message, given)
            value, fds = answer if isinstance(answer, tuple) else (answer, fds)
            reply = {"seq": seq, "ok": value}
        except Cancelled:
            reply = {"seq": seq, "error": {"code": "UNKNOWN", "message": "cancelled"}}
        except Exception as error:  # noqa: BLE001 - it crosses as a value
            if not isinstance(error, WherryError):
                self._monitor.trouble.write(f"{op}: {type(error).__name__}: {error}")
            reply = {"seq": seq, "error": wire.value_of(error)}
        finally:
            close_all(given)
            self._serving -= 1
            self._monitor.activity += 1
        self._cancellable.pop(seq, None)
        self.link.send(reply, fds)

    def rest(self, luggage: Luggage) -> list[Any] | None:
        """Hand the link over to the keeper; None while something is asked for, or runs for this client."""
        if self._serving or self.streams or not self.link.flushed:
            return None
        return [luggage.add(self.link.fd, READ), self.greeted]

    def abandon(self) -> None:
        """End what only this client was waiting for."""
        tasks, self._cancellable = list(self._cancellable.values()), {}
        for task in tasks:
            task.cancel()
        streams, self.streams = self.streams, []
        for name in streams:
            self._monitor.streamed.abandon(name)
