"""Address reservations on disk, in the layout of the standard host-local plugin, so that both can share a node.

DIR/NETWORK/10.88.0.5            container id, CR LF, interface name; exists while reserved
DIR/NETWORK/last_reserved_ip.0   the address that range set 0 gave last
DIR/NETWORK/lock                 held (flock) during every change
"""

from __future__ import annotations

import contextlib
import fcntl
import ipaddress
import os
from typing import TYPE_CHECKING, Self

if TYPE_CHECKING:
    from collections.abc import Iterator

    from cni.types import IP

DEFAULT_DIR = "/var/lib/cni/networks"
_LAST = "last_reserved_ip."
_MAX_BYTES = 4096


class Leases:
    """The reservations of one network, locked; a context manager that unlocks."""

    def __init__(self, data_dir: str, network: str) -> None:
        self._path = os.path.join(data_dir or DEFAULT_DIR, network)
        try:
            self._lock = self._open_lock()
        except FileNotFoundError:
            os.makedirs(self._path, mode=0o755, exist_ok=True)
            self._lock = self._open_lock()
        fcntl.flock(self._lock, fcntl.LOCK_EX)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_unused: object) -> None:
        os.close(self._lock)

    def reserve(self, address: IP, owner: tuple[str, str]) -> bool:
        """Reserve `address` for `owner` (container id, interface name); False when it is taken."""
        path = os.path.join(self._path, str(address))
        try:
            descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        except FileExistsError:
            return False
        try:
            with open(descriptor, "wb", buffering=0) as stream:
                stream.write("\r\n".join(owner).encode())
        except OSError:
            os.unlink(path)  # a full disk must not leave an address that belongs to nobody
            raise
        return True

    def taken(self) -> set[str]:
        """Give the reserved addresses, as text."""
        return set(os.listdir(self._path))

    def release(self, owner: tuple[str, str]) -> None:
        """Free every address of `owner`."""
        for path, _address, holder in self._all():
            if holder == owner:
                _unlink(path)

    def release_known(self, addresses: list[IP], owner: tuple[str, str]) -> bool:
        """Free `addresses` where they belong to `owner`; True when all did, so that no other has to be looked for."""
        paths = [os.path.join(self._path, str(address)) for address in addresses]
        if not paths or any(_holder(path) != owner for path in paths):
            return False
        for path in paths:
            _unlink(path)
        return True

    def of(self, owner: tuple[str, str]) -> list[IP]:
        """Give the addresses of `owner`."""
        return [address for _path, address, holder in self._all() if holder == owner]

    def collect(self, keep: frozenset[tuple[str, str]]) -> None:
        """Free every address whose owner is not in `keep`."""
        for path, _address, holder in self._all():
            if holder not in keep:
                _unlink(path)

    def last(self, range_set: int) -> IP | None:
        """Give the address that a range set gave last, None when it is not known."""
        try:
            with open(os.path.join(self._path, f"{_LAST}{range_set}"), "rb") as stream:
                return ipaddress.ip_address(stream.read(64).decode().strip())
        except (FileNotFoundError, ValueError):
            return None

    def set_last(self, range_set: int, address: IP) -> None:
        """Remember the address that a range set gave last.

        Written over, not truncated before: ext4 writes a file that was emptied to the disk when it is closed (auto_da_alloc in
        ext4(5)), three milliseconds of every pod's start.
        """
        text = str(address).encode()
        path = os.path.join(self._path, f"{_LAST}{range_set}")
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC, 0o644)
        try:
            os.pwrite(descriptor, text, 0)
            os.ftruncate(descriptor, len(text))
        finally:
            os.close(descriptor)

    def _open_lock(self) -> int:
        return os.open(os.path.join(self._path, "lock"), os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)

    def _all(self) -> Iterator[tuple[str, IP, tuple[str, str]]]:
        for name in os.listdir(self._path):
            try:
                address = ipaddress.ip_address(name)
            except ValueError:
                continue  # the lock and the last addresses
            path = os.path.join(self._path, name)
            holder = _holder(path)
            if holder is not None:
                yield path, address, holder


def exists(data_dir: str, network: str) -> bool:
    """Tell whether anything was ever reserved, so that a release need not make directories."""
    return os.path.isdir(os.path.join(data_dir or DEFAULT_DIR, network))


def _holder(path: str) -> tuple[str, str] | None:
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except FileNotFoundError:
        return None
    try:
        container_id, _newline, ifname = os.read(descriptor, _MAX_BYTES).decode(errors="replace").partition("\n")
    finally:
        os.close(descriptor)
    return container_id.strip(), ifname.strip()


def _unlink(path: str) -> None:
    with contextlib.suppress(FileNotFoundError):
        os.unlink(path)
