"""One container's cgroup: a directory in each hierarchy."""

from __future__ import annotations

import os
from errno import EACCES, EBUSY, EEXIST, EINVAL, ENOENT, EOPNOTSUPP, EPERM, EROFS

from runtime.apply.cgroup import files
from runtime.apply.cgroup.detect import detect
from runtime.errors import CgroupFault, KernelFault
from runtime.plan.cgroup import UNIFIED, Layout, Write, cgroup_paths, resource_writes, sub_paths

TYPE_CHECKING = False
if TYPE_CHECKING:
    from runtime.spec.lasting import Pairs
    from runtime.spec.resources import DeviceRule, Resources
    from runtime.state import ContainerState


def for_container(cgroups_path: str, container_id: str, layout: Layout | None = None, *, spares: bool = False) -> Cgroup:
    """Give the cgroup a container will have; nothing is made yet. Raises CgroupFault for a path that cannot be one.

    `spares` is for a runtime without privileges: a hierarchy it may not write to is left out, unless the path was asked for.
    """
    layout = detect() if layout is None else layout
    return Cgroup(cgroup_paths(layout, cgroups_path, container_id), layout, spares=spares, asked=bool(cgroups_path))


def from_state(state: ContainerState) -> Cgroup | None:
    """Give the cgroup of a container; None when it has none."""
    if state.unit is not None:
        from runtime.apply.cgroup.scope import saved_scope

        return saved_scope(state.unit, state.cgroup, spares=bool(state.spares_cgroups))
    return from_paths(state.cgroup, spares=bool(state.spares_cgroups)) if state.cgroup else None


def from_paths(paths: Pairs, *, spares: bool = False) -> Cgroup:
    """Give a cgroup whose `paths` were saved."""
    return Cgroup(paths, spares=spares)


