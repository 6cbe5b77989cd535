"""Restore: make a container from criu's images instead of from a program."""

from __future__ import annotations

import _socket
import os
import sys

from runtime.apply.faults import Step
from runtime.apply.paths import RootPaths
from runtime.checkpoint import notes, service, stage
from runtime.checkpoint.dump import EXTERNAL_KINDS, common_fields, config_file, folders_of, make_folder, places_in
from runtime.checkpoint.message import OPTIONS, OPTS, RESTORE, TYPE, encode
from runtime.errors import RuntimeFault, SpecFault
from runtime.kernel import pidfd
from runtime.kernel.loopback import loopback_up
from runtime.kernel.namespace import FLAGS, setns, unshare
from runtime.launch import creator
from runtime.launch.ending import end_process, remove_folder
from runtime.launch.inherited import Inherited
from runtime.launch.outside import write_pid_file
from runtime.launch.protocol import make_links
from runtime.plan.checkpoint import Known, cgroup_externals, is_outside
from runtime.plan.launch import plan_launch
from runtime.privilege import standing
from runtime.record import replace
from runtime.state import reserve, save
from runtime.undo import Descriptors, Undo

TYPE_CHECKING = False
if TYPE_CHECKING:
    from runtime.apply.cgroup import Cgroup
    from runtime.checkpoint.message import Fields
    from runtime.checkpoint.request import RestoreRequest
    from runtime.plan.launch import LaunchPlan
    from runtime.privilege import Standing
    from runtime.state import ContainerState

LOG = "restore.log"
_IMAGE_OF = {"ipc": "ipcns-", "uts": "utsns-"}
"""Beginnings of the names of the images a namespace is kept in, where criu has kept it."""


def restore(request: RestoreRequest) -> ContainerState:
    """Restore a container and give its state: it runs, as our child. Raises RuntimeFault with nothing left."""
    service.find_program(request.options.program)
    plan = plan_launch(creator.load_spec(request.create), request.create)
    _check_namespaces(plan)
    if request.options.lazy_pages:
        service.require_feature(request.options.program, lazy=True)
    with Step("look for criu's images", request.options.images):
        os.stat(os.path.join(request.options.images, "inventory.img"))
    make_folder(folders_of(request.options)[1])
    undo, descriptors = Undo(), Descriptors()
    try:
        state = Restoration(request, plan, undo, descriptors).run()
        undo.commit()
    except BaseException as error:
        for line in undo.run():
            error.add_note(f"not undone: {line}")
        raise
    finally:
        descriptors.close()
    return state


def _check_namespaces(plan: LaunchPlan) -> None:
    for at, one in enumerate(plan.spec.linux.namespaces):
        if one.path and one.type in ("mount", "user"):
            raise SpecFault(
                f"criu cannot restore into a {one.type} namespace of others: leave its path out",
                pointer=f"/linux/namespaces/{at}/path",
            )


