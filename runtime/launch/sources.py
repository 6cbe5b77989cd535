"""What a container takes from the host's file systems, as detached mounts: its root, the sources of its binds, device nodes."""

from __future__ import annotations

from runtime.apply.faults import Step
from runtime.apply.mounts import change_attributes, clone_bind, mount_overlay
from runtime.kernel import mount as k
from runtime.plan.mounts import label_options
from runtime.record import replace

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    from runtime.apply.idmap import IdMaps
    from runtime.launch.inherited import Inherited
    from runtime.plan.mounts import MountPlan


def open_mounts(inherited: Inherited, keep: Callable[[int], int]) -> None:
    """Clone everything; `keep` sees every descriptor. Raises RuntimeFault.

    The creator does this, before any namespace is entered. A user without privileges may clone a mount in a mount namespace of
    his own only: then init does it, first of all.
    """
    id_maps = _id_maps(inherited)
    try:
        _open_mounts(inherited, keep, id_maps)
    finally:
        if id_maps is not None:
            id_maps.close()


def _id_maps(inherited: Inherited) -> IdMaps | None:
    """Give what id-mapped mounts need, when there are any: those of the document, and layers seen from a user namespace."""
    plan = inherited.plan
    layered = (
        plan.request.rootfs is not None or any(one.layers for one in plan.mounts)
    ) and plan.namespaces.in_user_namespace()
    if not layered and not any(one.id_map for one in plan.mounts):
        return None
    from runtime.apply.idmap import IdMaps

    return IdMaps(plan.namespaces, inherited.user_fd)


def _merge(plan: MountPlan, id_maps: IdMaps | None, label: tuple[str, ...]) -> int:
    from runtime.request import RootfsMount

    with Step(f"mount overlay on {plan.destination}", plan.destination):
        fd = mount_overlay(RootfsMount(lower=plan.layers, options=label), id_maps)
        change_attributes(fd, plan)
        return fd


def _label(text: str) -> tuple[str, ...]:
    """Give the option for the overlays that we mount; raise KernelFault for a label where SELinux is off."""
    if text:
        from runtime.apply.labels import require_selinux

        require_selinux()
    return label_options(text)


def _open_mounts(inherited: Inherited, keep: Callable[[int], int], id_maps: IdMaps | None) -> None:
    plan = inherited.plan
    own = id_maps if plan.namespaces.in_user_namespace() else None
    label = _label(plan.spec.linux.mount_label)
    if plan.request.rootfs is not None:
        rootfs = plan.request.rootfs
        labelled = replace(rootfs, options=(*rootfs.options, *label)) if label else rootfs
        inherited.root_mount = keep(mount_overlay(labelled, own))
    else:
        with Step("open the root file system", plan.rootfs):
            inherited.root_mount = keep(k.open_tree(plan.rootfs, recursive=True))
            slave = plan.spec.linux.rootfs_propagation in ("slave", "rslave")  # what the host mounts below is to be seen
            propagation = k.MS_SLAVE if slave else k.MS_PRIVATE
            k.mount_setattr(inherited.root_mount, k.Attributes(propagation=propagation), recursive=True)
    for index, one in enumerate(plan.mounts):
        if one.kind == "bind" and not one.late_source:
            inherited.sources[index] = fd = keep(clone_bind(one))
            if one.id_map is not None and id_maps is not None:
                id_maps.apply(fd, one.id_map, one.source)
        elif one.layers:
            inherited.sources[index] = keep(_merge(one, own, label))
    if plan.namespaces.in_user_namespace() or inherited.standing.nested:
        from runtime.apply.devices import clone_nodes

        inherited.node_clones = {path: keep(fd) for path, fd in clone_nodes(plan.devices, plan.spec.linux).items()}
