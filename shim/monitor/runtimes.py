"""What the built-in runtime (internal.py) and any other binary (external.py) have in common: limits and words."""

from __future__ import annotations

import errno
import os

from runtime import jsonlite
from shim.monitor.protocol import StartFailed

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from shim.errors import WherryError

CALL_SECONDS = 120.0
"""How long one call of a runtime may take before its process group is killed: disks can be slow, hooks may take their time."""

REASON = "ContainerCannotRun"


_CREATE = "OCI runtime create failed: "
_EXEC = "exec failed: "


def start_failed(number: int, program: str, detail: str = "") -> StartFailed:
    """Give the error for an execve(2) of `program` that failed with errno `number`, worded as containerd's users know it."""
    if number == errno.ENOENT:
        return _failed(127, f'exec: "{program}": ' + _missing(program))
    if number in (errno.EACCES, errno.EISDIR, errno.EPERM):
        return _failed(126, f'exec: "{program}": permission denied')
    if number == errno.ENOEXEC:
        return _failed(126, f'exec: "{program}": exec format error')
    return _failed(128, f'exec: "{program}": {detail or os.strerror(number).lower()}')


def _missing(program: str) -> str:
    return f"stat {program}: no such file or directory" if "/" in program else "executable file not found in $PATH"


def _failed(code: int, text: str) -> StartFailed:
    return StartFailed(code, REASON, f"{_CREATE}unable to start container process: {text}")


def failed_from_text(text: str) -> StartFailed:
    """Give the error for what another runtime said: only its words tell the causes apart."""
    lower = text.lower()
    if "executable file" in lower and "not found" in lower:
        code = 127
    elif "exec:" in lower or "open executable" in lower or "exec " in lower:
        code = (
            127
            if "no such file or directory" in lower
            else 126
            if "permission denied" in lower or "format error" in lower
            else 128
        )
    else:
        code = 128
    return StartFailed(code, REASON, f"{_CREATE}{text}")


def of_exec(error: WherryError) -> WherryError:
    """Give the error for a process that was to join a container, in the words by which clients know that a shell is missing."""
    if not isinstance(error, StartFailed):
        return error
    text = str(error).removeprefix(_CREATE).removeprefix(_EXEC)
    return StartFailed(error.exit_code, error.reason, f"OCI runtime exec failed: {_EXEC}{text}")


def merged_process(bundle: str, override: dict[str, Any]) -> dict[str, Any]:
    """Give the full OCI process for an exec: the container's own, with what `override` says in its place.

    Environment entries are merged by name; the terminal is never inherited.
    """
    with open(os.path.join(bundle, "config.json"), "rb") as file:
        own: dict[str, Any] = jsonlite.loads(file.read())["process"]
    base = {key: value for key, value in own.items() if key not in ("args", "terminal", "consoleSize", "commandLine")}
    merged = base | {key: value for key, value in override.items() if value is not None}
    environment = dict(item.partition("=")[::2] for item in own.get("env", []))
    environment |= dict(item.partition("=")[::2] for item in override.get("env") or [])
    merged["env"] = [f"{name}={value}" for name, value in environment.items()]
    return merged
