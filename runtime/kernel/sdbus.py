"""libsystemd.so.0's sd-bus, as far as talking to systemd needs it (sd-bus(3)); loaded when first used."""

from __future__ import annotations

import _ctypes
import os
import sys
from errno import ECONNRESET, ENOTCONN

from runtime.errors import KernelFault
from runtime.kernel.libc import buffer, prototype

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any, Self

LIBRARY = "libsystemd.so.0"
TIMEOUT_US = 30_000_000
"""Microseconds systemd has to answer one call."""
LOST = (ECONNRESET, ENOTCONN)
"""What a call says when the bus went away."""

_SIGNATURES = {  # the letters are those of runtime.kernel.libc; a char travels as an int, a uint64_t as a long
    "sd_bus_open_system": "p",
    "sd_bus_open_user": "p",
    "sd_bus_new": "p",
    "sd_bus_set_address": "ps",
    "sd_bus_start": "p",
    "sd_bus_flush_close_unref": "p",
    "sd_bus_message_new_method_call": "ppssss",
    "sd_bus_message_append_basic": "pip",
    "sd_bus_message_open_container": "pis",
    "sd_bus_message_close_container": "p",
    "sd_bus_message_enter_container": "pis",
    "sd_bus_message_read_basic": "pip",
    "sd_bus_message_is_signal": "pss",
    "sd_bus_message_unref": "p",
    "sd_bus_call": "pplpp",
    "sd_bus_error_free": "p",
    "sd_bus_get_fd": "p",
    "sd_peer_get_owner_uid": "ip",
    "sd_bus_process": "pp",
    "sd_bus_wait": "pl",
}
_SIZES = {"y": 1, "n": 2, "q": 2, "i": 4, "u": 4, "b": 4, "x": 8, "t": 8}
_TEXTS = "sog"
_functions: dict[str, Callable[..., int]] = {}


class BusError(Exception):
    """A call that failed: `name` is D-Bus's name of the error, "" when the library says `errno` itself."""

    def __init__(self, name: str, message: str, errno: int) -> None:
        super().__init__(message)
        self.name = name
        self.errno = errno


def _call(name: str, *arguments: Any) -> int:
    """Call a function of the library; raise BusError for the negative errno of a failure, KernelFault without the library."""
    if not _functions:
        _load()
    result = int(_functions[name](*arguments)) & 0xFFFFFFFF
    if result >= 1 << 31:
        number = (1 << 32) - result
        raise BusError("", os.strerror(number).lower(), number)
    return result


def _load() -> None:
    try:
        handle = _ctypes.dlopen(LIBRARY, os.RTLD_NOW)
        loaded = {name: prototype(signature)(_ctypes.dlsym(handle, name)) for name, signature in _SIGNATURES.items()}
    except OSError as error:
        raise KernelFault(
            f"{LIBRARY} cannot be loaded ({error}): install libsystemd0, or use cgroupfs",
            feature="libsystemd",
            step="speak to systemd",
        ) from error
    _functions.update(loaded)


def _out() -> Any:
    """Give room for one pointer."""
    return buffer(8)


def _taken(room: Any) -> int:
    return int.from_bytes(room.raw, sys.byteorder)


def _text(address: int) -> str:
    from ctypes import string_at

    return string_at(address).decode("utf-8", "surrogateescape") if address else ""


