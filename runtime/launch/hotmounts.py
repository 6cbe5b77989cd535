"""Mount into a running container, and unmount, from a child that has entered its mount namespace."""

from __future__ import annotations

import os

from runtime.apply.faults import Step
from runtime.apply.idmap import IdMaps
from runtime.apply.mounts import Mounter, clone_bind
from runtime.apply.paths import RootPaths
from runtime.errors import RuntimeFault, SpecFault, StateFault
from runtime.kernel import mount as k
from runtime.kernel import pidfd
from runtime.kernel.fork import fork
from runtime.kernel.namespace import CLONE_NEWNS, CLONE_NEWUSER, setns
from runtime.launch import protocol
from runtime.launch.becoming import become_root
from runtime.launch.guarded import guarded
from runtime.launch.inherited import settle
from runtime.plan.mounts import plan_mounts
from runtime.plan.namespaces import plan_namespaces
from runtime.spec.model import Linux, Mount, Namespace, Root, Spec
from runtime.state import load
from runtime.undo import Descriptors, Undo

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    from runtime.plan.mounts import MountPlan
    from runtime.state import ContainerState


def add_mounts(state_root: str, container_id: str, mounts: tuple[Mount, ...]) -> None:
    """Make mounts in a container that runs, all of them or none; raise RuntimeFault."""
    state = _running(state_root, container_id)
    plans = _plans(state, mounts)
    descriptors = Descriptors()
    try:
        sources = {index: descriptors.keep(fd) for index, fd in _sources(state, plans)}
        _inside(state, lambda: _mount_all(plans, sources), set(sources.values()))
    finally:
        descriptors.close()


def remove_mounts(state_root: str, container_id: str, mounts: tuple[Mount, ...]) -> None:
    """Unmount what lies on these mounts' destinations, the last first; raise RuntimeFault at the first that is no mount."""
    state = _running(state_root, container_id)
    places = tuple(Mount(destination=one.destination, type="tmpfs") for one in mounts)  # what lies there need not be told
    destinations = [plan.destination for plan in _plans(state, places)]

    def work() -> None:
        for path in reversed(destinations):
            with Step(f"unmount {path}", path):
                k.umount2(path, k.MNT_DETACH | k.UMOUNT_NOFOLLOW)

    _inside(state, work, set())


def _running(state_root: str, container_id: str) -> ContainerState:
    state = load(state_root, container_id)
    if state.status not in ("created", "running", "paused"):
        raise StateFault(f"cannot mount into container {container_id!r}: it is {state.status}")
    if "mount" not in state.namespaces:
        raise StateFault(f"cannot mount into container {container_id!r}: it has no mount namespace of its own")
    return state


def _plans(state: ContainerState, mounts: tuple[Mount, ...]) -> tuple[MountPlan, ...]:
    user = Namespace(type="user", path=f"/proc/{state.pid}/ns/user")  # what an idmap without ranges of its own means
    linux = Linux(namespaces=(user,) if "user" in state.namespaces else ())
    spec = Spec(oci_version=state.oci_version, root=Root(path=state.rootfs), mounts=mounts, linux=linux)
    try:
        plans = plan_mounts(spec, state.bundle)
    except SpecFault as fault:
        raise SpecFault(fault.message, pointer=fault.pointer.removeprefix("/mounts"), document="mounts") from None
    for index, plan in enumerate(plans):
        if plan.kind == "cgroup":
            raise SpecFault("a cgroup cannot be mounted into a running container", pointer=f"/{index}", document="mounts")
    return plans


def _sources(state: ContainerState, plans: tuple[MountPlan, ...]) -> list[tuple[int, int]]:
    """Clone the sources of binds, as the caller sees them."""
    user = os.open(f"/proc/{state.pid}/ns/user", os.O_RDONLY | os.O_CLOEXEC)
    id_maps = IdMaps(plan_namespaces(Linux()), user)
    found = []
    try:
        for index, plan in enumerate(plans):
            if plan.kind == "bind":
                fd = clone_bind(plan)
                found.append((index, fd))
                if plan.id_map is not None:
                    id_maps.apply(fd, plan.id_map, plan.source)
    finally:
        id_maps.close()
        os.close(user)
    return found


def _mount_all(plans: tuple[MountPlan, ...], sources: dict[int, int]) -> None:
    root_fd = os.open("/", os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    mounter = Mounter(RootPaths(root_fd), sources, lambda _index, plan: clone_bind(plan))
    undo = Undo()
    try:
        for index, plan in enumerate(plans):
            mounter.perform(index, plan)
            if plan.kind != "remount":
                undo.push(plan.destination, _unmounting(plan.destination))
        undo.commit()
    finally:
        undo.run()
        os.close(root_fd)


def _unmounting(path: str) -> Callable[[], None]:
    return lambda: k.umount2(path, k.MNT_DETACH | k.UMOUNT_NOFOLLOW)


def _inside(state: ContainerState, work: Callable[[], None], fds: set[int]) -> None:
    """Do `work` in a child that has joined the container's user and mount namespaces; raise the fault it tells."""
    target = pidfd.open_process(state.pid, state.start_time)
    if target is None:
        raise StateFault(f"cannot mount into container {state.id!r}: it is stopped")
    flags = CLONE_NEWNS | (CLONE_NEWUSER if "user" in state.namespaces else 0)
    ours, theirs = protocol.make_links()

    def entered() -> None:
        os.close(settle({0, 1, 2, theirs.socket.fileno(), target, *fds}))
        with Step(f"join the mount namespace of container {state.id!r}"):
            setns(target, flags)
        if flags & CLONE_NEWUSER:
            become_root()
        work()

    child = fork()
    if child == 0:
        guarded(theirs, entered)
    theirs.close()
    os.close(target)
    try:
        said, _ = ours.receive_any()
        if said:
            raise RuntimeFault(f"the process said {said!r}", step="mount into the container")
    finally:
        ours.close()
        os.waitpid(child, 0)
