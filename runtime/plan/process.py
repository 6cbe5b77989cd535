"""What the user's process is: its ids, capability sets, limits and environment (runtime-spec "Process")."""

from __future__ import annotations

from runtime.errors import SpecFault
from runtime.kernel.capability import NUMBERS
from runtime.kernel.limits import RLIMITS
from runtime.record import Record

TYPE_CHECKING = False
if TYPE_CHECKING:
    from runtime.spec.model import Process, Rlimit

DEFAULT_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"


class CapabilityPlan(Record):
    """The five sets as masks with bit n for capability n."""

    bounding: int = 0
    effective: int = 0
    inheritable: int = 0
    permitted: int = 0
    ambient: int = 0


class ProcessPlan(Record):
    """The process, decided. `environment` holds NAME=value entries, the last of each name only."""

    argv: tuple[str, ...]
    environment: tuple[str, ...]
    search_path: str
    capabilities: CapabilityPlan
    rlimits: tuple[tuple[int, int, int], ...]
    source: Process


def plan_process(process: Process, pointer: str = "/process") -> ProcessPlan:
    """Decide a process; raise SpecFault for names that mean nothing."""
    if not process.args:
        raise SpecFault("there is nothing to execute", pointer=f"{pointer}/args")
    by_name: dict[str, str] = {}
    for entry in process.env:
        name, _, value = entry.partition("=")
        by_name.pop(name, None)
        by_name[name] = value
    return ProcessPlan(
        argv=process.args,
        environment=tuple(f"{name}={value}" for name, value in by_name.items()),
        search_path=by_name.get("PATH", DEFAULT_PATH),
        capabilities=_capabilities(process, pointer),
        rlimits=tuple(_rlimit(limit, f"{pointer}/rlimits/{at}") for at, limit in enumerate(process.rlimits)),
        source=process,
    )


def _capabilities(process: Process, pointer: str) -> CapabilityPlan:
    sets = process.capabilities
    if sets is None:
        return CapabilityPlan()
    return CapabilityPlan(
        bounding=_mask(sets.bounding, f"{pointer}/capabilities/bounding"),
        effective=_mask(sets.effective, f"{pointer}/capabilities/effective"),
        inheritable=_mask(sets.inheritable, f"{pointer}/capabilities/inheritable"),
        permitted=_mask(sets.permitted, f"{pointer}/capabilities/permitted"),
        ambient=_mask(sets.ambient, f"{pointer}/capabilities/ambient"),
    )


def _mask(names: tuple[str, ...], pointer: str) -> int:
    mask = 0
    for at, name in enumerate(names):
        number = NUMBERS.get(name)
        if number is None:
            raise SpecFault(f"unknown capability {name!r}", pointer=f"{pointer}/{at}")
        mask |= 1 << number
    return mask


def _rlimit(limit: Rlimit, pointer: str) -> tuple[int, int, int]:
    number = RLIMITS.get(limit.type)
    if number is None:
        raise SpecFault(f"unknown limit {limit.type!r}", pointer=f"{pointer}/type")
    return number, limit.soft, limit.hard
