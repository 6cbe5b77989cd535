"""Packet rules through nftables, without starting a program.

A plugin owns one Table. Its rules are written once, as a script for libnftables, and look into maps; an attachment is
elements in these maps, each with a comment that names its owner. So attaching and detaching are one atomic change whose cost
does not grow with the number of pods, and garbage can be told from what is in use. With its last element a table goes.

Elements are sent as netlink messages made here: in a process just forked, libnftables takes 1.3 ms for its first change, and
these messages a tenth of it. Source: libnftables(3), nft(8), linux/netfilter/nf_tables.h, nfnetlink.h.
"""

from __future__ import annotations

import contextlib
import ctypes
import errno
import fcntl
import hashlib
import os
import re
import socket
import struct
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from cni.errors import CniFault, Code
from cni.netlink import (
    CREATE,
    attribute,
    attribute_list,
    attributes,
    nested,
    netfilter,
    text,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence

    from cni.types import IP

_NFTABLES: Final = 10  # NFNL_SUBSYS_NFTABLES
_DELTABLE, _GETCHAIN, _DELCHAIN, _NEWSETELEM, _GETSETELEM, _DELSETELEM = (
    _NFTABLES << 8 | number for number in (2, 4, 5, 12, 13, 14)
)
_CHAIN_TABLE, _CHAIN_NAME = 1, 3
_FAMILY_INET: Final = 1
_TABLE_NAME, _LIST_TABLE, _LIST_SET, _LIST_ELEMENTS, _LIST_ELEMENT = 1, 1, 2, 3, 1
_ELEMENT_KEY, _ELEMENT_DATA, _ELEMENT_USERDATA = 1, 2, 6
_DATA_VALUE, _DATA_VERDICT, _VERDICT_CODE, _VERDICT_CHAIN = 1, 2, 1, 2
_JUMP: Final = struct.pack(">i", -3)  # NFT_JUMP
_COMMENT: Final = 0  # NFTNL_UDATA_SET_ELEM_COMMENT
_GENMSG = struct.Struct("=BBH")
_HEAD: Final = _GENMSG.pack(_FAMILY_INET, 0, 0)
_MAX_COMMENT: Final = 120  # NFTNL_UDATA_COMMENT_MAXLEN is 128, with its zero
_MAX_SAID: Final = 500
_PLAIN = re.compile(r"[A-Za-z0-9_.\-]+")


class Conflict(CniFault):
    """An element is there already with another value."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Element:
    """One element of a map, in the kernel's encoding; it leads to `value`, or to the chain `jump`. `owner` is its comment."""

    map: str
    key: bytes
    owner: str
    value: bytes = b""
    jump: str = ""

    def encode(self, table: str) -> bytes:
        """Give the message body for adding it."""
        if self.jump:
            verdict = attribute(_VERDICT_CODE, _JUMP) + text(_VERDICT_CHAIN, self.jump)
            data = nested(_ELEMENT_DATA, nested(_DATA_VERDICT, verdict))
        else:
            data = nested(_ELEMENT_DATA, attribute(_DATA_VALUE, self.value))
        comment = self.owner.encode() + b"\0"
        userdata = attribute(_ELEMENT_USERDATA, bytes((_COMMENT, len(comment))) + comment)
        return _element(table, self.map, self.key, data + userdata)


@dataclass(frozen=True, slots=True, kw_only=True)
class Table:
    """A table of the inet family: `setup` makes it, anew or once more; `maps` hold its elements, `base` is a chain of it."""

    name: str
    setup: str
    base: str
    maps: tuple[str, ...]

    def add(self, elements: Sequence[Element], chains: str = "") -> None:
        """Add all of `elements` or none; `chains` is a script for chains they jump to, run when they are not there.

        Raises Conflict when a key is taken by another value.
        """
        change = [(_NEWSETELEM, element.encode(self.name)) for element in elements]
        jumps = {element.jump for element in elements} - {""} or {self.base}
        with exclusive():
            # Asked first, because the kernel takes ten milliseconds to refuse a change.
            ready = all(_has_chain(self.name, chain) for chain in jumps)
            if not ready:
                _script(self.setup + chains)
            try:
                _change(change)
            except (OSError, CniFault):
                if not ready:
                    self._remove_if_empty()
                raise

    def remove(self, matches: Callable[[str], bool], hint: str = "") -> None:
        """Remove every element whose owner `matches`, and the table when nothing is left; nothing there is no error.

        `hint` is an owner: messages of the kernel that do not hold it are then skipped undecoded.
        """
        with exclusive():
            removed: list[tuple[str, _Listed]] = []
            bodies: list[bytes] = []
            left = 0
            for name in self.maps:
                messages = _messages(self.name, name)
                if messages is None:
                    return
                found, others = _pick(messages, matches, hint.encode())
                removed += [(name, element) for element in found]
                bodies += messages
                left += others
            if not left:
                _change([(_DELTABLE, _HEAD + text(_TABLE_NAME, self.name))])
            elif removed:
                change = [(_DELSETELEM, _element(self.name, name, element.key)) for name, element in removed]
                change += [(_DELCHAIN, _chain(self.name, chain)) for chain in _unused(removed, bodies)]
                _change(change)

    def owned(self, owner: str) -> set[tuple[str, bytes]]:
        """Give map and key of every element of `owner`."""
        return {
            (name, element.key)
            for name in self.maps
            for element in _pick(_messages(self.name, name) or [], owner.__eq__, owner.encode())[0]
        }

    def _remove_if_empty(self) -> None:
        if not any(_has_elements(body) for name in self.maps for body in _messages(self.name, name) or []):
            _change([(_DELTABLE, _HEAD + text(_TABLE_NAME, self.name))])


def address_key(address: IP) -> bytes:
    """Encode a key, or a part of one, of type ipv4_addr or ipv6_addr."""
    return address.packed


def port_key(protocol: int, port: int) -> bytes:
    """Encode a key of type inet_proto . inet_service: every part of a concatenation fills four bytes."""
    return struct.pack(">B3xH2x", protocol, port)


def port_value(address: IP, port: int) -> bytes:
    """Encode a value of type ipv4_addr . inet_service or ipv6_addr . inet_service."""
    return address.packed + struct.pack(">H2x", port)


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


def warm() -> None:
    """Load the library and let it read its tables of names, so that a process forked later need not."""
    _library().nft_ctx_free(_new_context())


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


def chain_name(prefix: str, network: object) -> str:
    """Name a chain after a network; nft's identifiers cannot hold colons."""
    return f"{prefix}-{network}".replace(":", "_")


def _digest(words: str) -> str:
    return hashlib.blake2b(words.encode(), digest_size=16).hexdigest()


def _prefix_of_digest(network: str) -> str:
    return f"digest {_digest(network)} "


_NETLINK_NETFILTER = 12
"""The protocol of linux/netlink.h; its module is loaded with the first socket."""
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


_contexts: dict[tuple[int, int], int] = {}


def _context() -> int:
    """Give this process's libnftables context for the current namespace; it holds a socket (see netlink.netfilter)."""
    key = (os.getpid(), os.stat("/proc/thread-self/ns/net").st_ino)
    if key not in _contexts:
        _contexts[key] = _new_context()
    return _contexts[key]


def _new_context() -> int:
    library = _library()
    try:
        socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, _NETLINK_NETFILTER).close()
    except OSError as error:  # the library would end this process
        raise CniFault(
            f"nftables cannot be reached: {error.strerror}; load the kernel's module nf_tables", code=Code.PLUGIN_NOT_AVAILABLE
        ) from None
    context: int | None = library.nft_ctx_new(0)
    if not context:
        raise CniFault("nftables cannot be reached: no context", code=Code.PLUGIN_NOT_AVAILABLE)
    library.nft_ctx_buffer_error(context)
    library.nft_ctx_buffer_output(context)
    return context