class Restoration:
    """One restore: what it opens and makes on its way."""

    def __init__(self, request: RestoreRequest, plan: LaunchPlan, undo: Undo, descriptors: Descriptors) -> None:
        self.request = request
        self.plan = plan
        self.undo = undo
        self.descriptors = descriptors
        self.inherited: list[int] = []
        """What criu gets beside its folders and its standard streams."""
        self.entered: list[tuple[str, int]] = []
        """Namespaces criu enters (or, with -1, makes) itself, because its images do not hold them."""
        self.state: ContainerState | None = None

    def run(self) -> ContainerState:
        """Do all of it."""
        request, plan, undo = self.request.create, self.plan, self.undo
        folder = reserve(request.state_root, request.container_id)
        undo.push("the state directory", lambda: remove_folder(folder))
        rights = standing(request.rootless)
        cgroup = creator.make_cgroup(plan, rights)
        self.state = creator.first_state(plan, cgroup)
        save(request.state_root, self.state)
        inherited = self._open_mounts(cgroup, rights)
        with_tmp = self._lend_tmp(inherited.root_mount)
        undo.push("the cgroup", cgroup.remove)
        cgroup.create()
        undo.push("what criu has begun", cgroup.kill_all)  # it dies with its init, but a criu that is killed leaves all behind
        cgroup.apply(plan.spec.linux.resources)
        cgroup.apply_devices(plan.spec.linux.resources.devices)
        creator.compile_filter(plan.spec.linux.seccomp, folder)
        scene = stage.Stage(folder)
        fields = common_fields(self.request.options, LOG) + self._fields(scene, cgroup, inherited)
        self._ask(fields, scene, inherited)
        creator.give_cgroup(plan, cgroup, self.state.pid)
        cgroup.release()
        if with_tmp:
            os.rmdir("tmp", dir_fd=inherited.root_mount)
        if request.pid_file is not None:
            write_pid_file(request.pid_file, self.state.pid)
        return replace(self.state, status="running")

    def _open_mounts(self, cgroup: Cgroup, rights: Standing) -> Inherited:
        """Open what the container takes from the host: the same as a creation opens."""
        ours, theirs = make_links()  # nobody is to talk over it: a restored init is no program of ours
        inherited = Inherited(self.plan, theirs, cgroup, theirs.socket, rights)
        creator.open_sources(inherited, self.descriptors)
        ours.close()
        theirs.close()
        return inherited

    def _lend_tmp(self, root_mount: int) -> bool:
        """Make /tmp in a root that has none and will be read-only: criu puts the host's root there for a moment."""
        root = self.plan.spec.root
        if root is None or not root.readonly:
            return False
        try:
            os.mkdir("tmp", 0o700, dir_fd=root_mount)
        except OSError:
            return False  # it is there, or the file system itself is read-only: criu will say what it lacks
        self.undo.push("the folder lent to criu", lambda: os.rmdir("tmp", dir_fd=root_mount))
        return True

    def _fields(self, scene: stage.Stage, cgroup: Cgroup, inherited: Inherited) -> Fields:
        request, plan = self.request, self.plan
        fields: Fields = [
            (OPTIONS["root"], scene.root),
            (OPTIONS["rst_sibling"], True),
            (OPTIONS["evasive_devices"], True),
        ]
        fields += config_file(plan.spec.annotations)
        if request.lsm_profile:
            fields.append((OPTIONS["lsm_profile"], request.lsm_profile))
        if request.lsm_mount_context:
            fields.append((OPTIONS["lsm_mount_context"], request.lsm_mount_context))
        fields += self._mount_fields(scene, cgroup, inherited)
        fields += self._namespace_fields(inherited)
        fields += self._stream_fields()
        if self._manages_cgroups():
            fields += _cgroup_roots(cgroup)
        return fields

    def _mount_fields(self, scene: stage.Stage, cgroup: Cgroup, inherited: Inherited) -> Fields:
        """Say where each mount from outside is on the stage; criu does not mind names that no image mentions."""
        plan = self.plan
        sources = {one.destination: scene.source(index) for index, one in enumerate(plan.mounts) if index in inherited.sources}
        paths = RootPaths(inherited.root_mount)
        places = places_in(paths, plan.mounts)
        found = {
            place: sources[one.destination]
            for one, place in zip(plan.mounts, places, strict=True)
            if one.destination in sources
        }
        found |= {one.destination: sources[one.destination] for one in plan.mounts if one.destination in sources}
        for one in notes.read_mounts(self.request.options.images):
            if one.under in sources:
                found[one.point] = sources[one.under] + one.inside
        known = Known(plans=plan.mounts, places=places, cgroups=cgroup.paths)
        found |= {one.point: one.source for one in cgroup_externals(known)}
        found |= {node.path: node.path for node in plan.devices.nodes}
        found |= dict.fromkeys(plan.spec.linux.masked_paths, "/dev/null")
        return [(OPTIONS["ext_mnt"], encode([(1, point), (2, source)])) for point, source in found.items() if source]

    def _manages_cgroups(self) -> bool:
        return self.request.options.cgroups_mode != "ignore"

    def _namespace_fields(self, inherited: Inherited) -> Fields:
        fields: Fields = []
        given = dict(inherited.namespace_fds)
        for one in self.plan.spec.linux.namespaces:
            kept = one.type in _IMAGE_OF and _has_image(self.request.options.images, _IMAGE_OF[one.type])
            if one.path and one.type in EXTERNAL_KINDS:
                fields.append(self._inherit(EXTERNAL_KINDS[one.type][1], given[one.type]))
            elif one.path and kept:
                fields.append((OPTIONS["join_ns"], encode([(1, one.type), (2, one.path)])))
            elif one.path:
                self.entered.append((one.type, given[one.type]))
            elif (one.type in _IMAGE_OF and not kept) or (
                one.type == "cgroup" and self.request.options.cgroups_mode == "ignore"
            ):
                self.entered.append((one.type, -1))
        return fields

    def _inherit(self, key: str, fd: int) -> tuple[int, bytes]:
        self.inherited.append(fd)
        number = service.FIRST_INHERITED + len(self.inherited) - 1
        return OPTIONS["inherit_fd"], encode([(1, key), (2, number)])

    def _stream_fields(self) -> Fields:
        """Give the restored init our streams in place of those it had from outside.

        They are copies: criu takes away what it inherits, and looks at its own stdin for the terminal of a shell's job.
        """
        streams = notes.read_streams(self.request.options.images)
        ours = self.request.create.stdio or (0, 1, 2)
        fields: Fields = []
        for number, key in zip(ours, streams, strict=False):
            if is_outside(key):
                fields.append((OPTIONS["external"], key))
            if key:
                fields.append(self._inherit(key, number))
        return fields

    def _ask(self, fields: Fields, scene: stage.Stage, inherited: Inherited) -> None:
        options = self.request.options

        def enter() -> None:
            inherited.cgroup.join(os.getpid())
            for kind, fd in self.entered:
                with Step(f"enter the {kind} namespace for criu"):
                    unshare(FLAGS[kind]) if fd < 0 else setns(fd, FLAGS[kind])
            stage.build(scene, inherited.root_mount, self.plan.mounts, dict(inherited.sources))

        launch = service.Launch(
            enter=enter,
            folders=folders_of(options),
            inherited=tuple(self.inherited),
            stdio=self.request.create.stdio or (0, 1, 2),
        )
        criu = service.Criu(options.program, launch)
        try:
            answer = criu.ask([(TYPE, RESTORE), (OPTS, encode(fields))], self._notified)
        finally:
            criu.close()
        if not answer.success:
            log = os.path.join(options.work or options.images, LOG)
            raise service.failure(options.program, f"restore container {self.request.create.container_id!r}", answer, log)
        self._note_init(answer.pid)

    def _notified(self, script: str, pid: int, fds: tuple[int, ...]) -> None:
        if script == "setup-namespaces":
            if "network" in self.plan.namespaces.new:
                _raise_loopback(pid)  # now, because connections are bound to its address
            self._hooks(pid)
        elif script == "post-restore":
            self._note_init(pid)
        elif script == "orphan-pts-master" and fds and self.request.create.console_socket is not None:
            _send_master(self.request.create.console_socket, fds[0])

    def _note_init(self, pid: int) -> None:
        """Save init's id, as soon as it exists and before it is let run."""
        assert self.state is not None  # run() has made the first one
        if self.state.pid == pid:
            return
        found = pidfd.stat(pid)
        if found is None:
            raise RuntimeFault("init ended before it was restored", step="restore the container")
        start = found[1]
        self.undo.push("init", lambda: end_process(pid, start))
        namespaces = self.state.namespaces
        if "time" not in namespaces and os.stat(f"/proc/{pid}/ns/time").st_ino != os.stat("/proc/self/ns/time").st_ino:
            namespaces = (*namespaces, "time")  # criu's, which keeps the clocks going from where they stood
        self.state = replace(self.state, pid=pid, start_time=start, created=creator.now(), namespaces=namespaces)
        save(self.request.create.state_root, self.state)

    def _hooks(self, pid: int) -> None:
        if self.plan.has_runtime_hooks():
            creator.runtime_hooks(self.plan, pid)


