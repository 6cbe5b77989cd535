"""Import everything a child may need, then forbid importing.

Once a process has entered a container's mount namespace, sys.path leads into the container: whatever it imported from there
would be code of the container's, run with all the runtime's rights. So nothing is imported from then on.
"""

from __future__ import annotations

import sys

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator

    from runtime.plan.launch import LaunchPlan
    from runtime.plan.process import ProcessPlan


def preload_process(plan: ProcessPlan, *, seccomp: bool) -> None:
    """Import what becoming the user's process takes, beside what runtime.launch imports at its top."""
    _load(_of_process(plan, seccomp=seccomp))


def preload_launch(plan: LaunchPlan) -> None:
    """Import what stage1 and init of this plan take."""
    preload_process(plan.process, seccomp=plan.spec.linux.seccomp is not None)
    _load(_of_launch(plan))


def _load(names: Iterator[str]) -> None:
    for name in names:
        if name not in sys.modules:
            __import__(name)


def _of_process(plan: ProcessPlan, *, seccomp: bool) -> Iterator[str]:
    source = plan.source
    if source.terminal:
        yield "fcntl"
    if source.scheduler or source.io_priority:
        yield "runtime.apply.scheduling"
    if seccomp:
        yield "runtime.kernel.seccomp"


def _of_launch(plan: LaunchPlan) -> Iterator[str]:
    linux, hooks = plan.spec.linux, plan.spec.hooks
    if any(mount.kind == "cgroup" for mount in plan.mounts):
        yield "runtime.apply.cgroupmount"
    if any(mount.copy_up for mount in plan.mounts):
        yield "runtime.apply.copyup"
    if plan.devices.nodes:
        yield "runtime.apply.devices"
    if linux.sysctl:
        yield "runtime.apply.sysctl"
    if linux.personality or linux.memory_policy:
        yield "runtime.apply.scheduling"
    if plan.spec.hostname or plan.spec.domainname:
        yield "runtime.kernel.uts"
    if "network" in plan.namespaces.new or plan.namespaces.user_path:
        yield from ("fcntl", "runtime.kernel.loopback")
    if hooks.create_container or hooks.start_container:
        yield from ("select", "runtime.launch.hooks")
    if linux.seccomp is not None and linux.seccomp.listener_path:
        yield "runtime.plan.waiting"


class _Refusal:
    """The only finder that is left: it says no."""

    @staticmethod
    def find_spec(name: str, _path: object = None, _target: object = None) -> None:
        """Raise ImportError, whatever is looked for."""
        raise ImportError(f"{name} would be imported from the container", name=name)


def forbid_imports() -> None:
    """Make every import of a module that is not loaded yet fail, in this process and for good."""
    sys.meta_path[:] = [_Refusal]
    sys.path_hooks.clear()
    sys.path.clear()
