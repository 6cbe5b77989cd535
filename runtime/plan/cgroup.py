"""Where a container's cgroup lies and what is written into it: pure, no system call (cgroups(7), config-linux.md).

A host has several v1 hierarchies, one v2 hierarchy, or both (hybrid); here that is a list of hierarchies, and each
controller is planned for the version of the one it is found in. The v2 hierarchy has the key "" and a v1 hierarchy the
names /proc/self/cgroup gives it ("cpu", "cpu,cpuacct", "name=systemd").
"""

from __future__ import annotations

from runtime.errors import CgroupFault, KernelFault
from runtime.record import Record

TYPE_CHECKING = False
if TYPE_CHECKING:
    from runtime.spec.lasting import Pairs
    from runtime.spec.resources import Resources

UNIFIED = ""
"""The key of the v2 hierarchy."""
CONTROLLERS = ("cpuset", "cpu", "memory", "pids", "blkio", "hugetlb", "rdma", "net_cls", "net_prio")
"""What linux.resources can limit besides devices, in the order it is written; v2 calls blkio io."""


class Hierarchy(Record):
    """One mounted hierarchy: where it is mounted, what it controls and where this process lies in it."""

    key: str
    mount: str
    controllers: tuple[str, ...]
    own: str

    @property
    def version(self) -> int:
        """Give 1 or 2."""
        return 2 if self.key == UNIFIED else 1


class Layout(Record):
    """The hierarchies of this host, in the order they are mounted."""

    hierarchies: tuple[Hierarchy, ...] = ()

    @property
    def kind(self) -> str:
        """Give none, v1, hybrid or v2."""
        versions = {hierarchy.version for hierarchy in self.hierarchies}
        if not versions:
            return "none"
        return "hybrid" if len(versions) == 2 else f"v{versions.pop()}"


class Write(Record):
    """One value for one file of the container's cgroup.

    `choices` are files and values: the first file that exists takes its value. An `optional` write is left out when none
    does. The kernel may refuse a `postponable` one until the next was done, because the two bound each other.
    """

    controller: str
    choices: Pairs
    optional: bool = False
    postponable: bool = False


def parse_layout(mountinfo: str, self_cgroup: str, unified_controllers: str) -> Layout:
    """Give the layout from /proc/self/mountinfo, /proc/self/cgroup and the v2 root's cgroup.controllers."""
    own: dict[str, str] = {}
    for line in self_cgroup.splitlines():
        _, _, rest = line.partition(":")
        names, _, path = rest.partition(":")
        own[names] = path
    hierarchies: dict[str, Hierarchy] = {}
    for line in mountinfo.splitlines():
        fields = line.split(" ")
        dash = fields.index("-") if "-" in fields else len(fields)
        if len(fields) < dash + 4 or fields[dash + 1] not in ("cgroup", "cgroup2"):
            continue
        mount = fields[4].replace("\\040", " ")
        key = UNIFIED if fields[dash + 1] == "cgroup2" else _key(fields[dash + 3], own)
        if key is None or key not in own or key in hierarchies:
            continue
        controllers = tuple(unified_controllers.split()) if key == UNIFIED else tuple(key.split(","))
        below = _below(own[key], fields[3])
        hierarchies[key] = Hierarchy(key=key, mount=mount, controllers=controllers, own=below)
    return Layout(hierarchies=tuple(hierarchies.values()))


def _key(super_options: str, own: dict[str, str]) -> str | None:
    options = set(super_options.split(","))
    for names in own:
        if names != UNIFIED and set(names.split(",")) <= options:
            return names
    return None


def _below(path: str, root: str) -> str:
    """Give `path` as seen through a mount whose root is `root`; a mount of a part is what a container sees."""
    if root in ("", "/"):
        return path
    if path == root or path.startswith(root + "/"):
        return path[len(root) :] or "/"
    return path


def clean(path: str) -> str:
    """Resolve "." and ".." within `path`; a relative one cannot climb above where it begins."""
    parts: list[str] = []
    for part in path.split("/"):
        if part == "..":
            del parts[-1:]
        elif part not in ("", "."):
            parts.append(part)
    return ("/" if path.startswith("/") else "") + "/".join(parts)


