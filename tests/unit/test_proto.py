"""The wire contract: every service, message, field number, type and enum of CRI v1 is there, and nothing else."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from shim.gen.runtime.v1 import api_pb2
from shim.gen.wherry.v1 import wherry_pb2

if TYPE_CHECKING:
    from google.protobuf.descriptor import Descriptor, EnumDescriptor, FieldDescriptor

FACTS: dict[str, Any] = json.loads((Path(__file__).parent / "data" / "cri-v1.json").read_text())
TYPES = {
    1: "double",
    3: "int64",
    4: "uint64",
    5: "int32",
    8: "bool",
    9: "string",
    12: "bytes",
    13: "uint32",
}
"""Scalar types by their number in descriptor.proto."""
FILE = api_pb2.DESCRIPTOR


def _type(field: FieldDescriptor) -> str:
    inner: Descriptor | EnumDescriptor | None = field.message_type or field.enum_type
    if field.message_type is not None and field.message_type.GetOptions().map_entry:
        key, value = (field.message_type.fields_by_name[name] for name in ("key", "value"))
        return f"map<{_type(key)}, {_type(value)}>"
    kind = inner.full_name.removeprefix("runtime.v1.") if inner is not None else TYPES[field.type]
    return f"repeated {kind}" if field.is_repeated else kind


def _enums() -> dict[str, EnumDescriptor]:
    nested = {
        f"{message.name}.{enum.name}": enum for message in FILE.message_types_by_name.values() for enum in message.enum_types
    }
    return dict(FILE.enum_types_by_name) | nested


def test_counts() -> None:
    services = FILE.services_by_name
    assert {name: len(service.methods) for name, service in services.items()} == {"RuntimeService": 37, "ImageService": 6}
    assert len(FILE.message_types_by_name) == len(FACTS["messages"]) == 175
    assert FILE.package == "runtime.v1"


@pytest.mark.parametrize("name", FACTS["services"])
def test_service(name: str) -> None:
    found = {
        method.name: f"{method.input_type.name} -> {'stream ' * method.server_streaming}{method.output_type.name}"
        for method in FILE.services_by_name[name].methods
    }
    assert found == FACTS["services"][name]
    assert not any(method.client_streaming for method in FILE.services_by_name[name].methods)


def test_no_message_is_missing_or_ours() -> None:
    assert set(FILE.message_types_by_name) == set(FACTS["messages"])


@pytest.mark.parametrize("name", FACTS["messages"])
def test_message(name: str) -> None:
    message = FILE.message_types_by_name[name]
    assert {field.name: f"{field.number} {_type(field)}" for field in message.fields} == FACTS["messages"][name]


def test_enums() -> None:
    found = {name: {value.name: value.number for value in enum.values} for name, enum in _enums().items()}
    assert found == FACTS["enums"]


def test_options() -> None:
    """Credentials are kept out of logged messages, and old fields are marked."""
    marked: dict[str, list[str]] = {"redacted": [], "deprecated": []}
    for message in FILE.message_types_by_name.values():
        for field in message.fields:
            options = field.GetOptions()
            marked["redacted"] += [f"{message.name}.{field.name}"] if options.debug_redact else []
            marked["deprecated"] += [f"{message.name}.{field.name}"] if options.deprecated else []
    assert marked == {"redacted": FACTS["redacted"], "deprecated": FACTS["deprecated"]}


def test_values_that_surprise() -> None:
    assert api_pb2.KeyValue(key="A", value=b"\xff\xfe").value == b"\xff\xfe"  # not every variable is text
    assert api_pb2.Signal.Value("SIGNAL_SIGTERM") == 23  # not the number of the system's signal
    assert api_pb2.ImageSpec.DESCRIPTOR.fields_by_name["user_specified_image"].number == 18
    assert api_pb2.PodSandboxState.Value("SANDBOX_READY") == 0  # a filter needs a wrapper to ask for it


def test_own_service() -> None:
    methods = wherry_pb2.DESCRIPTOR.services_by_name["WherryService"].methods
    shapes = {method.name: (method.client_streaming, method.server_streaming) for method in methods}
    assert shapes == {
        "Info": (False, False),
        "Load": (True, False),
        "Save": (False, True),
        "Tag": (False, False),
        "Prune": (False, False),
        "PullProgress": (False, True),
    }
    password = wherry_pb2.PullProgressRequest.DESCRIPTOR.fields_by_name["password"]
    assert password.GetOptions().debug_redact
