"""Around every RPC: bind what it is about to the log, map errors to gRPC, log them once.

Handlers raise shim.errors; nothing else in the daemon knows gRPC's status codes.
"""

from __future__ import annotations

import asyncio
import errno
import time
from typing import TYPE_CHECKING, Any

import grpc
import structlog
from google.protobuf.message import Message

from shim.errors import WherryError
from shim.rpc.enums import check_enums

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable

    Unary = Callable[[Any], Awaitable[Any]]
    Stream = Callable[[Any], AsyncIterator[Any]]

log = structlog.get_logger()

QUIET = frozenset({"NOT_FOUND", "UNIMPLEMENTED"})
"""Codes that are everyday answers, logged at debug."""
MESSAGE_LIMIT = 8 * 1024
"""Characters of a message that go over the wire: gRPC carries it in a header."""


def unary(name: str, handler: Unary) -> Callable[[Any, grpc.aio.ServicerContext[Any, Any]], Awaitable[Any]]:
    """Wrap the handler of a call with one answer."""

    async def call(request: Any, context: grpc.aio.ServicerContext[Any, Any]) -> Any:
        started = time.perf_counter()
        with structlog.contextvars.bound_contextvars(rpc=name, **_subject(request)):
            try:
                if isinstance(request, Message):  # and not a stream of them
                    check_enums(request)
                response = await handler(request)
            except asyncio.CancelledError:
                log.info("call cancelled by the client", ms=_since(started))
                raise
            except Exception as error:  # noqa: BLE001 - every error becomes a status
                code, message = status_of(error, _since(started))
            else:
                log.debug("call served", ms=_since(started))
                return response
        return await context.abort(code, message)

    return call


def stream(name: str, handler: Stream) -> Callable[[Any, grpc.aio.ServicerContext[Any, Any]], AsyncIterator[Any]]:
    """Wrap the handler of a call with a stream of answers; the request may be a stream, too."""

    async def call(request: Any, context: grpc.aio.ServicerContext[Any, Any]) -> AsyncIterator[Any]:
        started = time.perf_counter()
        with structlog.contextvars.bound_contextvars(rpc=name):
            try:
                if isinstance(request, Message):
                    check_enums(request)
                answers = handler(request)
                await context.send_initial_metadata(())  # a client that has it knows that it is being served
                async for response in answers:
                    yield response
            except Exception as error:  # noqa: BLE001 - every error becomes a status
                code, message = status_of(error, _since(started))
            else:
                return
        await context.abort(code, message)

    return call


def status_of(error: Exception, milliseconds: float) -> tuple[grpc.StatusCode, str]:
    """Log an error and give its status; one that is not of our tree is our fault."""
    if not isinstance(error, WherryError):
        if isinstance(error, OSError):
            log.error("call failed", error=_clip(f"{type(error).__name__}: {error}"), ms=milliseconds)
            if error.errno in {errno.ENOSPC, errno.EDQUOT}:
                return grpc.StatusCode.RESOURCE_EXHAUSTED, _clip(f"{error}: make room where root, state and logs lie")
            return grpc.StatusCode.INTERNAL, _clip(f"{error}")
        log.error("call failed unexpectedly", ms=milliseconds, exc_info=error)
        return grpc.StatusCode.INTERNAL, _clip(f"unexpected {type(error).__name__}: {error}")
    level = log.debug if error.code in QUIET else log.warning
    message = _clip(str(error))
    level("call failed", code=error.code, error=message, ms=milliseconds)
    return getattr(grpc.StatusCode, error.code, grpc.StatusCode.UNKNOWN), message


def _clip(message: str) -> str:
    return message if len(message) <= MESSAGE_LIMIT else message[:MESSAGE_LIMIT] + " …"


def _since(started: float) -> float:
    return round((time.perf_counter() - started) * 1000, 2)


def _subject(request: Any) -> dict[str, str]:
    """Give the pod and the container that a request names."""
    subject = {}
    for field, name in (("pod_sandbox_id", "pod"), ("container_id", "container")):
        value = getattr(request, field, "")
        if value:
            subject[name] = value
    return subject
