"""Checkpoint: have criu write a container's processes into images."""

from __future__ import annotations

import os
import stat

from runtime.apply.faults import Step
from runtime.apply.paths import RootPaths
from runtime.checkpoint import notes, service
from runtime.checkpoint.message import CGROUP_MODES, DUMP, OPTIONS, OPTS, PRE_DUMP, TYPE, encode
from runtime.errors import StateFault, UsageFault
from runtime.kernel.namespace import CLONE_NEWNET, setns
from runtime.launch.creator import load_spec
from runtime.plan.checkpoint import Known, Stream, external_mounts, is_outside, outside_key, parse_mountinfo
from runtime.plan.devices import plan_devices
from runtime.plan.mounts import plan_mounts
from runtime.request import CreateRequest
from runtime.state import load, read_file

TYPE_CHECKING = False
if TYPE_CHECKING:
    from runtime.checkpoint.message import Fields
    from runtime.checkpoint.request import CriuOptions, DumpRequest
    from runtime.plan.checkpoint import MountLine
    from runtime.plan.mounts import MountPlan
    from runtime.spec.lasting import Pairs
    from runtime.spec.model import Spec
    from runtime.state import ContainerState

LOG = "dump.log"
EXTERNAL_KINDS = {"network": ("net", "extRootNetNS"), "pid": ("pid", "extRootPidNS")}
"""Namespaces of others that criu knows how to leave out, and the names it calls them by."""
_ENTERED = ("ipc", "uts", "cgroup")
"""Namespaces of others that criu leaves out when it is in them itself."""


def dump(request: DumpRequest) -> None:
    """Write the images; raise StateFault for a container that does not run, RuntimeFault for what criu says.

    On failure the container runs on. On success it has been killed, but for a pre-dump or with `leave_running`; its state
    and cgroup are still there.
    """
    state = load(request.state_root, request.container_id)
    if state.status not in ("running", "paused"):
        raise StateFault(f"container {state.id!r} cannot be checkpointed in {state.status} state")
    options = request.options
    service.find_program(options.program)
    _check_parent(request)
    if request.pre_dump or request.parent:
        service.require_feature(options.program, memory=True)
    if options.lazy_pages:
        service.require_feature(options.program, lazy=True)
    for folder in folders_of(options):
        make_folder(folder)
    order = CreateRequest(container_id=state.id, state_root=request.state_root, bundle=state.bundle)
    spec = load_spec(order)
    _ask(request, common_fields(options, LOG) + _fields(request, state, spec), _namespaces_of(spec, state))


def folders_of(options: CriuOptions) -> tuple[str, str]:
    """Give the folder of the images and that of the log."""
    return options.images, options.work or options.images


def make_folder(path: str) -> None:
    """Make a folder for criu where it is missing."""
    with Step("make the folder for criu's files", path):
        os.makedirs(path, 0o700, exist_ok=True)


def _check_parent(request: DumpRequest) -> None:
    if not request.parent:
        return
    if os.path.isabs(request.parent):
        raise UsageFault("--parent-path must be relative")
    if not os.path.isdir(os.path.join(request.options.images, request.parent)):
        raise UsageFault(f"invalid --parent-path: {os.path.join(request.options.images, request.parent)} is not a directory")


def _namespaces_of(spec: Spec, state: ContainerState) -> list[str]:
    """Give those namespaces of others the container is in that criu has to be in too, so that it leaves them alone."""
    return [f"/proc/{state.pid}/ns/{one.type}" for one in spec.linux.namespaces if one.path and one.type in _ENTERED]


def common_fields(options: CriuOptions, log: str) -> Fields:
    """Give the options a checkpoint and a restore have in common."""
    if options.cgroups_mode not in CGROUP_MODES:
        raise UsageFault(f"invalid manage-cgroups-mode value {options.cgroups_mode!r}: it is soft, full, strict or ignore")
    return [
        (OPTIONS["images_dir_fd"], service.IMAGES_NUMBER),
        (OPTIONS["work_dir_fd"], service.WORK_NUMBER),
        (OPTIONS["log_level"], 4),
        (OPTIONS["log_file"], log),
        (OPTIONS["manage_cgroups"], True),
        (OPTIONS["manage_cgroups_mode"], CGROUP_MODES[options.cgroups_mode]),
        (OPTIONS["notify_scripts"], True),
        (OPTIONS["orphan_pts_master"], True),
        (OPTIONS["tcp_established"], options.tcp_established),
        (OPTIONS["tcp_close"], options.tcp_close),
        (OPTIONS["ext_unix_sk"], options.ext_unix_sk),
        (OPTIONS["shell_job"], options.shell_job),
        (OPTIONS["file_locks"], options.file_locks),
        (OPTIONS["auto_dedup"], options.auto_dedup),
        (OPTIONS["lazy_pages"], options.lazy_pages),
        (OPTIONS["empty_ns"], CLONE_NEWNET),
    ]


CONFIG_ANNOTATION = "org.criu.config"


def config_file(annotations: Pairs) -> Fields:
    """Name the file with more options for criu: that of the annotation org.criu.config, else runc's, whose users have one."""
    path = dict(annotations).get(CONFIG_ANNOTATION, "/etc/criu/runc.conf")
    return [(OPTIONS["config_file"], path)] if path else []