def _script(script: str) -> None:
    """Run a script of nft as one transaction."""
    library = _library()
    context = _context()
    if library.nft_run_cmd_from_buffer(context, script.encode()) != 0:
        said = (library.nft_ctx_get_error_buffer(context) or b"").decode(errors="replace")
        details = " ".join(said.replace("^", "").split())[:_MAX_SAID]
        raise CniFault("packet rules cannot be set up", code=Code.IO_FAILURE, details=details)


def _change(messages: Sequence[tuple[int, bytes]]) -> None:
    """Send messages as one transaction; raise FileNotFoundError when table, map, chain or element is not there."""
    try:
        netfilter().transaction(_NFTABLES, messages, flags=CREATE, what="changing packet rules")
    except OSError as error:
        if error.errno in {errno.EEXIST, errno.EBUSY}:
            raise Conflict("an element for the same key exists already") from None
        raise


def _has_chain(table: str, chain: str) -> bool:
    try:
        netfilter().get(_GETCHAIN, _chain(table, chain), what=f"chain {chain} of table {table}")
    except FileNotFoundError:
        return False
    return True


def _chain(table: str, chain: str) -> bytes:
    return _HEAD + text(_CHAIN_TABLE, table) + text(_CHAIN_NAME, chain)


def _element(table: str, name: str, key: bytes, rest: bytes = b"") -> bytes:
    element = nested(_LIST_ELEMENT, nested(_ELEMENT_KEY, attribute(_DATA_VALUE, key)) + rest)
    return _HEAD + text(_LIST_TABLE, table) + text(_LIST_SET, name) + nested(_LIST_ELEMENTS, element)


