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
    cautions: tuple[str, ...] = ()


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
        capabilities=_capabilities(process),
        rlimits=tuple(_rlimit(limit, f"{pointer}/rlimits/{at}") for at, limit in enumerate(process.rlimits)),
        source=process,
        cautions=_cautions(process),
    )


_SETS = ("bounding", "effective", "inheritable", "permitted", "ambient")


def _capabilities(process: Process) -> CapabilityPlan:
    sets = process.capabilities
    return CapabilityPlan() if sets is None else CapabilityPlan(**{kind: _mask(getattr(sets, kind)) for kind in _SETS})


def _mask(names: tuple[str, ...]) -> int:
    """Give the mask of the names this runtime knows: a newer kernel's must not break an older runtime."""
    return sum(1 << NUMBERS[name] for name in set(names) if name in NUMBERS)


def _cautions(process: Process) -> tuple[str, ...]:
    """Say which capabilities the process will not get, as runc warns of them."""
    sets = process.capabilities
    if sets is None:
        return ()
    unknown = sorted({name for kind in _SETS for name in getattr(sets, kind) if name not in NUMBERS})
    said = [f"ignoring unknown or unavailable capabilities: [{' '.join(unknown)}]"] if unknown else []
    given = set(sets.permitted) & set(sets.inheritable)
    return (
        *said,
        *(
            f"can't raise ambient capability {name}: it is not permitted and inheritable"
            for name in sets.ambient
            if name in NUMBERS and name not in given
        ),
    )


def _rlimit(limit: Rlimit, pointer: str) -> tuple[int, int, int]:
    number = RLIMITS.get(limit.type)
    if number is None:
        raise SpecFault(f"unknown limit {limit.type!r}", pointer=f"{pointer}/type")
    return number, limit.soft, limit.hard