def _fields(request: DumpRequest, state: ContainerState, spec: Spec) -> Fields:
    fields: Fields = [
        (OPTIONS["pid"], state.pid),
        (OPTIONS["root"], state.rootfs),
        (OPTIONS["leave_running"], request.leave_running),
        (OPTIONS["tcp_skip_in_flight"], request.tcp_skip_in_flight),
        (OPTIONS["link_remap"], request.link_remap),
    ]
    fields += config_file(state.annotations)
    for one in spec.linux.namespaces:
        if one.path and one.type in EXTERNAL_KINDS:
            kind, key = EXTERNAL_KINDS[one.type]
            number = os.stat(f"/proc/{state.pid}/ns/{kind}").st_ino
            fields.append((OPTIONS["external"], f"{kind}[{number}]:{key}"))
    freezer = dict(state.cgroup).get("freezer") or dict(state.cgroup).get("")
    if freezer:
        fields.append((OPTIONS["freeze_cgroup"], freezer))
    if request.page_server is not None:
        address, port = request.page_server
        fields.append((OPTIONS["ps"], encode([(1, address), (2, port)])))
    if request.parent:
        fields += [(OPTIONS["parent_img"], request.parent)]
    if request.parent or request.pre_dump:
        fields += [(OPTIONS["track_mem"], True)]
    if not request.pre_dump:
        fields += _outside(request, state, spec)
    return fields


def _outside(request: DumpRequest, state: ContainerState, spec: Spec) -> Fields:
    """Name the mounts and streams that are not the container's own, and note them beside the images for the restore."""
    lines = parse_mountinfo(read_file(f"/proc/{state.pid}/mountinfo").decode("utf-8", "surrogateescape"))
    mounts = external_mounts(lines, known_mounts(state, spec))
    streams = _streams(state.pid, lines)
    notes.write(request.options.images, mounts, streams)
    fields: Fields = [(OPTIONS["ext_mnt"], encode([(1, one.point), (2, one.point)])) for one in mounts]
    fields += [(OPTIONS["external"], key) for key in streams if is_outside(key)]
    return fields


def known_mounts(state: ContainerState, spec: Spec) -> Known:
    """Give what the document says of a running container's mounts, destinations looked up in its root."""
    plans = plan_mounts(spec, state.bundle)
    root = os.open(f"/proc/{state.pid}/root", os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        places = places_in(RootPaths(root), plans)
    finally:
        os.close(root)
    nodes = plan_devices(spec.linux.devices, plans).nodes
    return Known(
        plans=plans,
        places=places,
        masked=spec.linux.masked_paths,
        devices=tuple(node.path for node in nodes),
        cgroups=state.cgroup,
    )


def places_in(paths: RootPaths, plans: tuple[MountPlan, ...]) -> tuple[str, ...]:
    """Give where each plan's mount really is, links in its destination followed."""
    places = []
    for plan in plans:
        try:
            fd = paths.open(plan.destination)
        except OSError:
            places.append(plan.destination)
            continue
        places.append(os.readlink(f"/proc/self/fd/{fd}"))
        os.close(fd)
    return tuple(places)


def _streams(pid: int, lines: tuple[MountLine, ...]) -> tuple[str, str, str]:
    """Give criu's names of init's standard streams, empty for those that are the container's own."""
    inner = frozenset(line.number for line in lines)
    keys = []
    for number in range(3):
        path = f"/proc/{pid}/fd/{number}"
        try:
            link, status = os.readlink(path), os.stat(path)
            mount = _mount_number(pid, number)
        except OSError:
            keys.append("")
            continue
        character = stat.S_ISCHR(status.st_mode)
        plain = stat.S_ISREG(status.st_mode) or character or stat.S_ISFIFO(status.st_mode)
        device = status.st_rdev if character else 0
        stream = Stream(link=link, mount=mount, inode=status.st_ino, device=device, filesystem=status.st_dev)
        keys.append(outside_key(stream, inner) if plain else "")
    return keys[0], keys[1], keys[2]


def _mount_number(pid: int, number: int) -> int:
    for line in read_file(f"/proc/{pid}/fdinfo/{number}").decode().splitlines():
        if line.startswith("mnt_id:"):
            return int(line.partition(":")[2])
    return -1


def _ask(request: DumpRequest, fields: Fields, entered: list[str]) -> None:
    def enter() -> None:
        for path in entered:
            with Step("enter a namespace of the container for criu", path):
                fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
                setns(fd, 0)
                os.close(fd)

    def notified(script: str, _pid: int, _fds: tuple[int, ...]) -> None:
        if script == "status-ready" and request.status_fd >= 0:
            os.write(request.status_fd, b"\0")

    options = request.options
    criu = service.Criu(options.program, service.Launch(enter=enter, folders=folders_of(options)))
    try:
        answer = criu.ask([(TYPE, PRE_DUMP if request.pre_dump else DUMP), (OPTS, encode(fields))], notified)
    finally:
        criu.close()
    if not answer.success:
        log = os.path.join(options.work or options.images, LOG)
        raise service.failure(options.program, f"checkpoint container {request.container_id!r}", answer, log)