def cgroup_paths(layout: Layout, cgroups_path: str, container_id: str) -> Pairs:
    """Give the container's directory in each hierarchy, by key.

    An absolute cgroupsPath counts from the hierarchy's root, a relative one from the caller's own cgroup, and an absent one
    is the container's id, relative. In a pure v2 hierarchy the caller's parent takes the place of its own cgroup, since a
    cgroup with processes cannot hand controllers down. A path in the systemd driver's form (slice:prefix:name) is a path like
    any other without --systemd-cgroup, as with runc. Raises CgroupFault for the root itself, which is everybody's.
    """
    wanted = clean(cgroups_path or container_id)
    if wanted in ("", "/"):
        raise CgroupFault(
            f'cgroupsPath "{cgroups_path}" is the root of the hierarchy: name a cgroup below it',
            step="find the container's cgroup",
        )
    pure_v2 = layout.kind == "v2"
    paths = []
    for hierarchy in layout.hierarchies:
        base = ""
        if not wanted.startswith("/"):
            base = hierarchy.own.rpartition("/")[0] if pure_v2 else hierarchy.own
        below = "/".join(part for part in (base.strip("/"), wanted.strip("/")) if part)
        paths.append((hierarchy.key, f"{hierarchy.mount.rstrip('/')}/{below}"))
    return tuple(paths)


def sub_paths(paths: Pairs, wanted: str) -> Pairs:
    """Give the directories of a sub-cgroup: "path", or "controller[,controller]:path" for some v1 hierarchies only.

    Several of the latter may be given, one a line.
    """
    for one in wanted.split("\n"):
        paths = _sub_paths(paths, one)
    return paths


def _sub_paths(paths: Pairs, wanted: str) -> Pairs:
    names, colon, path = wanted.rpartition(":")
    if ".." in path.split("/"):
        raise CgroupFault(f'bad sub cgroup path "{path}": it leads out of the container', step="find the sub-cgroup")
    below = clean("/" + path).rstrip("/")
    chosen = set(names.split(",")) if colon else set()
    moved = [(key, directory + below if not chosen or chosen & set(key.split(",")) else directory) for key, directory in paths]
    known = {name for key, _ in paths for name in key.split(",")}
    if chosen - known:
        raise CgroupFault(f"unknown controller {min(chosen - known)} in --cgroup", step="find the sub-cgroup")
    return tuple(moved)


def resource_writes(resources: Resources, layout: Layout) -> tuple[Write, ...]:
    """Give the writes that make the kernel enforce `resources`, in order; the v2 device filter is planned by runtime.plan.bpf.

    Raises KernelFault when something is asked of a controller no hierarchy has, CgroupFault for a value no kernel takes.
    """
    versions = {name: hierarchy.version for hierarchy in layout.hierarchies for name in hierarchy.controllers}
    default = 2 if layout.kind == "v2" else 1
    writes: list[Write] = []
    for controller in CONTROLLERS:
        version = versions.get("io", versions.get("blkio", default)) if controller == "blkio" else versions.get(controller)
        if (version or default) == 1:
            from runtime.plan.cgroup_v1 import plan_v1 as plan
        else:
            from runtime.plan.cgroup_v2 import plan_v2 as plan
        writes += plan(resources, controller)
    if resources.unified:
        from runtime.plan.cgroup_v2 import plan_unified

        _require_v2_controllers(resources, versions)
        writes += plan_unified(resources)
    for write in writes:
        if write.controller and write.controller not in versions and not write.optional:
            raise KernelFault(
                f"this host has no cgroup controller {write.controller}, which linux.resources asks for"
                f" ({write.choices[0][0]}): mount it, or leave the limit out",
                feature=f"cgroup controller {write.controller}",
                step="plan the container's cgroup",
            )
    return tuple(writes)


def _require_v2_controllers(resources: Resources, versions: dict[str, int]) -> None:
    for name, _ in resources.unified:
        controller = name.partition(".")[0]
        if controller != "cgroup" and versions.get(controller) != 2:
            raise KernelFault(
                f"invalid configuration: linux.resources.unified sets {name}, but this host has no cgroup v2 controller"
                f" {controller}",
                feature=f"cgroup v2 controller {controller}",
                step="plan the container's cgroup",
            )
