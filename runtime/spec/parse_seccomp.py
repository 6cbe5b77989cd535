"""Parse linux.seccomp of config.json (config-linux.md "Seccomp" of runtime-spec 1.3)."""

from __future__ import annotations

from runtime.spec.model import Seccomp, SeccompArg, SeccompSyscall
from runtime.spec.reader import U32, U64, Reader

_DEFAULT_FLAGS = ("SECCOMP_FILTER_FLAG_SPEC_ALLOW",)
"""runc's, for a profile that says nothing: a filter alone is no reason to slow a program's speculation (seccomp(2))."""


def parse_seccomp(at: Reader) -> Seccomp:
    """Read /linux/seccomp."""
    return Seccomp(
        default_action=at.need_text("defaultAction"),
        default_errno_ret=at.integer("defaultErrnoRet", U32),
        architectures=at.texts("architectures"),
        flags=_DEFAULT_FLAGS if at.value.get("flags") is None else at.texts("flags"),
        listener_path=at.text("listenerPath"),
        listener_metadata=at.text("listenerMetadata"),
        syscalls=at.each("syscalls", _syscall),
    )


def _syscall(at: Reader) -> SeccompSyscall:
    names = at.texts("names")
    if not names:
        raise at.fault("needs at least one system call", "names")
    return SeccompSyscall(
        names=names,
        action=at.need_text("action"),
        errno_ret=at.integer("errnoRet", U32),
        args=at.each("args", _argument),
    )


def _argument(at: Reader) -> SeccompArg:
    return SeccompArg(
        index=at.need_integer("index", (0, 5)),
        value=at.need_integer("value", U64),
        value_two=at.number("valueTwo", U64),
        op=at.need_text("op"),
    )
