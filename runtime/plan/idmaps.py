"""Whose ids a mount shows: the container's maps, the mount's own, or the option's (config.md "Mounts", crun(1))."""

from __future__ import annotations

from runtime.errors import SpecFault
from runtime.plan.namespaces import map_text
from runtime.record import Record

TYPE_CHECKING = False
if TYPE_CHECKING:
    from runtime.spec.model import IdMapping, Linux, Mount


class IdMapPlan(Record):
    """The maps of an id-mapped mount as uid_map and gid_map files; both empty: those of the user namespace joined by path."""

    uid_map: str = ""
    gid_map: str = ""
    recursive: bool = False


def is_id_map_word(word: str) -> bool:
    """Tell whether an option word asks for an id-mapped mount."""
    return word.partition("=")[0] in ("idmap", "ridmap")


def plan_id_map(mount: Mount, linux: Linux, pointer: str) -> IdMapPlan | None:
    """Decide the id map of a mount; None without one. Raises SpecFault."""
    word = next((word for word in reversed(mount.options) if is_id_map_word(word)), "")
    if not (word or mount.uid_mappings or mount.gid_mappings):
        return None
    name, _, ranges = word.partition("=")
    uids, gids = mount.uid_mappings, mount.gid_mappings
    if ranges:
        uids, gids = _from_option(ranges, linux, f"{pointer}/options")
    if bool(uids) != bool(gids):
        raise SpecFault("an id-mapped mount needs both uid and gid mappings", pointer=f"{pointer}/uidMappings")
    recursive = name == "ridmap"
    if uids:
        return IdMapPlan(uid_map=map_text(uids), gid_map=map_text(gids), recursive=recursive)
    user = next((one for one in linux.namespaces if one.type == "user"), None)
    if user is None:
        raise SpecFault(
            "an id-mapped mount needs mappings of its own, or a user namespace in /linux/namespaces",
            pointer=f"{pointer}/options",
        )
    if user.path:
        return IdMapPlan(recursive=recursive)
    return IdMapPlan(uid_map=map_text(linux.uid_mappings), gid_map=map_text(linux.gid_mappings), recursive=recursive)


def _from_option(text: str, linux: Linux, pointer: str) -> tuple[tuple[IdMapping, ...], tuple[IdMapping, ...]]:
    """Read "uids=0-1000-1#…;gids=…": first id in the file system, first id on the host, count."""
    found: dict[str, tuple[IdMapping, ...]] = {"uids": (), "gids": ()}
    for part in text.split(";"):
        key, _, ranges = part.partition("=")
        if key not in found:
            raise SpecFault(f'"{key}" is not an option of idmap (uids, gids)', pointer=pointer)
        own = linux.uid_mappings if key == "uids" else linux.gid_mappings
        found[key] = tuple(_range(one, own, pointer) for one in ranges.split("#"))
    return found["uids"], found["gids"]


def _range(text: str, own: tuple[IdMapping, ...], pointer: str) -> IdMapping:
    from runtime.spec.model import IdMapping

    numbers = text.removeprefix("@").split("-")
    if len(numbers) != 3 or not all(one.isascii() and one.isdigit() and len(one) < 11 for one in numbers):
        raise SpecFault(f'"{text}" is not a range such as 0-100000-65536', pointer=pointer)
    first, host, size = map(int, numbers)
    if text.startswith("@"):
        host = _on_host(host, own, pointer)
    if not size or max(first, host) + size > 1 << 32:
        raise SpecFault(f'"{text}" is not a range of ids', pointer=pointer)
    return IdMapping(container_id=first, host_id=host, size=size)


def _on_host(number: int, own: tuple[IdMapping, ...], pointer: str) -> int:
    for one in own:
        if one.container_id <= number < one.container_id + one.size:
            return one.host_id + number - one.container_id
    raise SpecFault(f"id {number} is not in the container's user namespace", pointer=pointer)