class Cgroup:
    """Directories by hierarchy; every operation covers the cgroups below them too."""

    def __init__(self, paths: Pairs, layout: Layout | None = None, *, spares: bool = False, asked: bool = False) -> None:
        self.paths = paths
        self.spares = spares
        self._asked = asked
        self._layout = layout
        self._made: list[str] = []
        self.born_in_v2 = False
        """Whether the v2 directory was made for the caller, who was forked into it."""

    @property
    def layout(self) -> Layout:
        """Give the host's hierarchies, looked at once."""
        if self._layout is None:
            self._layout = detect()
        return self._layout

    @property
    def unit_record(self) -> tuple[str, str, bool] | None:
        """Give what a state keeps of systemd's unit; None where the cgroup was made without systemd."""
        return None

    def release(self) -> None:
        """Let go of what only the creation needed."""

    def directory(self, controller: str) -> str | None:
        """Give the directory in the v1 hierarchy of a controller, or the v2 one for ""; None when there is none."""
        for key, directory in self.paths:
            if controller == key or (key and controller in key.split(",")):
                return directory
        return None

    def shown(self) -> Pairs:
        """Give what the container is to see: where a hierarchy was left out, the cgroup of the caller, which it stays in."""
        if not self.spares:
            return self.paths
        held = dict(self.paths)
        return tuple((one.key, held.get(one.key, one.mount + one.own.rstrip("/"))) for one in self.layout.hierarchies)

    def create(self) -> None:
        """Make the directories, parents too; those that are there are used, when nothing runs in them and they are not frozen.

        A hierarchy that may be spared is left out when it may not be written: limits asked of it fail later. Raises
        CgroupFault, and then the directories made so far are gone.
        """
        kept = []
        found = self._foreign().exists()
        for key, directory in self.paths:
            try:
                self._make(key, directory)
                if self.spares:
                    self._require_entry(key, directory)
            except OSError as error:
                if self._may_spare(key) and error.errno in (EACCES, EPERM, EROFS, EEXIST):
                    continue
                self.undo()
                detail = "unable to apply cgroup configuration" if self.spares else ""
                raise CgroupFault.from_os(error, "make the container's cgroup", detail, path=directory) from error
            kept.append((key, directory))
        self.paths = tuple(kept)
        if found:
            self._require_idle()

    def _foreign(self) -> Cgroup:
        """Give the part that somebody else may have made."""
        return from_paths(tuple(pair for pair in self.paths if pair[0] != UNIFIED)) if self.born_in_v2 else self

    def _require_idle(self) -> None:
        """Refuse a cgroup that was there and is another's: its limits, its end and its freezer would be shared."""
        group = self._foreign()
        frozen, members = group.frozen(), group.pids()
        if frozen or members:
            self.undo()
            why = "unexpectedly frozen: thaw or remove it" if frozen else f"is not empty: {len(members)} process(es) found"
            raise CgroupFault(f"container's cgroup {why}", path=self.paths[0][1])

    def _may_spare(self, key: str) -> bool:
        """Tell whether to do without a hierarchy: none is asked for, or it is the one beside v1's that limits nothing."""
        return self.spares and (not self._asked or (key == UNIFIED and self.layout.kind == "hybrid"))

    def _require_entry(self, key: str, directory: str) -> None:
        """Raise PermissionError where the caller may not put itself; v2 asks it of the common ancestor too (cgroups(7))."""
        wanted = [f"{directory}/tasks"]
        if key == UNIFIED:
            own = next(one.mount + one.own for one in self.layout.hierarchies if one.key == key)
            wanted = [f"{folder}/cgroup.procs" for folder in (directory, os.path.commonpath((own, directory)))]
        for path in wanted:
            if not os.access(path, os.W_OK, effective_ids=True):
                raise PermissionError(EACCES, os.strerror(EACCES), path)

    def _make(self, key: str, directory: str) -> None:
        missing = []
        while not os.path.isdir(directory):
            missing.append(directory)
            directory = os.path.dirname(directory)
        chain = [directory, *reversed(missing)]
        for path in reversed(missing):
            try:
                os.mkdir(path, 0o755)
            except FileExistsError:
                continue
            self._made.append(path)
        if "cpuset" in key.split(","):
            self._inherit_cpuset(chain[-1])
        elif key == UNIFIED and self.layout.kind == "v2":
            try:
                self._hand_down(chain[-1], None)
            except OSError as error:
                if error.errno != EOPNOTSUPP:  # a threaded cgroup above does not tell its processes
                    raise
            if files.read(chain[-1], "cgroup.type").strip() == "domain invalid":
                detail = "a cgroup above it is threaded or has processes beside controllers for others: choose another place"
                raise CgroupFault(detail, step="make the container's cgroup", path=chain[-1])

    def undo(self) -> None:
        """Remove the directories `create` made, children first, as far as they are empty."""
        for path in reversed(self._made):
            try:
                os.rmdir(path)
            except OSError:
                continue
        self._made.clear()

    def _mount_of(self, key: str) -> str:
        for hierarchy in self.layout.hierarchies:
            if hierarchy.key == key:
                return hierarchy.mount
        return "/sys/fs/cgroup"

    def _ancestors(self, key: str, directory: str) -> list[str]:
        """Give the cgroups above `directory`, from the root of the hierarchy down."""
        mount = self._mount_of(key)
        above = []
        while len(directory) > len(mount):
            directory = os.path.dirname(directory)
            above.append(directory)
        return above[::-1]

    def _inherit_cpuset(self, directory: str) -> None:
        """Fill empty cpus and mems from the root down: v1 lets no process into a cpuset that has none (cpuset(7))."""
        key = next(key for key, _ in self.paths if "cpuset" in key.split(","))
        above = self._ancestors(key, directory)
        for parent, child in zip(above, [*above[1:], directory], strict=True):
            for file in ("cpuset.cpus", "cpuset.mems"):
                if not files.read(child, file).strip():
                    files.write(child, file, files.read(parent, file).strip())

    def _hand_down(self, directory: str, controllers: set[str] | None) -> None:
        """Enable controllers in every cgroup above a v2 one; None means all that the root has, as far as it goes."""
        for parent in self._ancestors(UNIFIED, directory):
            if controllers is None and parent != self._mount_of(UNIFIED) and files.numbers(parent, "cgroup.procs"):
                return  # what it handed down beside its own processes would make the cgroups below invalid (cgroups(7))
            wanted = set(files.read(parent, "cgroup.controllers").split())
            wanted -= set(files.read(parent, "cgroup.subtree_control").split())
            if controllers is not None:
                wanted &= controllers
            for name in sorted(wanted):
                try:
                    files.write(parent, "cgroup.subtree_control", f"+{name}")
                except OSError:
                    if controllers is not None:
                        raise

    def join(self, pid: int) -> None:
        """Move a process, with all its threads, into the cgroup in every hierarchy; 0 is the caller itself."""
        for _, directory in self.paths:
            try:
                files.write(directory, "cgroup.procs", str(pid))
            except OSError as error:
                raise CgroupFault.from_os(error, f"move process {pid} into the cgroup", path=directory) from error

    def needs_placing(self) -> bool:
        """Tell whether the caller may not enter by itself, and somebody else's `place` has to do it."""
        return False

    def place(self, pid: int) -> None:
        """Move a process in that may not enter by itself, by whoever may: here, the caller."""
        self.join(pid)

    def enter(self, *, placed: bool = False) -> None:
        """Move the calling process, which has no threads, into the cgroup; `placed` when it was born in the v2 one already.

        In v1 that goes through `tasks`: the kernel moves a lone caller without the lock that stops every fork of the host,
        which takes milliseconds.
        """
        for key, directory in self.paths:
            if key == UNIFIED and placed:
                continue
            try:
                files.write(directory, "cgroup.procs" if key == UNIFIED else "tasks", "0")
            except OSError as error:
                if self.spares and error.errno in (EACCES, EPERM):
                    continue  # an exec that comes from elsewhere than the container: runc lets it stay there too
                raise CgroupFault.from_os(error, "enter the cgroup", path=directory) from error

    def open_unified(self) -> int:
        """Open the v2 directory for clone3(2), close-on-exec; -1 when there is none."""
        directory = self.directory(UNIFIED)
        return -1 if directory is None else os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)

    def sub(self, wanted: str) -> Cgroup:
        """Give an existing cgroup below: "path" or "controller[,controller]:path"; raise CgroupFault when it is not there."""
        group = Cgroup(sub_paths(self.paths, wanted), self._layout)
        for _, directory in group.paths:
            if not os.path.isdir(directory):
                raise CgroupFault("", step="join the sub-cgroup: adding pid to it", errno=ENOENT, path=directory)
        return group

    def apply(self, resources: Resources) -> None:
        """Make the kernel enforce `resources`, except devices (see `apply_devices`).

        Raises KernelFault for what this host cannot limit, CgroupFault for what the kernel refuses.
        """
        postponed: Write | None = None
        for write in resource_writes(resources, self.layout):
            again, postponed = postponed, None
            try:
                self._write(write)
            except OSError as error:
                if not (write.postponable and error.errno in (EINVAL, EBUSY)):
                    raise self._refused(write, error) from error
                postponed = write
            if again is not None:
                self.write(again)
        if postponed is not None:
            self.write(postponed)

    def write(self, write: Write) -> None:
        """Write one planned value; raise KernelFault or CgroupFault for what the kernel lacks or refuses."""
        try:
            self._write(write)
        except OSError as error:
            raise self._refused(write, error) from error

    def _write(self, write: Write) -> None:
        directory = self.directory(write.controller)
        in_unified = directory is None or write.controller == ""
        if in_unified:
            directory = self.directory(UNIFIED)
        if directory is None:
            if write.optional:
                return
            raise CgroupFault(
                f"cannot set {write.controller or 'unified'} limit: container could not join or create cgroup"
                " (rootless needs no limits + no cgrouppath when no permission is granted for cgroups)",
                step=f"limit the container: {write.choices[0][0]}",
            )
        if in_unified and write.controller and self.layout.kind == "hybrid":
            self._hand_down(directory, {write.controller})
        for file, value in write.choices:
            try:
                files.write(directory, file, value)
            except FileNotFoundError:
                continue
            return
        if not write.optional:
            raise FileNotFoundError(ENOENT, os.strerror(ENOENT), f"{directory}/{write.choices[0][0]}")

    def _is_handed_down(self, controller: str) -> bool:
        directory = self.directory(UNIFIED)
        return not controller or directory is None or controller in files.read(directory, "cgroup.controllers").split()

    def _refused(self, write: Write, error: OSError) -> CgroupFault | KernelFault:
        file, value = write.choices[0]
        if error.errno == ENOENT and self.layout.kind == "v2" and not self._is_handed_down(write.controller):
            raise CgroupFault(
                f"the cgroup above does not hand down the controller {write.controller}, which {file} needs: it has processes,"
                " or may not be written",
                step="limit the container",
            )
        if error.errno == ENOENT:
            return KernelFault(
                f"this kernel has no {' or '.join(name for name, _ in write.choices)}, which linux.resources asks for",
                feature=file,
                step="limit the container",
            )
        from runtime.apply.cgroup.advice import advice

        detail = f"the kernel refuses {value} for {file}{advice(file, error.errno)}"
        return CgroupFault.from_os(error, "limit the container", detail)

    def apply_devices(self, rules: tuple[DeviceRule, ...]) -> None:
        """Let only the devices that `rules`, and then the ones every container has, allow.

        v1 takes lists, v2 an eBPF program (in a hybrid layout v1, which has the controller). Without a device controller,
        and without v2, a runtime with privileges raises KernelFault: an open /dev is no silent downgrade. Without them nothing
        can be done, and need not: such a container has no device but those its user may open.
        """
        try:
            from runtime.apply.cgroup.devices import confine

            confine(self, rules)
        except (CgroupFault, KernelFault):
            if not self.spares:
                raise

    def pids(self) -> list[int]:
        """Give the ids of the processes in the cgroup and below it."""
        from runtime.apply.cgroup.processes import pids

        return pids(self)

    def kill_all(self, signal: int = 9) -> None:
        """Signal every process, leaving none a moment to fork away from it; returns once SIGKILL has emptied the cgroup."""
        from runtime.apply.cgroup.processes import signal_all

        signal_all(self, signal)

    def freeze(self) -> None:
        """Stop every process and return when all stand still."""
        from runtime.apply.cgroup.processes import set_frozen

        set_frozen(self, frozen=True)

    def thaw(self) -> None:
        """Let every process run on."""
        from runtime.apply.cgroup.processes import set_frozen

        set_frozen(self, frozen=False)

    def frozen(self) -> bool:
        """Tell whether the cgroup is frozen, itself or through one above it."""
        from runtime.apply.cgroup.processes import is_frozen

        return is_frozen(self)

    def oom_count(self) -> int:
        """Give how many processes the kernel has killed for memory; 0 when that cannot be known."""
        sources = (("memory", "memory.oom_control"), (UNIFIED, "memory.events"))
        for controller, file in sources:
            directory = self.directory(controller)
            if directory is not None:
                try:
                    return files.keyed(files.read(directory, file), "oom_kill")
                except OSError:
                    continue
        return 0

    def exists(self) -> bool:
        """Tell whether any of the directories is there."""
        return any(os.path.isdir(directory) for _, directory in self.paths)

    def remove(self, timeout: float = 2.0) -> None:
        """Remove the directories and what the container made below them; absent ones are no error.

        Waits up to `timeout` seconds for dying processes to leave; raises CgroupFault naming those that do not.
        """
        from runtime.apply.cgroup.processes import remove

        remove(self, timeout)
