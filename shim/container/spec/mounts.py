"""Mounts: the kernel's file systems, the pod's files, the image's volumes and what the CRI asks for, in mounting order."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from shim.container.spec.host import SourcePropagation
from shim.container.spec.namespaces import NODE, id_mappings, pod_options, uses_user_namespace
from shim.container.spec.process import clean_path
from shim.errors import InvalidArgument
from shim.gen.runtime.v1 import api_pb2

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from shim.container.spec.host import MountSource
    from shim.container.spec.inputs import SpecInputs
    from shim.gen.runtime.v1.api_pb2 import ContainerConfig, IDMapping, Mount

Json = dict[str, Any]

DEV_SHM = "/dev/shm"  # noqa: S108 - a mount point in the container, not a place for our files

PRIVATE = api_pb2.PROPAGATION_PRIVATE
HOST_TO_CONTAINER = api_pb2.PROPAGATION_HOST_TO_CONTAINER
BIDIRECTIONAL = api_pb2.PROPAGATION_BIDIRECTIONAL


@dataclass(frozen=True, slots=True, kw_only=True)
class Bind:
    """One bind mount, from whichever origin."""

    source: str
    destination: str
    propagation: str = "rprivate"
    access: str = "rw"
    uids: Sequence[IDMapping] = ()
    gids: Sequence[IDMapping] = ()
    options: Sequence[str] = ()
    layers: Sequence[str] = ()
    """Directories that are merged instead of the source, topmost first."""

    def to_oci(self) -> Json:
        """Give the runtime-spec's form."""
        if len(self.layers) > 1:
            lower = f"lowerdir={':'.join(self.layers)}"
            return _special(self.destination, "overlay", "overlay", "ro", *self.options, lower)
        mount: Json = {
            "destination": self.destination,
            "type": "bind",
            "source": self.source,
            "options": ["rbind", self.propagation, self.access, *self.options],
        }
        if self.uids or self.gids:
            mount |= {"uidMappings": id_mappings(self.uids), "gidMappings": id_mappings(self.gids)}
        return mount


def mounts(inputs: SpecInputs) -> tuple[list[Json], str]:
    """Give the spec's mounts, and rootfsPropagation ("" for the runtime's default, which is private).

    Binds are sorted by the depth of their destination, so that none covers another that belongs below it; equals keep the
    order CRI, pod files, image volumes. A bind replaces the default mount of its destination; one on /dev replaces all
    defaults below /dev.
    """
    binds = [_cri_bind(inputs, index) for index in range(len(inputs.config.mounts))]
    taken = {bind.destination for bind in binds}
    binds += [bind for bind in [*_pod_binds(inputs), *_volume_binds(inputs)] if bind.destination not in taken]
    binds.sort(key=lambda bind: bind.destination.count("/"))
    taken = {bind.destination for bind in binds}
    own_dev = "/dev" in taken
    base = [
        mount
        for mount in _base_mounts(inputs)
        if mount["destination"] not in taken and not (own_dev and mount["destination"].startswith("/dev/"))
    ]
    return base + [bind.to_oci() for bind in binds], _rootfs_propagation(binds)


def _rootfs_propagation(binds: Sequence[Bind]) -> str:
    wanted = {bind.propagation for bind in binds}
    return next((kind for kind in ("rshared", "rslave") if kind in wanted), "")


def _base_mounts(inputs: SpecInputs) -> list[Json]:
    """Give what every Linux container sees (runtime-spec, config-linux.md, default filesystems), as containerd sizes it."""
    security = inputs.config.linux.security_context
    sys_access = "rw" if security.privileged else "ro"
    return [
        _special("/proc", "proc", "proc", "nosuid", "noexec", "nodev"),
        _special("/dev", "tmpfs", "tmpfs", "nosuid", "strictatime", "mode=755", "size=65536k"),
        _special("/dev/pts", "devpts", "devpts", "nosuid", "noexec", "newinstance", "ptmxmode=0666", "mode=0620", "gid=5"),
        _special(DEV_SHM, "tmpfs", "shm", "nosuid", "noexec", "nodev", "mode=1777", "size=65536k"),
        _special("/dev/mqueue", "mqueue", "mqueue", "nosuid", "noexec", "nodev"),
        _sysfs(inputs, sys_access),
        _cgroup(inputs),
    ]


def _special(destination: str, kind: str, source: str, *options: str) -> Json:
    return {"destination": destination, "type": kind, "source": source, "options": list(options)}


def _sysfs(inputs: SpecInputs, access: str) -> Json:
    """Give /sys: a bind where the kernel forbids a new sysfs, which is a user namespace in the node's network."""
    options = pod_options(inputs)
    if options.network == NODE and uses_user_namespace(options.userns_options):
        return _special("/sys", "bind", "/sys", "rbind", "rro", "nosuid", "nodev", "noexec")
    return _special("/sys", "sysfs", "sysfs", "nosuid", "noexec", "nodev", access)


