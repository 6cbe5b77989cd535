"""Which namespaces are made, joined or shared, decided before the first fork."""

from __future__ import annotations

from runtime.errors import SpecFault
from runtime.kernel.namespace import FLAGS
from runtime.record import Record

TYPE_CHECKING = False
if TYPE_CHECKING:
    from runtime.spec.model import IdMapping, Linux, TimeOffset


class NamespacePlan(Record):
    """`new` and `joined` name types; `paths` pairs those joined by path with that path, the user namespace excluded.

    `new_flags` is for one unshare(2): the kernel makes the user namespace first, and the others belong to it.
    """

    new: tuple[str, ...] = ()
    new_flags: int = 0
    paths: tuple[tuple[str, str], ...] = ()
    user_path: str = ""
    uid_map: str = ""
    gid_map: str = ""
    time_offsets: str = ""

    def private(self) -> tuple[str, ...]:
        """Give every type the container does not share with the runtime."""
        joined = tuple(kind for kind, _ in self.paths)
        return self.new + joined + (("user",) if self.user_path else ())

    def has(self, kind: str) -> bool:
        """Tell whether the container has its own namespace of this type."""
        return kind in self.private()

    def in_user_namespace(self) -> bool:
        """Tell whether the container's root is not the host's."""
        return bool(self.user_path) or "user" in self.new


def plan_namespaces(linux: Linux) -> NamespacePlan:
    """Decide from linux.namespaces and the mappings; raise SpecFault for what cannot be given exactly."""
    new: list[str] = []
    paths: list[tuple[str, str]] = []
    user_path = ""
    for at, namespace in enumerate(linux.namespaces):
        if namespace.type not in FLAGS:
            raise SpecFault(f"unknown namespace {namespace.type!r}", pointer=f"/linux/namespaces/{at}/type")
        if not namespace.path:
            new.append(namespace.type)
        elif namespace.type == "user":
            user_path = namespace.path
        else:
            paths.append((namespace.type, namespace.path))
    if linux.time_offsets and "time" not in new:
        raise SpecFault("time offsets need a new time namespace", pointer="/linux/timeOffsets")
    _check_mappings(linux, new)
    return NamespacePlan(
        new=tuple(new),
        new_flags=sum(FLAGS[kind] for kind in new),
        paths=tuple(paths),
        user_path=user_path,
        uid_map=map_text(linux.uid_mappings) if "user" in new else "",
        gid_map=map_text(linux.gid_mappings) if "user" in new else "",
        time_offsets=_offsets(linux.time_offsets),
    )


def _check_mappings(linux: Linux, new: list[str]) -> None:
    if "user" not in new:
        return
    if not linux.uid_mappings or not linux.gid_mappings:
        raise SpecFault("a new user namespace needs uid and gid mappings", pointer="/linux/uidMappings")


def map_text(mappings: tuple[IdMapping, ...]) -> str:
    """Give mappings as a uid_map or gid_map file takes them."""
    return "".join(f"{one.container_id} {one.host_id} {one.size}\n" for one in mappings)


def _offsets(offsets: tuple[TimeOffset, ...]) -> str:
    return "".join(f"{one.clock} {one.secs} {one.nanosecs}\n" for one in offsets)
