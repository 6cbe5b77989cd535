"""The faults of the network package, one tree, and CNI's error object.

    CniFault            anything; `code` is the spec's error code
    ├ ConfigFault       a network configuration is wrong (7); names the file and the JSON pointer
    ├ Malformed         a JSON value of the wrong form (6); names the pointer, caught by who knows the document
    ├ VersionFault      no common protocol version (1)
    └ PluginFault       a plugin refused or failed; carries its own code, or ours when it did not give one
      └ PluginTimeout   a plugin did not finish in its time and was killed with everything it started

A plugin raises CniFault to answer with an error object; the client raises PluginFault for what a plugin answered. Messages
are lower case, carry no full stop, and name the object, the step and what to do.
"""

from __future__ import annotations

from enum import IntEnum
from typing import Any


class Code(IntEnum):
    """Error codes of the CNI specification, section "Error"; codes from 100 on belong to plugins."""

    INCOMPATIBLE_VERSION = 1
    UNSUPPORTED_FIELD = 2
    UNKNOWN_CONTAINER = 3
    INVALID_ENVIRONMENT = 4
    IO_FAILURE = 5
    DECODING_FAILURE = 6
    INVALID_CONFIG = 7
    TRY_AGAIN_LATER = 11
    PLUGIN_NOT_AVAILABLE = 50
    PLUGIN_NOT_AVAILABLE_LIMITED = 51
    INTERNAL = 999


class CniFault(Exception):  # noqa: N818 - a fault is what the project calls it
    """Base of the tree: `code` and `msg` as in CNI's error object, `details` for a longer text."""

    def __init__(self, msg: str, *, code: int = Code.INTERNAL, details: str = "") -> None:
        super().__init__(f"{msg} ({details})" if details else msg)
        self.code = int(code)
        self.msg = msg
        self.details = details

    def to_json(self, version: str) -> dict[str, Any]:
        """Give the error object a plugin writes to its standard output."""
        value: dict[str, Any] = {"cniVersion": version, "code": self.code, "msg": self.msg}
        if self.details:
            value["details"] = self.details
        return value


class ConfigFault(CniFault):
    """A network configuration is wrong: `file` ("" when it came from memory) and `pointer` (RFC 6901) say where."""

    def __init__(self, msg: str, *, file: str = "", pointer: str = "") -> None:
        where = ":".join(part for part in (file, pointer) if part)
        super().__init__(f"{where}: {msg}" if where else msg, code=Code.INVALID_CONFIG)
        self.file = file
        self.pointer = pointer


class Malformed(CniFault):
    """A JSON value of the wrong form; `pointer` says where in its document, `reason` what was expected."""

    def __init__(self, reason: str, pointer: str = "") -> None:
        super().__init__(f"{pointer or '/'}: {reason}", code=Code.DECODING_FAILURE)
        self.reason = reason
        self.pointer = pointer


class VersionFault(CniFault):
    """The configuration and a plugin (or this client) have no protocol version in common."""

    def __init__(self, msg: str, *, details: str = "") -> None:
        super().__init__(msg, code=Code.INCOMPATIBLE_VERSION, details=details)


class PluginFault(CniFault):
    """The plugin `plugin` failed `command`; `code` is its own when it answered with an error object."""

    def __init__(self, msg: str, *, plugin: str, command: str, code: int = Code.INTERNAL, details: str = "") -> None:
        super().__init__(f"plugin {plugin} failed {command}: {msg}", code=code, details=details)
        self.plugin = plugin
        self.command = command


class PluginTimeout(PluginFault):
    """The plugin ran longer than it was given; its process group has been killed."""