def _messages(table: str, name: str) -> list[bytes] | None:
    """Dump the elements of a map; None when there is no such map."""
    head = _HEAD + text(_LIST_TABLE, table) + text(_LIST_SET, name)
    try:
        dumped = netfilter().dump(_GETSETELEM, head, what=f"elements of {table} {name}")
    except FileNotFoundError:
        return None
    return [message.body for message in dumped]


@dataclass(frozen=True, slots=True, kw_only=True)
class _Listed:
    """An element as the kernel lists it; `jump` is "" when it leads to a value."""

    key: bytes
    owner: str
    jump: str


def _pick(messages: Sequence[bytes], matches: Callable[[str], bool], hint: bytes) -> tuple[list[_Listed], int]:
    """Give the elements whose owner matches, and how many others there are at least."""
    found: list[_Listed] = []
    others = 0
    for body in messages:
        if hint and hint not in body:
            others += _has_elements(body)
            continue
        for element in _elements(body):
            if matches(element.owner):
                found.append(element)
            else:
                others += 1
    return found, others


def _unused(removed: Sequence[tuple[str, _Listed]], bodies: Sequence[bytes]) -> Iterator[str]:
    """Give the chains to which only removed elements jump; names are counted in what the kernel listed, undecoded."""
    jumps = [element.jump for _name, element in removed if element.jump]
    for chain in sorted(set(jumps)):
        if sum(body.count(chain.encode() + b"\0") for body in bodies) == jumps.count(chain):
            yield chain


def _has_elements(body: bytes) -> bool:
    return bool(attributes(body, _GENMSG.size).get(_LIST_ELEMENTS))


def _elements(body: bytes) -> Iterator[_Listed]:
    listed = attributes(body, _GENMSG.size).get(_LIST_ELEMENTS, b"")
    for _kind, element in attribute_list(listed):
        parts = attributes(element)
        verdict = attributes(attributes(parts.get(_ELEMENT_DATA, b"")).get(_DATA_VERDICT, b""))
        yield _Listed(
            key=attributes(parts.get(_ELEMENT_KEY, b"")).get(_DATA_VALUE, b""),
            owner=_comment(parts.get(_ELEMENT_USERDATA, b"")),
            jump=verdict.get(_VERDICT_CHAIN, b"").rstrip(b"\0").decode(errors="replace"),
        )


def _comment(userdata: bytes) -> str:
    """Find the comment in libnftnl's type-length-value list (type 0)."""
    offset = 0
    while offset + 2 <= len(userdata):
        kind, length = userdata[offset], userdata[offset + 1]
        if kind == _COMMENT:
            return userdata[offset + 2 : offset + 2 + length].rstrip(b"\0").decode(errors="replace")
        offset += 2 + length
    return ""
