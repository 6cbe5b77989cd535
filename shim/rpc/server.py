"""The gRPC server: every RPC of every service is registered; those without a handler say so by name."""

from __future__ import annotations

import os
import re
from typing import TYPE_CHECKING, Any

import grpc.aio
from google.protobuf.message_factory import GetMessageClass

from shim.errors import Internal, Unimplemented
from shim.gen.runtime.v1 import api_pb2
from shim.gen.wherry.v1 import wherry_pb2
from shim.rpc import interceptor
from shim.rpc.image_service import ImageService
from shim.rpc.runtime_service import RuntimeService
from shim.rpc.wherry_service import WherryService

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from google.protobuf.descriptor import FileDescriptor, MethodDescriptor

    from shim.pod.node import Node

MESSAGE_LIMIT = 16 * 1024 * 1024
"""Bytes of one message; kubelet's own limit."""

_WORD = re.compile(r"(?<=[a-z0-9])(?=[A-Z])")


def make_server(node: Node) -> grpc.aio.Server:
    """Make the server with all services of a node; it is not listening yet."""
    options = [
        ("grpc.max_receive_message_length", MESSAGE_LIMIT),
        ("grpc.max_send_message_length", MESSAGE_LIMIT),
        ("grpc.so_reuseport", 0),
    ]
    server = grpc.aio.server(options=options)
    services = (
        (api_pb2.DESCRIPTOR, "RuntimeService", RuntimeService(node)),
        (api_pb2.DESCRIPTOR, "ImageService", ImageService(node)),
        (wherry_pb2.DESCRIPTOR, "WherryService", WherryService(node)),
    )
    server.add_generic_rpc_handlers(tuple(generic_handler(*service) for service in services))
    return server


def listen(server: grpc.aio.Server, path: str, group: int) -> None:
    """Bind the socket: 0660, root and `group` (-1: root's); a stale one is replaced. Raises Internal when that fails.

    The caller holds the lock of the state directory, so nobody serves on the old socket.
    """
    os.makedirs(os.path.dirname(path), 0o711, exist_ok=True)
    mask = os.umask(0o117)
    try:
        if os.path.lexists(path):
            os.unlink(path)
        server.add_insecure_port(f"unix://{path}")
        os.chown(path, 0, group)
    except (OSError, RuntimeError) as error:
        raise Internal(f"socket {path} cannot be listened on: {error}") from error
    finally:
        os.umask(mask)


def generic_handler(file: FileDescriptor, service: str, servicer: object) -> grpc.GenericRpcHandler[Any, Any]:
    """Give gRPC's handler of one service; `servicer` has a method (in snake case) for each RPC that is served."""
    descriptor = file.services_by_name[service]
    handlers = {method.name: _method_handler(method, servicer) for method in descriptor.methods}
    return grpc.method_handlers_generic_handler(descriptor.full_name, handlers)


def _method_handler(method: MethodDescriptor, servicer: object) -> grpc.RpcMethodHandler[Any, Any]:
    handler = getattr(servicer, snake_case(method.name), None)
    codec: dict[str, Any] = {
        "request_deserializer": GetMessageClass(method.input_type).FromString,
        "response_serializer": GetMessageClass(method.output_type).SerializeToString,
    }
    if method.server_streaming:
        wrapped: Any = interceptor.stream(method.name, handler or _unimplemented_stream(method.name))
        make = grpc.stream_stream_rpc_method_handler if method.client_streaming else grpc.unary_stream_rpc_method_handler
    else:
        wrapped = interceptor.unary(method.name, handler or _unimplemented(method.name))
        make = grpc.stream_unary_rpc_method_handler if method.client_streaming else grpc.unary_unary_rpc_method_handler
    return make(wrapped, **codec)


def snake_case(name: str) -> str:
    """Give the method that serves an RPC: RunPodSandbox is run_pod_sandbox."""
    return _WORD.sub("_", name).lower()


def _unimplemented(name: str) -> Any:
    async def refuse(_request: Any) -> Any:
        raise Unimplemented(f"{name} is not served by this version of wherryd")

    return refuse


def _unimplemented_stream(name: str) -> Any:
    async def refuse(_request: Any) -> AsyncIterator[Any]:
        raise Unimplemented(f"{name} is not served by this version of wherryd")
        yield  # the statement that makes this a generator

    return refuse
