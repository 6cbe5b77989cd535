"""The nursery where it cannot do what nobody has asked it for."""

from __future__ import annotations

import errno
import os
from typing import TYPE_CHECKING

from runtime.kernel import fork
from shim import wire
from shim.spawner.nursery import _Nursery

if TYPE_CHECKING:
    import pytest


def test_no_room_for_a_spare_is_no_end(monkeypatch: pytest.MonkeyPatch) -> None:
    """A full pids.max must not take the nursery, and with it the daemon: the next pod's call tells of it."""

    def full() -> int:
        raise BlockingIOError(errno.EAGAIN, os.strerror(errno.EAGAIN))

    monkeypatch.setattr(fork, "threads", lambda _task_fd=None: 1)
    monkeypatch.setattr(os, "fork", full)
    ours, theirs = wire.pair()
    with ours, theirs:
        assert _Nursery(theirs)._fork_spare() is None
