"""An NRI connection without a socket: bytes in, events out; calls in, bytes out. The same for both sides.

Each side calls on one connection of the multiplexer and serves on the other. Who cannot be served is answered here; what
breaks the protocol raises ProtocolError, after which the session is of no use.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from google.protobuf.message import DecodeError

from shim.gen.ttrpc.v1 import ttrpc_pb2
from shim.nri import mux, ttrpc
from shim.nri.errors import UNIMPLEMENTED, ProtocolError

if TYPE_CHECKING:
    from collections.abc import Iterator

INVALID_ARGUMENT = 3
RESOURCE_EXHAUSTED = 8
MOST_STREAM = 2**32 - 1


@dataclass(frozen=True, slots=True)
class Answered:
    """A call of ours has its answer; `code` is 0, or a gRPC status code."""

    stream: int
    payload: bytes
    code: int = 0
    message: str = ""


@dataclass(frozen=True, slots=True)
class Called:
    """The peer calls us: to be answered with `answer` or `refuse`."""

    stream: int
    service: str
    method: str
    payload: bytes
    timeout_nano: int


class Session:
    """One side of a connection: the runtime's, or with `plugin=True` the plugin's."""

    def __init__(self, *, plugin: bool = False) -> None:
        self._calls_on = mux.RUNTIME_SERVICE if plugin else mux.PLUGIN_SERVICE
        self._serves_on = mux.PLUGIN_SERVICE if plugin else mux.RUNTIME_SERVICE
        self._demux = mux.Demux()
        self._answers = ttrpc.Decoder()
        self._requests = ttrpc.Decoder()
        self._next = 1
        self._waiting: set[int] = set()
        self._serving: set[int] = set()
        self._last = 0
        self._out = bytearray()

    def call(self, service: str, method: str, payload: bytes, timeout_nano: int = 0) -> tuple[int, bytes]:
        """Give the stream of a new call and the bytes to send; raise Oversized, with which nothing has happened."""
        request = ttrpc_pb2.Request(service=service, method=method, payload=payload, timeout_nano=timeout_nano)
        stream = self._next
        if stream > MOST_STREAM:
            raise ProtocolError("the connection has no numbers left for calls")
        message = ttrpc.encode(stream, ttrpc.REQUEST, request.SerializeToString())
        self._next += 2
        self._waiting.add(stream)
        return stream, mux.frames(self._calls_on, message)

    def forget(self, stream: int) -> None:
        """Do not wait for an answer any more; one that comes is passed over."""
        self._waiting.discard(stream)

    def answer(self, stream: int, payload: bytes) -> bytes:
        """Give the bytes that answer a call of the peer's; raise Oversized."""
        return self._reply(stream, ttrpc_pb2.Response(payload=payload))

    def refuse(self, stream: int, code: int, message: str) -> bytes:
        """Give the bytes that refuse a call of the peer's with a gRPC status code."""
        return self._reply(stream, _refusal(code, message))

    def feed(self, data: bytes) -> Iterator[Answered | Called]:
        """Take bytes and give what they say; send `pending()` afterwards. Raises ProtocolError."""
        for connection, payload in self._demux.feed(data):
            if connection == self._calls_on:
                for message in self._answers.feed(payload):
                    yield from self._answered(message)
            elif connection == self._serves_on:
                for message in self._requests.feed(payload):
                    yield from self._called(message)

    def pending(self) -> bytes:
        """Give, and forget, the bytes that answer what could not be served."""
        out = bytes(self._out)
        self._out.clear()
        return out

    def _answered(self, message: ttrpc.Message) -> Iterator[Answered]:
        if message.stream not in self._waiting:
            return  # nobody waits for it any more
        if message.kind != ttrpc.RESPONSE:
            raise ProtocolError(f"a message of type {message.kind} came where an answer was expected")
        self._waiting.discard(message.stream)
        if message.oversized:
            yield Answered(message.stream, b"", RESOURCE_EXHAUSTED, "the answer is larger than ttrpc carries")
            return
        try:
            response = ttrpc_pb2.Response.FromString(message.data)
        except DecodeError as error:
            raise ProtocolError(f"an answer cannot be read: {error}") from error
        yield Answered(message.stream, response.payload, response.status.code, response.status.message)

    def _called(self, message: ttrpc.Message) -> Iterator[Called]:
        if message.oversized:
            self._unserved(message, RESOURCE_EXHAUSTED, "the message is larger than ttrpc carries")
        elif message.kind == ttrpc.DATA or message.flags & ttrpc.REMOTE_OPEN:
            self._unserved(message, UNIMPLEMENTED, "streams are not served")
        elif message.kind == ttrpc.REQUEST:
            yield from self._request(message)

    def _request(self, message: ttrpc.Message) -> Iterator[Called]:
        if message.stream % 2 != 1 or message.stream <= self._last:
            self._unserved(message, INVALID_ARGUMENT, "the number of a stream must be odd and larger than the last")
            return
        self._last = message.stream
        try:
            request = ttrpc_pb2.Request.FromString(message.data)
        except DecodeError:
            self._unserved(message, INVALID_ARGUMENT, "the request cannot be read")
            return
        self._serving.add(message.stream)
        yield Called(message.stream, request.service, request.method, request.payload, request.timeout_nano)

    def _unserved(self, message: ttrpc.Message, code: int, text: str) -> None:
        self._out += self._framed(message.stream, _refusal(code, text))

    def _reply(self, stream: int, response: ttrpc_pb2.Response) -> bytes:
        framed = self._framed(stream, response)
        self._serving.remove(stream)
        return framed

    def _framed(self, stream: int, response: ttrpc_pb2.Response) -> bytes:
        return mux.frames(self._serves_on, ttrpc.encode(stream, ttrpc.RESPONSE, response.SerializeToString()))


def _refusal(code: int, message: str) -> ttrpc_pb2.Response:
    return ttrpc_pb2.Response(status=ttrpc_pb2.Status(code=code, message=message))
