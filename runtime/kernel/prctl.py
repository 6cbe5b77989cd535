"""prctl(2): the few operations a runtime needs."""

from __future__ import annotations

from runtime.kernel.libc import function

_PR_SET_PDEATHSIG = 1
_PR_GET_DUMPABLE = 3
_PR_SET_DUMPABLE = 4
_PR_SET_KEEPCAPS = 8
_PR_SET_NAME = 15
_PR_CAPBSET_READ = 23
_PR_CAPBSET_DROP = 24
_PR_SET_CHILD_SUBREAPER = 36
_PR_SET_NO_NEW_PRIVS = 38
_PR_CAP_AMBIENT = 47
_PR_CAP_AMBIENT_RAISE = 2
_PR_CAP_AMBIENT_CLEAR_ALL = 4

_prctl = function("prctl", "illll")
_prctl_text = function("prctl", "islll")


def set_dumpable(*, dumpable: bool) -> None:
    """Say whether other processes may trace this one and open its /proc files (proc(5), ptrace(2))."""
    _prctl(_PR_SET_DUMPABLE, int(dumpable), 0, 0, 0)


def get_dumpable() -> bool:
    """Tell whether this process may be traced."""
    return _prctl(_PR_GET_DUMPABLE, 0, 0, 0, 0) == 1


def set_name(name: str) -> None:
    """Name this process by its role, at most 15 bytes, for ps(1)."""
    _prctl_text(_PR_SET_NAME, name.encode()[:15], 0, 0, 0)


def set_child_subreaper(*, enabled: bool = True) -> None:
    """Make this process the parent of orphaned descendants."""
    _prctl(_PR_SET_CHILD_SUBREAPER, int(enabled), 0, 0, 0)


def set_no_new_privs() -> None:
    """Make execve(2) grant nothing, for this process and all it starts."""
    _prctl(_PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0)


def set_keep_capabilities(*, enabled: bool) -> None:
    """Keep the permitted set when the user ids stop being 0."""
    _prctl(_PR_SET_KEEPCAPS, int(enabled), 0, 0, 0)


def set_parent_death_signal(signal: int) -> None:
    """Have the kernel send `signal` when the parent ends; 0 forgets it."""
    _prctl(_PR_SET_PDEATHSIG, signal, 0, 0, 0)


def in_bounding_set(capability: int) -> bool:
    """Tell whether `capability` is in the bounding set; raise OSError(EINVAL) when the kernel does not know it."""
    return _prctl(_PR_CAPBSET_READ, capability, 0, 0, 0) == 1


def drop_bounding(capability: int) -> None:
    """Remove `capability` from the bounding set for good."""
    _prctl(_PR_CAPBSET_DROP, capability, 0, 0, 0)


def clear_ambient() -> None:
    """Empty the ambient set."""
    _prctl(_PR_CAP_AMBIENT, _PR_CAP_AMBIENT_CLEAR_ALL, 0, 0, 0)


def raise_ambient(capability: int) -> None:
    """Add `capability` (permitted and inheritable already) to the ambient set."""
    _prctl(_PR_CAP_AMBIENT, _PR_CAP_AMBIENT_RAISE, capability, 0, 0)
