"""tuning: settings of a container's link and of its network namespace.

Takes sysctl (a map; IFNAME in a key stands for the link's name), mac, mtu, promisc, allmulti and txQLen; a hardware address
also from the capability "mac", args.cni.mac or CNI_ARGS MAC. What a link had before is remembered in `dataDir` and given back
at DEL, which matters for devices that outlive the container. An allowlist of the node, when it exists, bounds the sysctls: one
regular expression a line.
"""

from __future__ import annotations

import contextlib
import dataclasses
import json
import os
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING

from cni import link, netns, wire
from cni.errors import CniFault, Malformed
from cni.link import Links
from cni.plugins import previous
from cni.plugins.loopback import nothing
from cni.skel import Plugin, Request

if TYPE_CHECKING:
    from collections.abc import Mapping

    from cni.link import Link
    from cni.types import Result

ALLOWLIST = "/etc/cni/tuning/allowlist.conf"
DATA_DIR = "/run/cni/tuning"
_KEY = re.compile(r"net/[A-Za-z0-9_\-.:/]+")
_MAX_MTU = 65535
_MAX_QUEUE = 0x7FFFFFFF


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """The plugin's configuration, read; None: leave it as it is. Keys of `sysctls` are paths below /proc/sys/net."""

    sysctls: Mapping[str, str]
    mac: str
    mtu: int | None
    promisc: bool | None
    allmulti: bool | None
    queue: int | None
    data_dir: str

    @property
    def flags(self) -> tuple[int, int]:
        """Flags of the link to set, and which of them are meant."""
        wanted = ((link.PROMISC, self.promisc), (link.ALLMULTI, self.allmulti))
        return sum(flag for flag, on in wanted if on), sum(flag for flag, on in wanted if on is not None)

    @property
    def touches_link(self) -> bool:
        """Whether anything of the link itself is set."""
        return bool(self.mac) or bool(self.flags[1]) or self.mtu is not None or self.queue is not None


def add(request: Request) -> Result:
    """Set everything; what cannot be set is an error, and the link is given back what it had."""
    settings = read(request)
    result = previous.result(request)
    _allowed(settings.sysctls)
    with netns.Namespace(request.netns) as namespace, namespace.entered(), Links() as inside:
        found = _link(request, inside)
        with contextlib.ExitStack() as undo:
            if settings.touches_link:
                _remember(request, settings, found)
                undo.callback(_restore, request, settings, inside)
            for name, value in settings.sysctls.items():
                _write(name, value)
            _change(inside, found, settings)
            undo.pop_all()
    if not settings.mac:
        return result
    interfaces = tuple(
        dataclasses.replace(one, mac=settings.mac) if one.name == request.ifname and one.sandbox == request.netns else one
        for one in result.interfaces
    )
    return dataclasses.replace(result, interfaces=interfaces)


def delete(request: Request) -> None:
    """Give the link back what it had; a namespace that is gone needs nothing."""
    settings = read(request)
    with contextlib.suppress(netns.Gone):
        if request.netns:
            with netns.Namespace(request.netns) as namespace, namespace.entered(), Links() as inside:
                _restore(request, settings, inside)
    with contextlib.suppress(FileNotFoundError):
        os.unlink(_memory(request, settings))


def check(request: Request) -> None:
    """Raise CniFault naming the first setting that is not as ADD left it."""
    settings = read(request)
    previous.result(request)
    with netns.Namespace(request.netns) as namespace, namespace.entered(), Links() as inside:
        found = _link(request, inside)
        for name, value in settings.sysctls.items():
            _compare(f"sysctl net/{name}", netns.read_setting(name), value)
        flags, mask = settings.flags
        _compare(f"flags of {found.name}", found.flags & mask, flags)
        for what, has, wanted in (
            ("mtu", found.mtu, settings.mtu),
            ("hardware address", found.mac, settings.mac or None),
            ("txqlen", found.queue, settings.queue),
        ):
            if wanted is not None:
                _compare(f"{what} of {found.name}", has, wanted)


def status(request: Request) -> None:
    """Raise CniFault when the configuration is wrong or asks for what the node does not allow."""
    _allowed(read(request).sysctls)


def read(request: Request) -> Settings:
    """Read the configuration; raise Malformed naming the pointer."""
    config = request.config
    mtu, queue = wire.number(config, "mtu"), wire.number(config, "txQLen")
    for name, value, most in (("mtu", mtu, _MAX_MTU), ("txQLen", queue, _MAX_QUEUE)):
        if value is not None and not 0 <= value <= most:
            raise Malformed(f"must be between 0 and {most}", f"/{name}")
    return Settings(
        sysctls=_sysctls(request),
        mac=_mac(request),
        mtu=mtu or None,
        promisc=wire.flag(config, "promisc") or None,
        allmulti=wire.flag(config, "allmulti") if config.get("allmulti") is not None else None,
        queue=queue,
        data_dir=wire.text(config, "dataDir") or DATA_DIR,
    )