class Bus:
    """A connection, closed at the end of its context."""

    def __init__(self, *, user: bool = False, address: str = "") -> None:
        """Connect to the user's bus, to the system's, or to the peer at an address; raise BusError."""
        room = _out()
        if address:
            _call("sd_bus_new", room)
        else:
            _call("sd_bus_open_user" if user else "sd_bus_open_system", room)
        self._bus = _taken(room)
        if address:
            _call("sd_bus_set_address", self._bus, address.encode())
            _call("sd_bus_start", self._bus)

    def __enter__(self) -> Self:
        """Be a context."""
        return self

    def __exit__(self, *_error: object) -> None:
        """Close the connection."""
        _functions["sd_bus_flush_close_unref"](self._bus)

    def peer_owner(self) -> int:
        """Give the uid of the user whose part of the system's cgroups the bus runs in (sd_peer_get_owner_uid(3)), else 0."""
        room = buffer(4)
        try:
            _call("sd_peer_get_owner_uid", _call("sd_bus_get_fd", self._bus), room)
        except BusError:
            return 0
        return int.from_bytes(room.raw, sys.byteorder)

    def call(self, target: tuple[str, str, str], method: str, *arguments: tuple[str, Any]) -> Message:
        """Call `method` of a target (destination, path, interface) with (signature, value) arguments; give the reply."""
        room = _out()
        destination, path, interface = (part.encode() for part in target)
        _call("sd_bus_message_new_method_call", self._bus, room, destination, path, interface, method.encode())
        with Message(_taken(room)) as message:
            for signature, value in arguments:
                message.append(signature, value)
            reply, error = _out(), buffer(24)  # struct sd_bus_error: name, message, one int
            try:
                _call("sd_bus_call", self._bus, message.address, TIMEOUT_US, error, reply)
            except BusError as failure:
                raise _told(error, failure) from None
        return Message(_taken(reply))

    def next_message(self, wait_us: int) -> Message | None:
        """Give the next message nobody asked for, such as a signal; None when the time is over. Raises BusError."""
        room = _out()
        while True:
            if _call("sd_bus_process", self._bus, room):
                address = _taken(room)
                if address:
                    return Message(address)
            elif not _call("sd_bus_wait", self._bus, wait_us):
                return None


def _told(error: Any, failure: BusError) -> BusError:
    name, text = (int.from_bytes(error.raw[at : at + 8], sys.byteorder) for at in (0, 8))
    told = BusError(_text(name), _text(text), failure.errno) if name else failure
    _functions["sd_bus_error_free"](error)
    return told


class Message:
    """A message being written or read, given back at the end of its context."""

    def __init__(self, address: int) -> None:
        self.address = address

    def __enter__(self) -> Self:
        """Be a context."""
        return self

    def __exit__(self, *_error: object) -> None:
        """Give it back."""
        _functions["sd_bus_message_unref"](self.address)

    def append(self, signature: str, value: Any) -> None:
        """Append one value of a single complete type; a variant is a (signature, value) pair."""
        kind = signature[0]
        if kind in _TEXTS:
            _call("sd_bus_message_append_basic", self.address, ord(kind), value.encode("utf-8", "surrogateescape"))
        elif kind == "a":
            self._within("a", signature[1:], [(signature[1:], one) for one in value])
        elif kind == "(":
            members = signature[1:-1]
            self._within("r", members, list(zip(members, value, strict=True)))
        elif kind == "v":
            self._within("v", value[0], [value])
        else:
            self._append_number(kind, value)

    def _append_number(self, kind: str, value: Any) -> None:
        from struct import pack

        size = _SIZES.get(kind, 0)
        data = int(value).to_bytes(size, sys.byteorder, signed=value < 0) if size else pack("=d", value)
        _call("sd_bus_message_append_basic", self.address, ord(kind), data)

    def _within(self, kind: str, contents: str, values: list[tuple[str, Any]]) -> None:
        _call("sd_bus_message_open_container", self.address, ord(kind), contents.encode())
        for signature, value in values:
            self.append(signature, value)
        _call("sd_bus_message_close_container", self.address)

    def is_signal(self, interface: str, member: str) -> bool:
        """Tell whether it is that signal."""
        return bool(_call("sd_bus_message_is_signal", self.address, interface.encode(), member.encode()))

    def read(self, signature: str) -> Any:
        """Read the next value: a text or an unsigned number."""
        room = _out()
        _call("sd_bus_message_read_basic", self.address, ord(signature), room)
        return _text(_taken(room)) if signature in _TEXTS else int.from_bytes(room.raw[: _SIZES[signature]], sys.byteorder)

    def read_variant(self, signature: str) -> Any:
        """Read the next value out of a variant of that type."""
        _call("sd_bus_message_enter_container", self.address, ord("v"), signature.encode())
        return self.read(signature)
