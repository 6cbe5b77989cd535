"""What is asked of systemd's manager: to start, change and stop a scope (org.freedesktop.systemd1(5))."""

from __future__ import annotations

import os
from errno import EAGAIN
from time import monotonic

from runtime.errors import CgroupFault, KernelFault
from runtime.kernel.sdbus import LOST, Bus, BusError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import TypeVar

    from runtime.plan.systemd import Property, Unit

    T = TypeVar("T")

_SERVICE = "org.freedesktop.systemd1"
_INTERFACE = "org.freedesktop.systemd1.Manager"
_MANAGER = (_SERVICE, "/org/freedesktop/systemd1", _INTERFACE)
_BUS = ("org.freedesktop.DBus", "/org/freedesktop/DBus", "org.freedesktop.DBus")
_JOBS = f"type='signal',sender='{_SERVICE}',interface='{_INTERFACE}',member='JobRemoved'"
_PRIVATE = "unix:path=/run/systemd/private"
"""Where the manager itself answers root: it stays when the bus restarts."""
_EXISTS = f"{_SERVICE}.UnitExists"
_ABSENT = f"{_SERVICE}.NoSuchUnit"
_JOB_SECONDS = 30.0
_TRIES = 7
_VARIANTS = "(sv)"


def require_running() -> None:
    """Raise KernelFault where systemd is not the init of this machine (sd_booted(3))."""
    if not os.path.isdir("/run/systemd/system"):
        raise KernelFault(
            "systemd is not running: --systemd-cgroup needs it; leave the option out to use cgroupfs",
            feature="systemd",
            step="find the container's cgroup",
        )


def start_scope(unit: Unit, properties: tuple[Property, ...]) -> None:
    """Start a transient scope and wait until it is; a failed one of its name makes room. Raises CgroupFault, KernelFault."""

    def start(bus: Bus) -> None:
        _start(bus, unit, properties)

    try:
        _with_manager(unit, "start the scope", start)
    except _UnitError as error:
        if error.name != _EXISTS:
            raise
        reset_failed(unit)
        _with_manager(unit, "start the scope", start)


def _start(bus: Bus, unit: Unit, properties: tuple[Property, ...]) -> None:
    given = [(one.name, (one.signature, one.value)) for one in properties]
    with bus.call(
        _MANAGER, "StartTransientUnit", ("s", unit.name), ("s", "fail"), ("a(sv)", given), ("a(sa(sv))", [])
    ) as reply:
        result = _job_result(bus, reply.read("o"))
    if result != "done":
        raise CgroupFault(f'systemd could not start {unit.name}: its job ended as "{result}"', step="start the scope")


def set_properties(unit: Unit, properties: tuple[Property, ...]) -> None:
    """Change properties of a unit until the next boot; raise CgroupFault."""
    given = [(one.name, (one.signature, one.value)) for one in properties]
    _with_manager(
        unit,
        "change the scope",
        lambda bus: bus.call(_MANAGER, "SetUnitProperties", ("s", unit.name), ("b", True), ("a(sv)", given)).__exit__(),
    )


def attach(unit: Unit, below: str, pid: int) -> None:
    """Have the manager move a process of its user into a unit's cgroup, or to the path `below` it; raise CgroupFault."""
    arguments = (("s", unit.name), ("s", below), ("au", [pid]))
    _with_manager(
        unit,
        f"move process {pid} into the scope",
        lambda bus: bus.call(_MANAGER, "AttachProcessesToUnit", *arguments).__exit__(),
    )


def is_own_system() -> bool:
    """Tell root of a user namespace whether the systemd it would speak to runs for root there: no user's bus is to be had."""
    try:
        with Bus(user=True) as bus:
            return bus.peer_owner() == 0
    except BusError:
        return True


def stop(unit: Unit) -> None:
    """Stop a unit, wait for it, and let systemd forget it; one that is not there is no error."""

    def work(bus: Bus) -> None:
        with bus.call(_MANAGER, "StopUnit", ("s", unit.name), ("s", "replace")) as reply:
            _job_result(bus, reply.read("o"))

    try:
        _with_manager(unit, "stop the scope", work)
    except _UnitError as error:
        if error.name != _ABSENT:
            raise
    reset_failed(unit)


def reset_failed(unit: Unit) -> None:
    """Let systemd forget that a unit failed; it is gone then."""
    try:
        _with_manager(unit, "reset the scope", lambda bus: bus.call(_MANAGER, "ResetFailedUnit", ("s", unit.name)).__exit__())
    except _UnitError as error:
        if error.name != _ABSENT:
            raise


def manager_cgroup(*, user: bool) -> str:
    """Give the path of the cgroup the manager itself manages, "" for all of it; a user's manager has a part only."""
    require_running()
    if not user:
        return ""
    target = (_SERVICE, "/org/freedesktop/systemd1", "org.freedesktop.DBus.Properties")

    def ask(bus: Bus) -> str:
        with bus.call(target, "Get", ("s", _INTERFACE), ("s", "ControlGroup")) as reply:
            return str(reply.read_variant("s"))

    return _with_manager(None, "ask the user's manager for its cgroup", ask)


def _job_result(bus: Bus, job: str) -> str:
    """Wait for the end of a job and give its result."""
    deadline = monotonic() + _JOB_SECONDS
    while (left := deadline - monotonic()) > 0:
        message = bus.next_message(int(left * 1_000_000))
        if message is None:
            break
        with message:
            if message.is_signal(_INTERFACE, "JobRemoved"):
                message.read("u")
                ended, _unit, result = message.read("o"), message.read("s"), str(message.read("s"))
                if ended == job:
                    return result
    return f"none after {_JOB_SECONDS:g} s"


class _UnitError(CgroupFault):
    """What systemd refused; `name` is D-Bus's name of it."""

    def __init__(self, error: BusError, unit: Unit | None, step: str) -> None:
        super().__init__(f"{unit.name}: {error}" if unit is not None else str(error), step=step)
        self.name = error.name


def _with_manager(unit: Unit | None, step: str, work: Callable[[Bus], T]) -> T:
    """Do work over a new connection; once more when the bus went away meanwhile."""
    require_running()
    user = unit is None or unit.user
    try:
        try:
            return _once(user, work)
        except BusError as error:
            if error.errno not in LOST or error.name:
                raise
            return _once(user, work)
    except BusError as error:
        raise _UnitError(error, unit, step) from error


def _once(user: bool, work: Callable[[Bus], T]) -> T:
    with _connect(user=user) as bus:
        return work(bus)


def _connect(*, user: bool) -> Bus:
    for attempt in range(_TRIES):
        try:
            return _connect_once(user=user)
        except BusError as error:
            if error.errno != EAGAIN or attempt == _TRIES - 1:
                raise
            from runtime.apply.cgroup.processes import pause

            pause(100 << attempt)  # the bus has more callers than it can accept; nothing tells when it has fewer
    raise AssertionError("unreachable")


def _connect_once(*, user: bool) -> Bus:
    try:
        bus = Bus(user=user)
        try:
            bus.call(_BUS, "AddMatch", ("s", _JOBS)).__exit__()
        except BusError:
            bus.__exit__()
            raise
    except BusError as error:
        if user:
            raise BusError(
                "", f"no connection to the user's bus ({error}): set DBUS_SESSION_BUS_ADDRESS or XDG_RUNTIME_DIR", error.errno
            ) from None
        if os.geteuid():
            raise
        return Bus(address=_PRIVATE)
    return bus
