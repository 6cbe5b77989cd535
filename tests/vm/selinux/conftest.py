"""The fixtures of the system tests serve here too."""

from __future__ import annotations

from tests.system.conftest import (  # noqa: F401 - fixtures
    busybox,
    busybox_rootfs,
    no_leaks,
    ours,
    pods,
    short_dir,
    tool,
    wherryd,
)
