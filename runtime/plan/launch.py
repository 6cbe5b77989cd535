"""Everything that is decided before the first system call of a create."""

from __future__ import annotations

import os

from runtime.errors import SpecFault
from runtime.kernel.mount import MOUNT_ATTR_RDONLY
from runtime.plan.devices import DevicePlan, plan_devices
from runtime.plan.mounts import MountPlan, plan_mounts, root_propagation
from runtime.plan.namespaces import NamespacePlan, plan_namespaces
from runtime.plan.process import ProcessPlan, plan_process
from runtime.record import Record

TYPE_CHECKING = False
if TYPE_CHECKING:
    from runtime.request import CreateRequest
    from runtime.spec.model import Spec


class LaunchPlan(Record):
    """A container, decided. `rootfs` is absolute; `finished_propagation` is what its root gets at the end, or None."""

    spec: Spec
    request: CreateRequest
    bundle: str
    rootfs: str
    namespaces: NamespacePlan
    mounts: tuple[MountPlan, ...]
    devices: DevicePlan
    process: ProcessPlan
    propagation: tuple[int, bool]
    finished_propagation: tuple[int, bool] | None

    def has_runtime_hooks(self) -> bool:
        """Tell whether hooks are run in the runtime's namespaces while init waits."""
        return bool(self.spec.hooks.prestart or self.spec.hooks.create_runtime)

    def gives_cgroup(self) -> bool:
        """Tell whether the cgroup becomes its user's: it is shown for writing, and as the root (config-linux.md)."""
        return "cgroup" in self.namespaces.new and any(
            one.kind == "cgroup"
            and (one.source, one.destination) == ("cgroup", "/sys/fs/cgroup")
            and not one.change.set & MOUNT_ATTR_RDONLY
            for one in self.mounts
        )


def plan_launch(spec: Spec, request: CreateRequest) -> LaunchPlan:
    """Decide a whole container; raise SpecFault."""
    if spec.root is None:
        raise SpecFault("the root file system is missing", pointer="/root")
    if spec.process is None:
        raise SpecFault("the process is missing", pointer="/process")
    bundle = os.path.abspath(request.bundle)
    mounts = plan_mounts(spec, bundle)
    word = spec.linux.rootfs_propagation
    return LaunchPlan(
        spec=spec,
        request=request,
        bundle=bundle,
        rootfs=os.path.normpath(os.path.join(bundle, spec.root.path)),
        namespaces=plan_namespaces(spec.linux),
        mounts=mounts,
        devices=plan_devices(spec.linux.devices, mounts),
        process=plan_process(spec.process),
        propagation=root_propagation(word),
        finished_propagation=root_propagation(word) if word else None,
    )
