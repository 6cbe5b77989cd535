"""The streaming server: hands out URLs with tokens, and serves each token once on an address of its own.

Nothing is imported, bound or kept before the first URL is asked for: most nodes stream rarely.
"""

from __future__ import annotations

import asyncio
import contextlib
from typing import TYPE_CHECKING, Protocol

import structlog

from shim.errors import Internal
from shim.streaming.requests import AttachStream, ExecStream, PortForwardStream, StreamRequest
from shim.streaming.tokens import Tokens

if TYPE_CHECKING:
    import socket

    from shim.config import StreamingConfig
    from shim.streaming.http import Exchange
    from shim.streaming.remotecommand import Process

log = structlog.get_logger()

_PATHS: dict[type, str] = {ExecStream: "exec", AttachStream: "attach", PortForwardStream: "portforward"}


class Backend(Protocol):
    """What is streamed."""

    async def start_exec(self, request: ExecStream) -> Process:
        """Run a command."""
        ...

    async def start_attach(self, request: AttachStream) -> Process:
        """Join the streams of a container."""
        ...

    async def connect(self, pod_id: str, port: int) -> socket.socket:
        """Connect to a port inside a pod."""
        ...


class StreamingServer:
    """The HTTP server for exec, attach and port-forward."""

    def __init__(self, config: StreamingConfig, backend: Backend) -> None:
        self._config = config
        self._backend = backend
        self._tokens: Tokens[StreamRequest] = Tokens(config.token_lifetime)
        self._server: asyncio.Server | None = None
        self._starting = asyncio.Lock()
        self._sessions: set[asyncio.Task[None]] = set()

    async def url(self, request: StreamRequest) -> str:
        """Give the URL of a validated request: good once, and for a minute. Raises ResourceExhausted, Internal."""
        host, port = await self._address()
        token = self._tokens.issue(request)
        return f"http://{f'[{host}]' if ':' in host else host}:{port}/{_PATHS[type(request)]}/{token}"

    async def _address(self) -> tuple[str, int]:
        async with self._starting:
            if self._server is None:
                self._server = await self._listen()
        host, port = self._server.sockets[0].getsockname()[:2]
        return str(host), int(port)

    async def _listen(self) -> asyncio.Server:
        from shim.streaming.http import HttpProtocol  # noqa: PLC0415 - imported when first needed, see above

        try:
            return await asyncio.get_running_loop().create_server(
                lambda: HttpProtocol(self._serve, self._sessions), self._config.address, self._config.port
            )
        except OSError as error:
            where = f"{self._config.address}:{self._config.port}"
            raise Internal(f"streaming address {where} cannot be listened on: {error.strerror}; set [streaming]") from error

    async def _serve(self, exchange: Exchange) -> None:
        from shim.streaming import protocols  # noqa: PLC0415 - imported when first needed, see above
        from shim.streaming.http import NOT_FOUND, Refusal  # noqa: PLC0415 - as above

        kind, _, token = exchange.request.path.strip("/").partition("/")
        request = self._tokens.redeem(token)
        if request is None or _PATHS[type(request)] != kind:
            raise Refusal(NOT_FOUND, "the token is unknown, used or expired; ask the CRI for another")
        with structlog.contextvars.bound_contextvars(stream=kind):
            try:
                await protocols.serve(exchange, request, self._backend, protocols.Watch(self._config.idle_timeout))
            except (Refusal, asyncio.CancelledError):
                raise
            except Exception:
                log.exception("streaming failed unexpectedly")
                exchange.abort()

    async def close(self) -> None:
        """Stop to listen and end every session; processes that were started see their client go."""
        if self._server is not None:
            self._server.close()
        for session in list(self._sessions):
            session.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await asyncio.gather(*self._sessions, return_exceptions=True)
