"""Put a container's config.json together; the parts each have a module."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from shim.container.spec.inputs import BuiltSpec
from shim.errors import Unimplemented

if TYPE_CHECKING:
    from shim.container.spec.inputs import SpecInputs


def build_spec(inputs: SpecInputs) -> dict[str, Any]:
    """Give the container's config.json (OCI runtime-spec 1.2) as plain JSON values; see `build` for errors.

    Bytes of CRI environment values that are not UTF-8 are kept as lone surrogates ("surrogateescape"): json.dumps writes
    them as \\udcXX, json.loads gives them back, and os.fsencode makes the original bytes of them for execve.
    """
    return build(inputs).config


def build(inputs: SpecInputs) -> BuiltSpec:
    """Give the config and the notes on what this host limits; raise InvalidArgument naming the CRI field at fault."""
    raise Unimplemented("not built yet")
