"""keyctl(2): a session keyring for a container, so that it does not see the host's."""

from __future__ import annotations

from runtime.kernel.libc import system_call

_KEYCTL_JOIN_SESSION_KEYRING = 1
_KEYCTL_SETPERM = 5
_KEYCTL_DESCRIBE = 6
_KEY_USR_ALL = 0x3F0000
_KEY_POS_ALL = 0x3F000000

_join = system_call("keyctl", "lsl")
_setperm = system_call("keyctl", "lll")


def join_session_keyring(name: str) -> int:
    """Join (or make) the session keyring `name` and give its serial number."""
    return _join(_KEYCTL_JOIN_SESSION_KEYRING, name.encode(), 0)


def allow_owner(serial: int) -> None:
    """Give the possessor and the owner every permission, so that a process that changes its ids can still use the keyring."""
    _setperm(_KEYCTL_SETPERM, serial, _KEY_POS_ALL | _KEY_USR_ALL)