def _cgroup(inputs: SpecInputs) -> Json:
    """Give /sys/fs/cgroup; without a cgroup namespace of its own the mount shares, and must repeat, the node's options."""
    privileged = inputs.config.linux.security_context.privileged
    access = "rw" if privileged or inputs.settings.cgroup_writable else "ro"
    shared = inputs.host.cgroup_options if privileged else ()
    return _special("/sys/fs/cgroup", "cgroup", "cgroup", "nosuid", "noexec", "nodev", "relatime", access, *shared)


def _pod_binds(inputs: SpecInputs) -> list[Bind]:
    files = inputs.pod_files
    security = inputs.config.linux.security_context
    mappings = pod_options(inputs).userns_options
    access = "ro" if security.readonly_rootfs else "rw"
    binds = [
        Bind(source=source, destination=destination, access=access, uids=mappings.uids, gids=mappings.gids)
        for source, destination in (
            (files.hostname, "/etc/hostname"),
            (files.hosts, "/etc/hosts"),
            (files.resolv_conf, "/etc/resolv.conf"),
        )
        if source
    ]
    if files.shm:
        # never id-mapped: tmpfs learnt that in Linux 6.3 only, and the pod's shm starts empty
        binds.append(Bind(source=files.shm, destination=DEV_SHM))
    return binds


def volume_paths(volumes: Iterable[str], config: ContainerConfig) -> list[str]:
    """Give the container paths of an image's VOLUMEs that need a directory of their own, cleaned and sorted.

    Where the CRI mounts something itself the image has no say; a volume on "/" is none. The paths are the image's word: never
    join them to a path of the host.
    """
    taken = {clean_path(mount.container_path) for mount in config.mounts} | {"/"}
    return sorted({clean_path(path) for path in volumes} - taken)


def _volume_binds(inputs: SpecInputs) -> list[Bind]:
    mappings = pod_options(inputs).userns_options
    return [
        Bind(source=source, destination=clean_path(path), uids=mappings.uids, gids=mappings.gids)
        for path, source in sorted(inputs.image_volumes.items())
    ]


def _cri_bind(inputs: SpecInputs, index: int) -> Bind:
    mount, source = inputs.config.mounts[index], inputs.sources.mounts[index]
    if index in inputs.image_mounts:
        mappings = pod_options(inputs).userns_options
        return Bind(
            source=source.path,
            destination=mount_destination(mount, index),
            access="ro",
            uids=mappings.uids,
            gids=mappings.gids,
            options=("nosuid", "nodev", *mount.mount_options),
            layers=inputs.image_mounts[index],
        )
    return Bind(
        source=source.path,
        destination=mount_destination(mount, index),
        propagation=_propagation(mount, source, index),
        access=_access(mount, index, supported=inputs.features.recursive_read_only_mounts),
        uids=mount.uidMappings,
        gids=mount.gidMappings,
        options=mount.mount_options,
    )


def mount_destination(mount: Mount, index: int) -> str:
    """Give the cleaned container path of a CRI mount; raise InvalidArgument for one that is relative or covers the root."""
    path = mount.container_path
    if not path.startswith("/") or "\0" in path:
        raise InvalidArgument(f"mounts[{index}].container_path {path!r} is not an absolute path")
    cleaned = clean_path(path)
    if cleaned == "/":
        raise InvalidArgument(f"mounts[{index}].container_path {path!r} would cover the container's root")
    return cleaned


def _propagation(mount: Mount, source: MountSource, index: int) -> str:
    """Give the OCI propagation; what the source's own mount cannot do would fail silently, so it is an error."""
    needed = [SourcePropagation.SHARED]
    if mount.propagation == BIDIRECTIONAL:
        word = "rshared"
    elif mount.propagation == HOST_TO_CONTAINER:
        word = "rslave"
        needed.append(SourcePropagation.SLAVE)
    else:
        return "rprivate"
    if source.propagation not in needed:
        raise InvalidArgument(
            f"mounts[{index}].propagation: path {source.path!r} is mounted on {source.mountpoint!r} but that is not a "
            f"{' or '.join(needed)} mount; make it one with `mount --make-rshared {source.mountpoint}`"
        )
    return word


def _access(mount: Mount, index: int, *, supported: bool) -> str:
    """Give ro, rw or rro. kubelet reads the word RROUnsupported (cri-api, pkg/errors)."""
    if not mount.recursive_read_only:
        return "ro" if mount.readonly else "rw"
    if not mount.readonly:
        raise InvalidArgument(f"mounts[{index}].recursive_read_only conflicts with readonly being false")
    if not supported:
        raise InvalidArgument(
            f"RROUnsupported: mounts[{index}].recursive_read_only needs a runtime handler that can make such mounts"
        )
    if mount.propagation != PRIVATE:
        raise InvalidArgument(f"mounts[{index}].recursive_read_only needs propagation PROPAGATION_PRIVATE")
    return "rro"
