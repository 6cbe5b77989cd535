"""Every enum of every request, alone, with a number that it does not have."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
from google.protobuf.message_factory import GetMessageClass

from shim.errors import InvalidArgument
from shim.gen.runtime.v1 import api_pb2
from shim.rpc.enums import check_enums

if TYPE_CHECKING:
    from collections.abc import Iterator

    from google.protobuf.descriptor import Descriptor

    Path = tuple[str, ...]

UNKNOWN = 99


def enums_of(message: Descriptor, above: Path = ()) -> Iterator[Path]:
    """Give the way to each enum below a message, written without the code that is judged."""
    for field in message.fields:
        if field.enum_type is not None:
            yield (*above, field.name)
        elif field.message_type is not None and not field.message_type.GetOptions().map_entry:
            yield from enums_of(field.message_type, (*above, field.name))


def requests() -> Iterator[tuple[str, Path]]:
    for service in api_pb2.DESCRIPTOR.services_by_name.values():
        for method in service.methods:
            for path in enums_of(method.input_type):
                yield method.input_type.name, path


CASES = sorted(set(requests()))


def filled(name: str, path: Path, value: int) -> Any:
    """Give a request in which only the enum at the end of `path` is set."""
    request = at = GetMessageClass(api_pb2.DESCRIPTOR.message_types_by_name[name])()
    for step in path[:-1]:
        inner = getattr(at, step)
        at = inner.add() if at.DESCRIPTOR.fields_by_name[step].is_repeated else inner
    setattr(at, path[-1], value)
    return request


def test_the_cri_has_them() -> None:
    assert ("ListPodSandboxRequest", ("filter", "state", "state")) in CASES
    assert ("CreateContainerRequest", ("config", "mounts", "propagation")) in CASES
    assert len(CASES) > 30


@pytest.mark.parametrize(("name", "path"), CASES)
def test_an_unknown_number_is_refused(name: str, path: Path) -> None:
    for number in (UNKNOWN, -1, 2**31 - 1):
        with pytest.raises(InvalidArgument) as caught:
            check_enums(filled(name, path, number))
        said = str(caught.value).replace("[0]", "")
        assert said.startswith(f"{'.'.join(path)} {number} is unknown; this runtime knows 0 to ")
    check_enums(filled(name, path, 1))
    check_enums(filled(name, path, 0))


def test_what_is_absent_is_no_fault() -> None:
    check_enums(api_pb2.ListPodSandboxRequest())
    check_enums(api_pb2.VersionRequest())
    check_enums(api_pb2.CreateContainerRequest(config=api_pb2.ContainerConfig(mounts=[api_pb2.Mount(), api_pb2.Mount()])))
