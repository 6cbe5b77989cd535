"""Set a process's scheduler, I/O priority and execution domain (sched(7), ioprio_set(2), personality(2))."""

from __future__ import annotations

from runtime.apply.faults import Step
from runtime.errors import RuntimeFault
from runtime.kernel import limits
from runtime.spec.numbers import bits
from runtime.spec.words import MEMORY_POLICIES, MEMORY_POLICY_FLAGS

TYPE_CHECKING = False
if TYPE_CHECKING:
    from runtime.spec.lasting import MemoryPolicy, Personality
    from runtime.spec.model import Process


def schedule(process: Process) -> None:
    """Apply process.scheduler and process.ioPriority to this process."""
    if process.scheduler is not None:
        wanted = process.scheduler
        flags = sum(limits.SCHED_FLAGS[name] for name in wanted.flags)
        with Step(f"set the scheduler {wanted.policy}"):
            times = (wanted.runtime or 0, wanted.deadline or 0, wanted.period or 0)
            try:
                limits.sched_setattr(limits.POLICIES[wanted.policy], flags, wanted.nice, wanted.priority, times)
            except PermissionError as error:
                if wanted.policy != "SCHED_DEADLINE":
                    raise
                detail = "process scheduler can't be used together with AllowedCPUs: SCHED_DEADLINE needs every CPU"
                raise RuntimeFault(detail, step=f"set the scheduler {wanted.policy}", errno=error.errno) from error
    if process.io_priority is not None:
        with Step(f"set the I/O priority {process.io_priority.io_class}"):
            limits.ioprio_set(limits.IO_CLASSES[process.io_priority.io_class], process.io_priority.priority)


def set_memory_policy(policy: MemoryPolicy) -> None:
    """Apply linux.memoryPolicy to this process."""
    mode = MEMORY_POLICIES[policy.mode] | sum(MEMORY_POLICY_FLAGS[flag] for flag in policy.flags)
    with Step(f"set the memory policy {policy.mode}"):
        limits.set_mempolicy(mode, bits(policy.nodes))


def set_personality(personality: Personality) -> None:
    """Apply linux.personality to this process."""
    with Step(f"set the personality {personality.domain}"):
        limits.personality(limits.PERSONALITIES[personality.domain])
