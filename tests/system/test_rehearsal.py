from __future__ import annotations

import os
import signal
from pathlib import Path

import pytest

from shim.spawner import rehearsal

pytestmark = pytest.mark.system


def test_killed_in_the_middle_it_leaves_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    """The leak check of every test looks at files, mounts and sockets too."""
    monkeypatch.setattr(rehearsal._Stage, "close", lambda _stage: os.kill(os.getpid(), signal.SIGKILL))
    before = set(os.listdir("/tmp")), Path("/proc/self/mountinfo").read_text()
    pid = os.fork()
    if pid == 0:
        try:
            rehearsal.rehearse()
        finally:
            os._exit(1)
    _, status = os.waitpid(pid, 0)
    assert os.waitstatus_to_exitcode(status) == -signal.SIGKILL
    assert (set(os.listdir("/tmp")), Path("/proc/self/mountinfo").read_text()) == before
