"""Packet rules through nftables, without starting a program: libnftables for changes, netlink for lookups.

A plugin owns one Table. Its rules are written once and look into maps; an attachment is elements in these maps, each with a
comment that names its owner. So attaching and detaching are one atomic change whose cost does not grow with the number of
pods, and garbage can be told from what is in use. With its last element a table goes.

Measured: a change of elements takes 0.1 ms through libnftables, a refused transaction 15 ms (the kernel waits for a grace
period to undo it), therefore what can be known before is looked up before. Source: libnftables(3), nft(8).
"""

from __future__ import annotations

import contextlib
import ctypes
import errno
import fcntl
import hashlib
import os
import re
import struct
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from cni.errors import CniFault, Code
from cni.netlink import NETLINK_NETFILTER, NetlinkSocket, attribute_list, attributes, text

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence

_GETSETELEM: Final = 10 << 8 | 13  # NFNL_SUBSYS_NFTABLES, NFT_MSG_GETSETELEM
_FAMILY_INET: Final = 1
_LIST_TABLE, _LIST_SET, _LIST_ELEMENTS, _ELEMENT_KEY, _ELEMENT_USERDATA, _VALUE = 1, 2, 3, 1, 6, 1
_GENMSG = struct.Struct("=BBH")
_MAX_COMMENT: Final = 120  # NFTNL_UDATA_COMMENT_MAXLEN is 128, with its zero
_MAX_SAID: Final = 500
_PLAIN = re.compile(r"[A-Za-z0-9_.\-]+")


class Conflict(CniFault):
    """An element is there already with another value."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Element:
    """One element to be added: key and value in nft's syntax ("" for a set), the comment names its owner."""

    map: str
    key: str
    value: str
    owner: str

    def __str__(self) -> str:
        value = f" : {self.value}" if self.value else ""
        return f'{{ {self.key} comment "{self.owner}"{value} }}'


@dataclass(frozen=True, slots=True, kw_only=True)
class Table:
    """A table of the inet family: `setup` makes it, anew or once more; `maps` gives the decoder of each map's keys."""

    name: str
    setup: str
    maps: dict[str, Callable[[bytes], str]]

    def add(self, elements: Sequence[Element], chains: str = "") -> None:
        """Add all of `elements` or none; `chains` is a script for chains they jump to, run when they are not there.

        Raises Conflict when a key is taken by another value.
        """
        change = "".join(f"add element inet {self.name} {element.map} {element}\n" for element in elements)
        with exclusive():
            try:
                _run(change)
            except Conflict:
                raise
            except CniFault:
                _run(self.setup + chains + change)

    def remove(self, matches: Callable[[str], bool], hint: str = "") -> None:
        """Remove every element whose owner `matches`, and the table when nothing is left; nothing there is no error.

        `hint` is an owner: messages of the kernel that do not hold it are then skipped undecoded.
        """
        with exclusive():
            keys: list[tuple[str, str]] = []
            left = 0
            for name, decode in self.maps.items():
                found, others = _owned(self.name, name, matches, hint.encode())
                keys += [(name, decode(key)) for key in found]
                left += others
            if not left:
                if _exists(self.name, next(iter(self.maps))):
                    _run(f"delete table inet {self.name}\n")
            elif keys:
                _run("".join(f"delete element inet {self.name} {name} {{ {key} }}\n" for name, key in keys))

    def owned(self, owner: str) -> set[tuple[str, str]]:
        """Give map and key of every element of `owner`."""
        found = set()
        for name, decode in self.maps.items():
            keys, _others = _owned(self.name, name, owner.__eq__, owner.encode())
            found |= {(name, decode(key)) for key in keys}
        return found


def owner(network: str, container_id: str, ifname: str) -> str:
    """Name an attachment in a comment: in words when nft's grammar and length allow, by digest otherwise."""
    words = f"{network} {container_id} {ifname}"
    if len(words) <= _MAX_COMMENT and all(_PLAIN.fullmatch(word) for word in (network, container_id, ifname)):
        return words
    return f"{_prefix_of_digest(network)}{_digest(words)}"


def stale(network: str, keep: Iterable[tuple[str, str]]) -> Callable[[str], bool]:
    """Give a predicate: the owner is an attachment of `network`, and none of `keep` (container id, interface name)."""
    kept = {owner(network, container_id, ifname) for container_id, ifname in keep}
    prefixes = (f"{network} ", _prefix_of_digest(network))
    return lambda one: one.startswith(prefixes) and one not in kept


def available() -> None:
    """Raise CniFault (code 50) when nftables cannot be used on this host."""
    _library()


@contextlib.contextmanager
def exclusive() -> Iterator[None]:
    """Hold the lock for rules of the current network namespace.

    It is a flock on the namespace's own file: nothing to create, name or clean, and one lock a namespace.
    """
    descriptor = os.open("/proc/thread-self/ns/net", os.O_RDONLY | os.O_CLOEXEC)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)


def address4(key: bytes) -> str:
    """Decode a key of type ipv4_addr."""
    return ".".join(str(byte) for byte in key[:4])


