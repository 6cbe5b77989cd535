"""Which fields of the CRI a run of the suite has sent or been given, so that a field that nobody looks at is found."""

from __future__ import annotations

import os
from fnmatch import fnmatchcase
from typing import TYPE_CHECKING, Any

import grpc
from google.protobuf.message import Message

from shim.gen.runtime.v1 import api_pb2

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from google.protobuf.descriptor import FieldDescriptor

NOT_JUDGED = {
    "Windows*": "of Windows nodes",
    "*.windows": "of Windows nodes",
    "Image.spec": "runtimes leave it empty, or repeat the id",
    "Image.pinned": "which images stay is the node's configuration; that others do not is judged",
    "RuntimeCondition.reason": "told of what is not ready, and the suite breaks no node",
    "RuntimeCondition.message": "told of what is not ready, and the suite breaks no node",
    "ImageSpec.runtime_handler": "with --handler",
    "RestorePodRequest.runtime_handler": "with --handler",
    "*.hugepage_limits": "where the node can limit huge pages",
    "HugepageLimit.*": "where the node can limit huge pages",
    "IDMapping.container_id": "0 is where the one range of a pod begins",
    "RestorePodResponse.*": "only where a node can save pods",
    "RestoredContainer.*": "only where a node can save pods",
}
"""Fields (MESSAGE.FIELD, with the wildcards of fnmatch(3)) that no test needs to send or see, each with its reason."""


def _walk(message: Message) -> Iterator[str]:
    """Give MESSAGE.FIELD of all that is set in a message and in those it holds."""
    for field, value in message.ListFields():
        yield f"{message.DESCRIPTOR.name}.{field.name}"
        for inner in _inner(field, value):
            yield from _walk(inner)


def _inner(field: FieldDescriptor, value: Any) -> list[Message]:
    if field.message_type is None or field.message_type.GetOptions().map_entry:
        return []
    return list(value) if field.is_repeated else [value]


class Seen(grpc.UnaryUnaryClientInterceptor, grpc.UnaryStreamClientInterceptor):  # type: ignore[type-arg]  # the stubs alone are generic
    """Notes the fields of requests and answers, each with the first test that met it."""

    def __init__(self) -> None:
        self.fields: dict[str, str] = {}

    def note(self, message: Any) -> None:
        """Note the fields of a message; bytes, which tests of broken messages send, have none."""
        if isinstance(message, Message):
            test = os.environ.get("PYTEST_CURRENT_TEST", "").partition(" ")[0]
            for name in _walk(message):
                self.fields.setdefault(name, test)

    def intercept_unary_unary(self, continuation: Callable[..., Any], details: Any, request: Any) -> Any:
        """Note a request and, when it has come, the answer."""
        self.note(request)
        call = continuation(details, request)
        call.add_done_callback(self._done)
        return call

    def _done(self, call: Any) -> None:
        if not call.cancelled() and call.exception() is None:
            self.note(call.result())

    def intercept_unary_stream(self, continuation: Callable[..., Any], details: Any, request: Any) -> Any:
        """Note a request and each message of the answer."""
        self.note(request)
        return _Noted(continuation(details, request), self.note)


class _Noted:
    """A streaming call whose messages are noted as they are read."""

    def __init__(self, call: Any, note: Callable[[Any], None]) -> None:
        self._call = call
        self._note = note

    def __getattr__(self, name: str) -> Any:
        return getattr(self._call, name)

    def __iter__(self) -> _Noted:
        return self

    def __next__(self) -> Any:
        message = next(self._call)
        self._note(message)
        return message


def every_field() -> list[str]:
    """Give MESSAGE.FIELD of the whole API."""
    return [
        f"{message.name}.{field.name}"
        for message in api_pb2.DESCRIPTOR.message_types_by_name.values()
        for field in message.fields
    ]


def excused(name: str) -> bool:
    """Say whether the table excuses a field."""
    return any(fnmatchcase(name, pattern) for pattern in NOT_JUDGED)
