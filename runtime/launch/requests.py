"""What the creator does for an init that asks: clone a source it may not clone itself, move network devices to it."""

from __future__ import annotations

import errno
import os

from runtime.apply.faults import Step
from runtime.apply.idmap import IdMaps
from runtime.apply.mounts import clone_bind
from runtime.errors import ProtocolFault
from runtime.kernel import userns
from runtime.kernel.fork import fork
from runtime.kernel.namespace import CLONE_NEWNET, CLONE_NEWNS, setns
from runtime.kernel.rtnetlink import Route
from runtime.launch import protocol
from runtime.launch.guarded import guarded

TYPE_CHECKING = False
if TYPE_CHECKING:
    from runtime.launch.protocol import Link
    from runtime.plan.launch import LaunchPlan
    from runtime.spec.model import NetDevice

_MODULES = (userns,)  # loaded before a mount namespace is entered, where nothing may be imported


def serve(plan: LaunchPlan, link: Link, pid: int, kind: bytes, payload: bytes) -> None:
    """Do what one message of init asks for and answer it; raise RuntimeFault."""
    if kind == protocol.NETWORK:
        move_devices(plan.spec.linux.net_devices, pid)
        link.send(protocol.MOVED)
    else:
        _clone_source(plan, link, pid, int(payload))


def _clone_source(plan: LaunchPlan, link: Link, pid: int, index: int) -> None:
    """Clone a bind's source in init's mount namespace, map its ids, and send it: in a child, which then ends."""
    one = plan.mounts[index]
    with Step(f"open the namespaces of init, process {pid}"):
        target = os.open(f"/proc/{pid}/ns/mnt", os.O_RDONLY | os.O_CLOEXEC)
        user = os.open(f"/proc/{pid}/ns/user", os.O_RDONLY | os.O_CLOEXEC)
    id_maps = IdMaps(plan.namespaces, user)
    id_map = one.id_map

    def work() -> None:
        if id_map is not None:
            id_maps.prepare(id_map)
        with Step(f"enter the mount namespace of process {pid}"):
            setns(target, CLONE_NEWNS)
        fd = clone_bind(one)
        if id_map is not None:
            id_maps.apply(fd, id_map, one.source)
        link.send_fd(protocol.CLONED, fd)

    child = fork()
    if child == 0:
        guarded(link, work)
    status = os.waitpid(child, 0)[1]
    os.close(target)
    os.close(user)
    if os.WIFSIGNALED(status):  # init would wait for ever; what failed otherwise it has been told
        signal = os.WTERMSIG(status)
        raise ProtocolFault(f"the process that cloned it was ended by signal {signal}", step="clone a source", path=one.source)


def move_devices(devices: tuple[NetDevice, ...], pid: int) -> None:
    """Move devices of this network namespace to that of a process, with their addresses, and set them up there."""
    own = os.open("/proc/self/ns/net", os.O_RDONLY | os.O_CLOEXEC)
    target = os.open(f"/proc/{pid}/ns/net", os.O_RDONLY | os.O_CLOEXEC)
    here = Route()
    with Step(f"enter the network namespace of process {pid}"):
        setns(target, CLONE_NEWNET)
    try:
        there = Route()  # a socket stays in the namespace it was made in
    finally:
        setns(own, CLONE_NEWNET)
    try:
        for device in devices:
            _move(device, here, there, target)
    finally:
        here.close()
        there.close()
        os.close(own)
        os.close(target)


def _name_there(name: str, there: Route) -> str:
    """Complete a template such as eth%d with the first number that is free, as the kernel does for new devices."""
    number = 0
    while "%d" in name and _is_taken(name.replace("%d", str(number)), there):
        number += 1
    return name.replace("%d", str(number))


def _is_taken(name: str, there: Route) -> bool:
    try:
        there.link(name)
    except OSError as error:
        if error.errno == errno.ENODEV:
            return False
        raise
    return True


def _move(device: NetDevice, here: Route, there: Route, target: int) -> None:
    name = _name_there(device.name or device.host_name, there)
    with Step(f"move the network device {device.host_name} into the container as {name}"):
        index = here.link(device.host_name)
        if _is_taken(name, there):  # the kernel would rename it only after it has moved, and the device be lost
            raise OSError(errno.EEXIST, os.strerror(errno.EEXIST))
        addresses = here.addresses(index)
        here.set_up(index, up=False)
        here.move(index, target, name)
        moved = there.link(name)
        for address in addresses:
            there.add_address(moved, address)
        there.set_up(moved, up=True)
