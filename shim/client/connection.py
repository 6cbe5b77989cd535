"""The connection to a CRI endpoint: the only place in the client that knows gRPC."""

from __future__ import annotations

import os
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import grpc

from shim.client.errors import ClientError, NotFoundError
from shim.gen.runtime.v1 import api_pb2_grpc
from shim.gen.wherry.v1 import wherry_pb2_grpc

if TYPE_CHECKING:
    from collections.abc import Iterator

DEFAULT_ADDRESS = "unix:///run/wherry/wherry.sock"
VARIABLES = ("WHERRY_ADDRESS", "CONTAINER_RUNTIME_ENDPOINT")
"""Environment variables that name the endpoint, the first one set wins; the second is the one crictl reads."""
MESSAGE_LIMIT = 64 * 1024 * 1024
"""Bytes of one message: ExecSync may answer with 16 MiB for each stream."""


def default_address() -> str:
    """Give the endpoint that is used when the command line names none."""
    return next((value for name in VARIABLES if (value := os.environ.get(name))), DEFAULT_ADDRESS)


class Connection:
    """Stubs of the services of one endpoint (`unix:///path`, `/path`, or any gRPC target)."""

    def __init__(self, address: str) -> None:
        self.address = f"unix://{address}" if address.startswith("/") else address
        options = [("grpc.max_receive_message_length", MESSAGE_LIMIT), ("grpc.max_send_message_length", MESSAGE_LIMIT)]
        self._channel = grpc.insecure_channel(self.address, options=options)
        # Generated code has no annotations for stubs.
        self.runtime: Any = api_pb2_grpc.RuntimeServiceStub(self._channel)  # type: ignore[no-untyped-call]  # generated
        self.images: Any = api_pb2_grpc.ImageServiceStub(self._channel)  # type: ignore[no-untyped-call]  # generated
        self.wherry: Any = wherry_pb2_grpc.WherryServiceStub(self._channel)  # type: ignore[no-untyped-call]  # generated

    def close(self) -> None:
        """Close the connection."""
        self._channel.close()


class UnservedError(Exception):
    """The endpoint does not serve an RPC: another daemon than wherryd, or an older one."""


@contextmanager
def unserved() -> Iterator[None]:
    """Turn gRPC's UNIMPLEMENTED into UnservedError, for callers that know another way."""
    try:
        yield
    except grpc.RpcError as error:
        if _code(error) is grpc.StatusCode.UNIMPLEMENTED:
            raise UnservedError(_details(error)) from error
        raise


@contextmanager
def plain_errors(address: str) -> Iterator[None]:
    """Turn gRPC errors into ClientError, with a hint where one helps."""
    try:
        yield
    except grpc.RpcError as error:
        raise _translate(error, address) from None


def _translate(error: grpc.RpcError, address: str) -> ClientError:
    code, details = _code(error), _details(error)
    if code is grpc.StatusCode.UNAVAILABLE and "connect" in details.lower():
        return ClientError(_unreachable(address))
    if code is grpc.StatusCode.UNIMPLEMENTED:
        return ClientError(f"{address} does not serve this: {details}")
    if code is grpc.StatusCode.NOT_FOUND:
        return NotFoundError(details)
    return ClientError(details or code.name.lower().replace("_", " "))


def _unreachable(address: str) -> str:
    path = address.removeprefix("unix://")
    if address.startswith("unix:") and os.path.exists(path) and not os.access(path, os.R_OK | os.W_OK):
        return f"may not open {path}: run wherry as root or as a member of the socket's group"
    return f"cannot reach {address}: is the daemon running, and is this its address (--address, WHERRY_ADDRESS)?"


def _code(error: grpc.RpcError) -> grpc.StatusCode:
    code = error.code() if isinstance(error, grpc.Call) else grpc.StatusCode.UNKNOWN
    return code if isinstance(code, grpc.StatusCode) else grpc.StatusCode.UNKNOWN


def _details(error: grpc.RpcError) -> str:
    return str(error.details() or "") if isinstance(error, grpc.Call) else str(error)