def _raise_loopback(pid: int) -> None:
    """Set the loopback device up in a network namespace criu has made: it gives none of its properties back."""
    own = os.open("/proc/self/ns/net", os.O_RDONLY | os.O_CLOEXEC)
    target = os.open(f"/proc/{pid}/ns/net", os.O_RDONLY | os.O_CLOEXEC)
    try:
        with Step("set the loopback device up"):
            setns(target, FLAGS["network"])
            try:
                loopback_up()
            finally:
                setns(own, FLAGS["network"])
    finally:
        os.close(own)
        os.close(target)


def _has_image(folder: str, beginning: str) -> bool:
    return any(name.startswith(beginning) for name in os.listdir(folder))


def _cgroup_roots(cgroup: Cgroup) -> Fields:
    """Name the container's cgroup in every hierarchy, below which criu restores those of its processes."""
    mounts = {one.key: one.mount for one in cgroup.layout.hierarchies}
    fields: Fields = []
    for key, folder in cgroup.paths:
        if key in mounts:
            path = folder.removeprefix(mounts[key]) or "/"
            fields.append((OPTIONS["cg_root"], encode([(1, key), (2, path)])))
    return fields


def _send_master(console_socket: int, master: int) -> None:
    with Step("send the terminal over the console socket"):
        sender = _socket.socket(_socket.AF_UNIX, _socket.SOCK_STREAM, 0, os.dup(console_socket))
        try:
            rights = [(_socket.SOL_SOCKET, _socket.SCM_RIGHTS, master.to_bytes(4, sys.byteorder))]
            sender.sendmsg([b"orphan-pts-master"], rights)
        finally:
            sender.close()
