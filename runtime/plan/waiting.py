"""Whether a process under a seccomp profile can still wait to be started, which decides when its agent is told."""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from runtime.spec.model import Seccomp

_LENIENT = ("SCMP_ACT_ALLOW", "SCMP_ACT_LOG")
NEEDED = {
    "accept", "accept4", "brk", "capget", "capset", "close", "execve", "exit", "exit_group", "fcntl", "futex", "getpid",
    "getsockname", "madvise", "mmap", "mprotect", "mremap", "munmap", "poll", "prctl", "read", "recvfrom", "rt_sigaction",
    "rt_sigprocmask", "rt_sigreturn", "sendmsg", "sendto", "write",
}  # fmt: skip
"""What init calls between its filter and execve(2), when it waits at the gate in between (runtime.launch.gate)."""


def can_wait_under(profile: Seccomp) -> bool:
    """Tell whether every call the wait takes is let through whatever its arguments.

    Then the filter is loaded, and its listener sent, when the container is created, as the peers do. Any other profile is
    loaded last, after the wait, because the peers' way would end with a container that cannot be started.
    """
    allowed = set(NEEDED) if profile.default_action in _LENIENT else set[str]()
    for rule in profile.syscalls:
        if rule.action in _LENIENT and not rule.args:
            allowed.update(rule.names)
    judged = {name for rule in profile.syscalls if rule.action not in _LENIENT for name in rule.names}
    return allowed - judged >= NEEDED