def _sysctls(request: Request) -> dict[str, str]:
    given = wire.mapping(request.config.get("sysctl") or {}, "/sysctl")
    found = {}
    for key in given:
        path = key if "/" in key else key.replace(".", "/")
        path = path.replace("IFNAME", request.ifname)
        if not _KEY.fullmatch(path) or any(part in {"", ".", ".."} for part in path.split("/")):
            raise Malformed("is no setting of a network namespace: its name must begin with net.", f"/sysctl/{key}")
        found[path.removeprefix("net/")] = wire.text(given, key, "/sysctl")
    return found


def _mac(request: Request) -> str:
    arguments = wire.mapping(request.config.get("args") or {}, "/args")
    mac = (
        wire.text(request.runtime_config, "mac", "/runtimeConfig")
        or wire.text(wire.mapping(arguments.get("cni") or {}, "/args/cni"), "mac", "/args/cni")
        or request.args.get("MAC", "")
        or wire.text(request.config, "mac")
    ).lower()
    if mac:
        try:
            link.mac_bytes(mac)
        except ValueError as error:
            raise Malformed(str(error), "/mac") from None
    return mac


def _allowed(sysctls: Mapping[str, str]) -> None:
    try:
        with open(ALLOWLIST, encoding="utf-8") as file:
            patterns = [line.strip() for line in file if line.strip() and not line.startswith("#")]
    except FileNotFoundError:
        return
    for name in sysctls:
        dotted = f"net.{name.replace('/', '.')}"
        if not any(re.search(pattern, dotted) for pattern in patterns):
            raise CniFault(f"sysctl {dotted} is not allowed by {ALLOWLIST} of this node")


def _link(request: Request, inside: Links) -> Link:
    found = inside.find(request.ifname)
    if found is None:
        raise CniFault(f"link {request.ifname} in {request.netns} is gone")
    return found


def _write(name: str, value: str) -> None:
    try:
        netns.write_setting(name, value)
    except OSError as error:
        raise CniFault(f"sysctl net/{name} cannot be set to {value!r}: {error.strerror}") from error


def _change(inside: Links, found: Link, settings: Settings) -> None:
    flags, mask = settings.flags
    if mask:
        inside.set_flags(found.index, flags, mask)
    if settings.mac and settings.mac != found.mac:
        inside.set_mac(found, settings.mac)
    if settings.mtu is not None:
        inside.set_mtu(found, settings.mtu)
    if settings.queue is not None:
        inside.set_queue(found, settings.queue)


def _compare(what: str, has: object, wanted: object) -> None:
    if has != wanted:
        raise CniFault(f"{what} is {has!r}, not {wanted!r}")


def _memory(request: Request, settings: Settings) -> str:
    return f"{settings.data_dir}/{request.container_id}_{request.ifname}.json"


def _remember(request: Request, settings: Settings, found: Link) -> None:
    """Write what the link has now, unless an earlier ADD of this attachment has."""
    os.makedirs(settings.data_dir, mode=0o700, exist_ok=True)
    kept = {"mac": found.mac, "mtu": found.mtu, "flags": found.flags, "txQLen": found.queue}
    with contextlib.suppress(FileExistsError), open(_memory(request, settings), "x", encoding="utf-8") as file:
        json.dump(kept, file)


def _restore(request: Request, settings: Settings, inside: Links) -> None:
    found = inside.find(request.ifname)
    try:
        with open(_memory(request, settings), encoding="utf-8") as file:
            kept = json.load(file)
    except (OSError, ValueError):
        return  # nothing was changed, or nobody knows any more what it was
    if found is None or not isinstance(kept, dict):
        return
    before = Settings(
        sysctls={},
        mac=str(kept.get("mac", "")) if settings.mac else "",
        mtu=kept.get("mtu") if settings.mtu is not None else None,
        promisc=None,
        allmulti=None,
        queue=kept.get("txQLen") if settings.queue is not None else None,
        data_dir=settings.data_dir,
    )
    mask = settings.flags[1]
    if mask:
        inside.set_flags(found.index, int(kept.get("flags", 0)) & mask, mask)
    _change(inside, found, before)


PLUGIN = Plugin(name="tuning", add=add, delete=delete, check=check, gc=nothing, status=status)
