"""Daemons that tests, demo and benchmarks start: a process, its log, its end."""

from __future__ import annotations

import os
import signal
import subprocess
from contextlib import suppress
from typing import TYPE_CHECKING

from tests.support.wait import wait_for

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from pathlib import Path


class DaemonError(Exception):
    """A daemon did not start, or not stop; the message has the end of its log."""


class Process:
    """A program in the background, its output in a file; stopped by its pid only."""

    def __init__(self, command: Sequence[str], log: Path, *, environment: Mapping[str, str] | None = None) -> None:
        self.command = list(command)
        self.log = log
        self._environment = dict(environment or {})
        self._child: subprocess.Popen[bytes] | None = None

    @property
    def pid(self) -> int:
        """Process id; raises DaemonError when it does not run."""
        if self._child is None:
            raise DaemonError(f"{self.command[0]} is not running")
        return self._child.pid

    @property
    def running(self) -> bool:
        """Say whether it has been started and has not ended."""
        return self._child is not None and self._child.poll() is None

    def start(self, ready: Callable[[], bool], *, seconds: float = 30.0) -> None:
        """Start it and wait until `ready`; raise DaemonError with its log when it ends or stays silent."""
        with self.log.open("ab") as log:
            self._child = subprocess.Popen(
                self.command,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                env=os.environ | self._environment,
                start_new_session=True,
            )
        try:
            wait_for(lambda: not self.running or ready(), f"{self.command[0]} to serve", seconds=seconds)
        except TimeoutError as error:
            self.kill()
            raise DaemonError(f"{error}\n{self.log_tail()}") from error
        if not self.running:
            code = self.wait()
            raise DaemonError(f"{self.command[0]} ended with {code} instead of serving\n{self.log_tail()}")

    def stop(self, *, seconds: float = 20.0) -> int:
        """End it with SIGTERM and give its exit code; raise DaemonError (and kill it) when it does not obey."""
        if self._child is None:
            return 0
        if self.running:
            self._child.send_signal(signal.SIGTERM)
            try:
                self._child.wait(seconds)
            except subprocess.TimeoutExpired as error:
                self.kill()
                raise DaemonError(f"{self.command[0]} ignored SIGTERM for {seconds:g} s\n{self.log_tail()}") from error
        return self.wait()

    def kill(self) -> None:
        """End it with SIGKILL; nothing happens when it has ended."""
        if self._child is not None:
            self._child.kill()
            self.wait()

    def wait(self) -> int:
        """Reap it and give its exit code."""
        child, self._child = self._child, None
        return child.wait() if child is not None else 0

    def log_tail(self, lines: int = 40) -> str:
        """Give the end of its log."""
        with suppress(OSError):
            return "\n".join(self.log.read_text(errors="replace").splitlines()[-lines:])
        return ""
