"""Fixtures of all tests. Those that need root or real peers are in tests/system/conftest.py."""

from __future__ import annotations

import os

from tests.support.snapshot import MARK

os.environ.setdefault(MARK, str(os.getpid()))
