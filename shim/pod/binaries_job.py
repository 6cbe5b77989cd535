"""Ask the binary of a runtime handler for its features, in a spawner job: wherryd itself never forks."""

from __future__ import annotations

import os
import select
import signal
import time
from typing import TYPE_CHECKING, Any

from runtime import jsonlite
from runtime.kernel.spawn import spawn, wait
from shim.errors import DeadlineExceeded, WherryError

if TYPE_CHECKING:
    from collections.abc import Callable

SECONDS = 10.0
"""Time a binary has to answer."""
_MOST_BYTES = 1 << 20


def run(params: dict[str, Any], _fds: list[int], _report: Callable[[dict[str, Any]], None]) -> dict[str, Any]:
    """Run `command`, a path and options, with the word `features`; give its mount options, and whether it maps mounts' ids.

    Raises WherryError for what is no such document.
    """
    path, *options = params["command"]
    reader, writer = os.pipe2(os.O_CLOEXEC)
    null = os.open("/dev/null", os.O_RDWR | os.O_CLOEXEC)
    child = spawn([path, *options, "features"], dict(os.environ), (null, writer, null), path=path)
    os.close(writer)
    os.close(null)
    try:
        text = _read(reader, path)
    except BaseException:
        os.kill(child, signal.SIGKILL)
        wait(child)
        raise
    finally:
        os.close(reader)
    code = wait(child)
    if code != 0:
        raise WherryError(f"{path} features exited with {code}")
    return _features(path, text)


def _read(reader: int, path: str) -> bytes:
    """Give what it prints, all of it within the deadline and the limit."""
    deadline = time.monotonic() + SECONDS
    poll = select.poll()
    poll.register(reader, select.POLLIN)
    text = b""
    while len(text) < _MOST_BYTES:
        if not poll.poll(max(0.0, deadline - time.monotonic()) * 1000):
            raise DeadlineExceeded(f"{path} features did not end within {SECONDS:g} s")
        part = os.read(reader, 1 << 16)
        if not part:
            return text
        text += part
    raise WherryError(f"{path} features printed more than {_MOST_BYTES} bytes")


def _features(path: str, text: bytes) -> dict[str, Any]:
    """Read the document (runtime-spec features.md, features-linux.md)."""
    try:
        document = jsonlite.loads(text)
        linux = document.get("linux") or {}
        extensions = (linux.get("mountExtensions") or {}).get("idmap") or {}
        maps = extensions.get("enabled") is True and "user" in (linux.get("namespaces") or [])
        return {"mount_options": [str(option) for option in document.get("mountOptions") or []], "maps_ids": maps}
    except (ValueError, TypeError, AttributeError) as error:
        raise WherryError(f"{path} features printed no such document: {error}") from error
