"""Run the hooks of config.json: programs that read the container's state (runtime-spec "POSIX-platform Hooks")."""

from __future__ import annotations

import os

from runtime.errors import HookFault
from runtime.kernel import pidfd as processes
from runtime.kernel.spawn import spawn, wait

TYPE_CHECKING = False
if TYPE_CHECKING:
    import signal as _signal

    from runtime.spec.lasting import Hook
else:
    import _signal

_OUTPUT_LIMIT = 4096
_SIGKILL = 9
_BY_SIGNAL = 128
"""What an exit code is above when a signal made it."""


def run_hooks(
    kind: str,
    hooks: tuple[Hook, ...],
    state: str,
    *,
    task_fd: int | None = None,
    environment: dict[str, str] | None = None,
) -> None:
    """Run `hooks` one after the other; raise HookFault at the first that fails, is killed or takes too long.

    A hook without an environment of its own gets `environment`, or else the runtime's.
    """
    for index, hook in enumerate(hooks):
        _run(f"{kind} hook #{index}", hook, state, (task_fd, dict(os.environ) if environment is None else environment))


def run_hooks_to_the_end(kind: str, hooks: tuple[Hook, ...], state: str) -> list[str]:
    """Run every one of `hooks` (poststart, poststop), whatever the others do, and give what failed."""
    failed = []
    for index, hook in enumerate(hooks):
        try:
            _run(f"{kind} hook #{index}", hook, state, (None, dict(os.environ)))
        except HookFault as fault:
            failed.append(str(fault))
    return failed


def _run(name: str, hook: Hook, state: str, around: tuple[int | None, dict[str, str]]) -> None:
    task_fd, inherited = around
    output = os.memfd_create("hook", os.MFD_CLOEXEC)
    given = os.memfd_create("state", os.MFD_CLOEXEC)
    try:
        os.write(given, state.encode("utf-8", "surrogateescape"))
        os.lseek(given, 0, os.SEEK_SET)
        environment = dict(entry.partition("=")[::2] for entry in hook.env) if hook.env else inherited
        argv = hook.args or (hook.path,)
        pid = spawn(argv, environment, (given, output, output), path=hook.path, task_fd=task_fd)
        code = _wait(pid, hook.timeout)
        if code is None:
            raise HookFault(f"it took longer than {hook.timeout} s", step=f"error running {name}", path=hook.path)
        if code:
            said = os.pread(output, _OUTPUT_LIMIT, 0).decode(errors="replace").strip()
            detail = _ending(code) + (f": {said}" if said else "")
            raise HookFault(detail, step=f"error running {name}", path=hook.path)
    except OSError as error:
        raise HookFault("", step=f"error running {name}", errno=error.errno, path=hook.path) from error
    finally:
        os.close(given)
        os.close(output)


def _ending(code: int) -> str:
    """Say how a hook ended, as those who read runc's messages know it."""
    name = _signal.strsignal(code - _BY_SIGNAL) if code > _BY_SIGNAL else None
    return f"signal: {name.lower()}" if name else f"exit status {code}"


def _wait(pid: int, timeout: int | None) -> int | None:
    """Give the exit code of the hook, or None when its time is over; its whole process group is killed then."""
    if timeout is None:
        return wait(pid)
    fd = os.pidfd_open(pid)
    try:
        if processes.wait_end(fd, timeout):
            return wait(pid)
        os.killpg(pid, _SIGKILL)
        wait(pid)
        return None
    finally:
        os.close(fd)
