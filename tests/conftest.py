"""Fixtures of all tests. Those that need root or real peers are in tests/system/conftest.py."""

from __future__ import annotations

import os
import signal

from hypothesis import HealthCheck, settings

from tests.support.snapshot import MARK

os.environ.setdefault(MARK, str(os.getpid()))

# A loaded machine may stop any example for longer than hypothesis waits; what hangs is ended by the test's own time limit.
settings.register_profile("wherry", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("wherry")

if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:  # by a shell's "&"; the programs under test would inherit it
    signal.signal(signal.SIGINT, signal.default_int_handler)
