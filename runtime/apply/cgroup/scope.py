"""A container's cgroup that systemd makes: a transient scope, delegated, so that what is below it is ours."""

from __future__ import annotations

import os

from runtime.apply.cgroup import manager
from runtime.apply.cgroup.detect import detect
from runtime.apply.cgroup.group import Cgroup
from runtime.caution import caution
from runtime.errors import KernelFault
from runtime.kernel.execute import close_range
from runtime.kernel.fork import fork
from runtime.kernel.prctl import set_parent_death_signal
from runtime.launch.ending import end_child
from runtime.plan.cgroup import clean
from runtime.plan.systemd import Unit, annotated_properties, scope_properties, unit_of
from runtime.plan.systemd_limits import device_properties, is_idle_with_weight, limit_properties, rounded

TYPE_CHECKING = False
if TYPE_CHECKING:
    from runtime.plan.cgroup import Layout
    from runtime.plan.systemd import Property
    from runtime.privilege import Standing
    from runtime.spec.lasting import Pairs
    from runtime.spec.model import Spec
    from runtime.spec.resources import DeviceRule, Resources

_SIGKILL = 9


def unit_paths(unit: Unit, layout: Layout) -> Pairs:
    """Give the directory of a unit in each hierarchy, by key."""
    below = manager.manager_cgroup(user=unit.user).rstrip("/") + unit.path
    return tuple((hierarchy.key, hierarchy.mount.rstrip("/") + below) for hierarchy in layout.hierarchies)


def new_scope(spec: Spec, container_id: str, rights: Standing) -> Scope:
    """Give the scope a container will have; nothing is made yet. Raises CgroupFault, SpecFault, KernelFault without systemd.

    Who would spare cgroups has his own manager make it. Root of a user namespace may be a user of the host's (podman without
    root) or root of a system of its own (a system container): whose bus it is told to speak to says which.
    """
    user = rights.spares_cgroups and not (rights.nested and manager.is_own_system())
    unit = unit_of(spec.linux.cgroups_path, container_id, user=user)
    layout = detect()
    if user and layout.kind != "v2":
        raise KernelFault(
            "--systemd-cgroup without root needs cgroup v2 alone, v1 cannot be delegated: leave the option out",
            feature="cgroup v2",
            step="find the container's cgroup",
        )
    scope = Scope(unit, unit_paths(unit, layout), layout, spares=user)
    scope.plan(container_id, spec.linux.resources, spec.annotations)
    return scope


def saved_scope(record: tuple[str, str, bool], paths: Pairs, *, spares: bool = False) -> Scope:
    """Give the scope whose record and paths were saved."""
    name, slice_name, user = record
    return Scope(Unit(name=name, slice=slice_name, user=user), paths, spares=spares)


class Scope(Cgroup):
    """A cgroup whose top systemd owns: it is told every limit it has a word for, and then ours are written."""

    def __init__(self, unit: Unit, paths: Pairs, layout: Layout | None = None, *, spares: bool = False) -> None:
        super().__init__(paths, layout, spares=spares, asked=True)
        self.unit = unit
        self._below = ""
        self._given: tuple[Property, ...] = ()
        self._container_id = ""
        self._started_with: Resources | None = None
        self._holder = 0
        self._is_ours = True

    def plan(self, container_id: str, resources: Resources, annotations: Pairs) -> None:
        """Work out what the scope will be started with; raise CgroupFault or SpecFault."""
        self._container_id = container_id
        self._started_with = resources
        limits = limit_properties(resources, v2=self._v2)
        self._given = (*annotated_properties(annotations), *limits, *device_properties(resources.devices))

    @property
    def unit_record(self) -> tuple[str, str, bool]:
        """See Cgroup."""
        return self.unit.name, self.unit.slice, self.unit.user

    @property
    def _v2(self) -> bool:
        return self.layout.kind == "v2"

    def create(self) -> None:
        """Start the scope around a process that only waits, since systemd makes none without; then what systemd leaves out."""
        self._is_ours = False  # until systemd has made it: a scope of that name may be another container's
        self._holder = _fork_holder()
        try:
            holds = f"container {self._container_id}"
            manager.start_scope(self.unit, (*scope_properties(self.unit, holds, [self._holder], v2=self._v2), *self._given))
        except BaseException:
            self.release()
            raise
        self._is_ours = True
        super().create()

    def _require_idle(self) -> None:
        """See Cgroup: systemd has just made it, and refuses a name that is taken; the process in it is the one that waits."""

    def _require_entry(self, key: str, directory: str) -> None:
        """See Cgroup: whoever may not enter is placed."""

    def needs_placing(self) -> bool:
        """See Cgroup; a user may not where the cgroup above both, a session's say, is the system's (cgroups(7), delegation)."""
        if not self.unit.user:
            return False
        try:
            for key, directory in self.paths:
                super()._require_entry(key, directory)
        except PermissionError:
            return True
        return False

    def place(self, pid: int) -> None:
        """See Cgroup."""
        manager.attach(self.unit, self._below, pid)

    def sub(self, wanted: str) -> Cgroup:
        """See Cgroup; it is still systemd that places whoever may not enter."""
        group = Scope(self.unit, super().sub(wanted).paths, self._layout, spares=self.spares)
        group._below = clean(f"/{wanted}").rstrip("/")
        return group

    def release(self) -> None:
        """End the process that held the scope; init is in it."""
        if self._holder:
            end_child(self._holder)
            self._holder = 0

    def apply(self, resources: Resources) -> None:
        """See Cgroup; systemd is told first, unless it was when the scope started."""
        if resources is not self._started_with:
            properties = limit_properties(resources, v2=self._v2)
            if properties:
                manager.set_properties(self.unit, properties)
        if self._v2 and is_idle_with_weight(resources):
            caution("unable to apply both cpu.weight and cpu.idle to systemd, ignoring cpu.weight")
        super().apply(rounded(resources))

    def apply_devices(self, rules: tuple[DeviceRule, ...]) -> None:
        """See Cgroup; systemd is told first, unless it was when the scope started."""
        if self._started_with is None:
            manager.set_properties(self.unit, device_properties(rules))
        super().apply_devices(rules)

    def remove(self, timeout: float = 2.0) -> None:
        """Stop the unit, and remove what systemd leaves of its directories."""
        self.release()
        if self._is_ours:
            manager.stop(self.unit)
            super().remove(timeout)


def _fork_holder() -> int:
    """Fork a process that waits to be killed, and is when its parent ends."""
    parent = os.getpid()
    pid = fork()
    if pid == 0:
        try:
            set_parent_death_signal(_SIGKILL)
            close_range(0)
            while os.getppid() == parent:
                _pause()
        finally:
            os._exit(0)
    return pid


def _pause() -> None:
    import select

    select.poll().poll(60_000)
