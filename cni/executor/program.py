"""Run a plugin that is a program: environment and standard input in, bounded standard output and error back, in bounded time.

The program gets a process group of its own; past its time the whole group is killed. After it has exited nothing more is
waited for, even when a child of it still holds the pipes.
"""

from __future__ import annotations

import contextlib
import json
import os
import selectors
import signal
import subprocess
import time
from typing import IO, TYPE_CHECKING, Any, Self

from cni.errors import Code, PluginFault, PluginTimeout

if TYPE_CHECKING:
    from collections.abc import Sequence

    from cni.skel import Invocation

MAX_STDOUT_BYTES = 1 << 20
MAX_STDERR_BYTES = 16 << 10
_EXCERPT = 400
_CHUNK = 1 << 16


def run(path: str, invocation: Invocation, bin_dirs: Sequence[str], timeout: float) -> dict[str, Any] | None:
    """Run one command and give the decoded answer, None when it was empty.

    Raises PluginFault with the plugin's own code for an error object, PluginTimeout after `timeout` seconds, and PluginFault
    (code 6) for output that is not CNI.
    """
    process = _Process(path, invocation, bin_dirs)
    with process:
        status, stdout, stderr = process.communicate(timeout)
    return _interpret(invocation, status, stdout, stderr)


class _Process:
    """One running program; leaving the context kills its group when it still runs, and closes everything."""

    def __init__(self, path: str, invocation: Invocation, bin_dirs: Sequence[str]) -> None:
        self._invocation = invocation
        self._pending = memoryview(json.dumps(invocation.config).encode())
        self._kept: dict[str, bytearray] = {"stdout": bytearray(), "stderr": bytearray()}
        try:
            self._child = subprocess.Popen(
                [path],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                env=_environment(invocation, bin_dirs),
                process_group=0,
            )
        except OSError as error:
            raise self._fault(f"{path} cannot be executed: {error.strerror}", Code.IO_FAILURE) from error
        self._pidfd = os.pidfd_open(self._child.pid)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_unused: object) -> None:
        if self._child.poll() is None:
            self._kill()
            self._child.wait()
        os.close(self._pidfd)
        for stream in self._streams().values():
            with contextlib.suppress(OSError):  # a closed pipe may still hold unwritten input
                stream.close()

    def communicate(self, timeout: float) -> tuple[int, bytes, bytes]:
        """Feed the input, gather the output and wait; give exit status (negative: signal), stdout and stderr."""
        deadline = time.monotonic() + timeout
        streams = self._streams()
        with selectors.DefaultSelector() as selector:
            for name, stream in streams.items():
                os.set_blocking(stream.fileno(), False)
                selector.register(stream, selectors.EVENT_WRITE if name == "stdin" else selectors.EVENT_READ, name)
            selector.register(self._pidfd, selectors.EVENT_READ, "exit")
            running = True
            while running:
                ready = selector.select(max(0.0, deadline - time.monotonic()))
                if not ready and time.monotonic() >= deadline:
                    self._kill()
                    raise PluginTimeout(
                        f"did not finish within {timeout:g} s and was killed",
                        plugin=self._invocation.plugin,
                        command=self._invocation.command,
                        details=self._excerpt("stderr"),
                    )
                for key, _mask in ready:
                    if key.data == "exit":
                        running = False
                    elif not self._move(key.data, streams[key.data]):
                        selector.unregister(streams[key.data])
                        streams[key.data].close()
        for name in ("stdout", "stderr"):
            while not streams[name].closed and self._move(name, streams[name], drain=True):
                pass
        return self._child.wait(), bytes(self._kept["stdout"]), bytes(self._kept["stderr"])

    def _streams(self) -> dict[str, IO[bytes]]:
        child = self._child
        assert child.stdin is not None
        assert child.stdout is not None
        assert child.stderr is not None
        return {"stdin": child.stdin, "stdout": child.stdout, "stderr": child.stderr}

    def _move(self, name: str, stream: IO[bytes], *, drain: bool = False) -> bool:
        """Move one chunk; False when the stream is done (while draining: when it is empty)."""
        try:
            if name == "stdin":
                self._pending = self._pending[os.write(stream.fileno(), self._pending[:_CHUNK]) :]
                return len(self._pending) > 0
            chunk = os.read(stream.fileno(), _CHUNK)
        except BlockingIOError:
            return not drain
        except BrokenPipeError:
            return False
        kept = self._kept[name]
        kept += chunk
        if name == "stderr":
            del kept[:-MAX_STDERR_BYTES]
        elif len(kept) > MAX_STDOUT_BYTES:
            self._kill()
            raise self._fault(f"wrote more than {MAX_STDOUT_BYTES} bytes and was killed", Code.DECODING_FAILURE)
        return len(chunk) > 0

    def _kill(self) -> None:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self._child.pid, signal.SIGKILL)

    def _excerpt(self, name: str) -> str:
        return excerpt(bytes(self._kept[name]))

    def _fault(self, msg: str, code: int) -> PluginFault:
        return PluginFault(msg, plugin=self._invocation.plugin, command=self._invocation.command, code=code)


def excerpt(data: bytes) -> str:
    """Give the end of a plugin's output as one printable line."""
    shown = " ".join(data.decode(errors="replace").split())
    return "".join(c if c.isprintable() else "?" for c in shown[-_EXCERPT:])


def _environment(invocation: Invocation, bin_dirs: Sequence[str]) -> dict[str, str]:
    inherited = {key: value for key, value in os.environ.items() if not key.startswith("CNI_")}
    given = {
        "CNI_COMMAND": invocation.command,
        "CNI_CONTAINERID": invocation.container_id,
        "CNI_NETNS": invocation.netns,
        "CNI_IFNAME": invocation.ifname,
        "CNI_ARGS": invocation.args,
        "CNI_PATH": ":".join(bin_dirs),
    }
    return inherited | given


def _interpret(invocation: Invocation, status: int, stdout: bytes, stderr: bytes) -> dict[str, Any] | None:
    answer: object = None
    garbage = False
    if stdout.strip():
        try:
            answer = json.loads(stdout)
        except (ValueError, RecursionError):
            garbage = True
    if status != 0:
        raise _refusal(invocation, status, answer, excerpt(stderr) or excerpt(stdout))
    wants_object = invocation.command in {"ADD", "VERSION"}
    if garbage and not wants_object:
        return None
    if isinstance(answer, dict):
        return answer
    if wants_object:
        reason = "wrote output that is not a json object" if stdout.strip() else "wrote no result"
        raise PluginFault(
            reason,
            plugin=invocation.plugin,
            command=invocation.command,
            code=Code.DECODING_FAILURE,
            details=excerpt(stdout) or excerpt(stderr),
        )
    return None


def _refusal(invocation: Invocation, status: int, answer: object, heard: str) -> PluginFault:
    end = f"was killed by signal {-status}" if status < 0 else f"exited with status {status}"
    msg, code, details = f"{end} without an error object", int(Code.INTERNAL), heard
    if isinstance(answer, dict) and isinstance(answer.get("msg"), str) and isinstance(answer.get("code"), int):
        msg, code, details = answer["msg"], answer["code"], str(answer.get("details") or "")
    return PluginFault(msg, plugin=invocation.plugin, command=invocation.command, code=code, details=details)
