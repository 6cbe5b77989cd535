"""How a remote command ended, as the error stream tells it: metav1.Status since version 4, plain text before."""

from __future__ import annotations

import json
from typing import Any

NON_ZERO = "NonZeroExitCode"


def of_exit(code: int) -> dict[str, Any]:
    """Give the status for an exit code."""
    if code == 0:
        return {"metadata": {}, "status": "Success"}
    return {
        "metadata": {},
        "status": "Failure",
        "message": f"command terminated with non-zero exit code: exit status {code}",
        "reason": NON_ZERO,
        "details": {"causes": [{"reason": "ExitCode", "message": str(code)}]},
    }


def of_error(message: str) -> dict[str, Any]:
    """Give the status for a command that could not be run."""
    return {
        "metadata": {},
        "status": "Failure",
        "message": f"Internal error occurred: {message}",
        "reason": "InternalError",
        "details": {"causes": [{"message": message}]},
        "code": 500,
    }


def encode(status: dict[str, Any], version: int) -> bytes:
    """Give what the error stream carries in a version of the protocol; nothing for success before version 4."""
    if version >= 4:
        return json.dumps(status, separators=(",", ":")).encode()
    return b"" if status["status"] == "Success" else str(status["message"]).encode()


def exit_code(data: bytes) -> tuple[int, str]:
    """Give the exit code that an error stream of version 4 tells, and a message; 1 for what is not about an exit."""
    if not data:
        return 0, ""
    try:
        status = json.loads(data)
        if status["status"] == "Success":
            return 0, ""
        if status.get("reason") == NON_ZERO:
            causes = status["details"]["causes"]
            return next(int(cause["message"]) for cause in causes if cause.get("reason") == "ExitCode"), ""
        return 1, str(status.get("message", "")) or "the command failed"
    except (ValueError, KeyError, TypeError, StopIteration, AttributeError):
        return 1, data.decode(errors="replace")
