"""prlimit(2), personality(2), ioprio_set(2), sched_setattr(2), set_mempolicy(2): what a process may use, and how."""

from __future__ import annotations

from runtime.kernel.libc import function, system_call, u32, u64

RLIMITS = {
    "RLIMIT_CPU": 0, "RLIMIT_FSIZE": 1, "RLIMIT_DATA": 2, "RLIMIT_STACK": 3, "RLIMIT_CORE": 4, "RLIMIT_RSS": 5,
    "RLIMIT_NPROC": 6, "RLIMIT_NOFILE": 7, "RLIMIT_MEMLOCK": 8, "RLIMIT_AS": 9, "RLIMIT_LOCKS": 10,
    "RLIMIT_SIGPENDING": 11, "RLIMIT_MSGQUEUE": 12, "RLIMIT_NICE": 13, "RLIMIT_RTPRIO": 14, "RLIMIT_RTTIME": 15,
}  # fmt: skip
POLICIES = {
    "SCHED_OTHER": 0, "SCHED_FIFO": 1, "SCHED_RR": 2, "SCHED_BATCH": 3, "SCHED_ISO": 4, "SCHED_IDLE": 5,
    "SCHED_DEADLINE": 6,
}  # fmt: skip
SCHED_FLAGS = {
    "SCHED_FLAG_RESET_ON_FORK": 0x01, "SCHED_FLAG_RECLAIM": 0x02, "SCHED_FLAG_DL_OVERRUN": 0x04,
    "SCHED_FLAG_KEEP_POLICY": 0x08, "SCHED_FLAG_KEEP_PARAMS": 0x10, "SCHED_FLAG_UTIL_CLAMP_MIN": 0x20,
    "SCHED_FLAG_UTIL_CLAMP_MAX": 0x40,
}  # fmt: skip
IO_CLASSES = {"IOPRIO_CLASS_RT": 1, "IOPRIO_CLASS_BE": 2, "IOPRIO_CLASS_IDLE": 3}
PERSONALITIES = {"LINUX": 0x0, "LINUX32": 0x8}

_IOPRIO_WHO_PROCESS = 1
_IOPRIO_CLASS_SHIFT = 13

_prlimit = function("prlimit", "iipp")
_personality = function("personality", "l")
_ioprio_set = system_call("ioprio_set", "lll")
_sched_setattr = system_call("sched_setattr", "lpl")


_set_mempolicy = system_call("set_mempolicy", "lpl")


def set_mempolicy(mode: int, mask: int) -> None:
    """Set the memory policy of this process: `mode` with its flags, and the memory nodes it is about, bit n for node n."""
    size = (mask.bit_length() + 63) // 64
    memory = u64(*(mask >> 64 * word & 0xFFFFFFFFFFFFFFFF for word in range(size))) if size else None
    _set_mempolicy(mode, memory, size * 64 + 1 if size else 0)


def prlimit(pid: int, resource: int, soft: int, hard: int) -> None:
    """Set one limit of a process; 2**64 - 1 is no limit."""
    _prlimit(pid, resource, u64(soft, hard), None)


def personality(persona: int) -> None:
    """Set the execution domain."""
    _personality(persona)


def ioprio_set(io_class: int, priority: int) -> None:
    """Set the I/O class and priority of this process."""
    _ioprio_set(_IOPRIO_WHO_PROCESS, 0, io_class << _IOPRIO_CLASS_SHIFT | priority)


def sched_setattr(policy: int, flags: int, nice: int, priority: int, times: tuple[int, int, int]) -> None:
    """Set the scheduling policy of this process; `times` are runtime, deadline and period in nanoseconds."""
    structure = u32(48, policy) + u64(flags) + u32(nice, priority) + u64(*times)
    _sched_setattr(0, structure, 0)