def address6(key: bytes) -> str:
    """Decode a key of type ipv6_addr."""
    return ":".join(key[n : n + 2].hex() for n in range(0, 16, 2))


def port(key: bytes) -> str:
    """Decode a key of type inet_proto . inet_service; every part of a concatenation fills four bytes."""
    return f"{key[0]} . {int.from_bytes(key[4:6], 'big')}"


def address4_port(key: bytes) -> str:
    """Decode a key of type ipv4_addr . inet_proto . inet_service."""
    return f"{address4(key)} . {port(key[4:])}"


def address6_port(key: bytes) -> str:
    """Decode a key of type ipv6_addr . inet_proto . inet_service."""
    return f"{address6(key)} . {port(key[16:])}"


def chain_name(prefix: str, network: object) -> str:
    """Name a chain after a network; nft's identifiers cannot hold colons."""
    return f"{prefix}-{network}".replace(":", "_")


def _digest(words: str) -> str:
    return hashlib.blake2b(words.encode(), digest_size=16).hexdigest()


def _prefix_of_digest(network: str) -> str:
    return f"digest {_digest(network)} "


_loaded: list[ctypes.CDLL] = []


def _library() -> ctypes.CDLL:
    if _loaded:
        return _loaded[0]
    try:
        library = ctypes.CDLL("libnftables.so.1")
    except OSError as error:
        raise CniFault(f"libnftables cannot be loaded: {error}; install libnftables1", code=Code.PLUGIN_NOT_AVAILABLE) from None
    library.nft_ctx_new.restype = ctypes.c_void_p
    library.nft_ctx_new.argtypes = (ctypes.c_uint32,)
    library.nft_ctx_free.argtypes = (ctypes.c_void_p,)
    library.nft_ctx_buffer_error.argtypes = (ctypes.c_void_p,)
    library.nft_ctx_buffer_output.argtypes = (ctypes.c_void_p,)
    library.nft_run_cmd_from_buffer.argtypes = (ctypes.c_void_p, ctypes.c_char_p)
    library.nft_ctx_get_error_buffer.argtypes = (ctypes.c_void_p,)
    library.nft_ctx_get_error_buffer.restype = ctypes.c_char_p
    _loaded.append(library)
    return library


def _run(script: str) -> None:
    """Run a script as one transaction. The context holds a socket, so it must not outlive a fork or a change of namespace."""
    library = _library()
    context = library.nft_ctx_new(0)
    if not context:
        raise CniFault("nftables cannot be reached: no context", code=Code.PLUGIN_NOT_AVAILABLE)
    try:
        library.nft_ctx_buffer_error(context)
        library.nft_ctx_buffer_output(context)
        if library.nft_run_cmd_from_buffer(context, script.encode()) == 0:
            return
        said = (library.nft_ctx_get_error_buffer(context) or b"").decode(errors="replace")
    finally:
        library.nft_ctx_free(context)
    details = " ".join(said.replace("^", "").split())[:_MAX_SAID]
    if os.strerror(errno.EEXIST) in said:
        raise Conflict("a packet rule for the same key exists already", details=details)
    raise CniFault("packet rules cannot be changed", code=Code.IO_FAILURE, details=details)


def _exists(table: str, name: str) -> bool:
    return _messages(table, name) is not None


def _messages(table: str, name: str) -> list[bytes] | None:
    """Dump the elements of a map; None when there is no such map."""
    head = _GENMSG.pack(_FAMILY_INET, 0, 0) + text(_LIST_TABLE, table) + text(_LIST_SET, name)
    with NetlinkSocket(NETLINK_NETFILTER) as netlink:
        try:
            return [message.body for message in netlink.dump(_GETSETELEM, head, what=f"elements of {table} {name}")]
        except FileNotFoundError:
            return None


def _owned(table: str, name: str, matches: Callable[[str], bool], hint: bytes) -> tuple[list[bytes], int]:
    """Give the keys whose comment matches, and how many others there are at least."""
    keys: list[bytes] = []
    others = 0
    for body in _messages(table, name) or ():
        if hint and hint not in body:
            others += _has_elements(body)
            continue
        for key, comment in _elements(body):
            if matches(comment):
                keys.append(key)
            else:
                others += 1
    return keys, others


def _has_elements(body: bytes) -> bool:
    return bool(attributes(body, _GENMSG.size).get(_LIST_ELEMENTS))


def _elements(body: bytes) -> Iterator[tuple[bytes, str]]:
    listed = attributes(body, _GENMSG.size).get(_LIST_ELEMENTS, b"")
    for _kind, element in attribute_list(listed):
        parts = attributes(element)
        key = attributes(parts.get(_ELEMENT_KEY, b"")).get(_VALUE, b"")
        yield key, _comment(parts.get(_ELEMENT_USERDATA, b""))


def _comment(userdata: bytes) -> str:
    """Find the comment in libnftnl's type-length-value list (type 0)."""
    offset = 0
    while offset + 2 <= len(userdata):
        kind, length = userdata[offset], userdata[offset + 1]
        if kind == 0:
            return userdata[offset + 2 : offset + 2 + length].rstrip(b"\0").decode(errors="replace")
        offset += 2 + length
    return ""
