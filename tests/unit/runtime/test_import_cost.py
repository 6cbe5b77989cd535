"""What `wherry-oci run` imports: the heavy parts of the standard library stay out, and so does everything outside runtime/."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[3]
HEAVY = {
    "argparse", "collections", "contextlib", "ctypes", "dataclasses", "enum", "functools", "inspect", "json", "logging",
    "pathlib", "re", "selectors", "signal", "socket", "struct", "subprocess", "threading", "traceback", "typing", "asyncio",
}  # fmt: skip
LIMIT = 130
"""Modules of all kinds: each costs a tenth of a millisecond and more."""

SCRIPT = """
import sys
sys.path.insert(0, sys.argv[1])
import runtime.cli.command, runtime.cli.execute, runtime.cli.foreground, runtime.cli.lifecycle
import runtime.api, runtime.container, runtime.launch.creator, runtime.launch.hooks
import runtime.apply.cgroupmount, runtime.apply.devices, runtime.apply.sysctl, runtime.kernel.loopback, runtime.kernel.uts
import runtime.apply.cgroup, runtime.plan.cgroup_v1, runtime.plan.cgroup_v2, runtime.spec.parse, runtime.spec.validate
print(*sorted(sys.modules))
"""


def test_the_run_path_imports_little():
    command = [sys.executable, "-I", "-S", "-c", SCRIPT, str(ROOT)]
    loaded = set(subprocess.run(command, capture_output=True, text=True, check=True).stdout.split())
    assert not loaded & HEAVY
    assert not {name for name in loaded if name.split(".")[0] in ("shim", "cni")}
    assert len(loaded) < LIMIT, sorted(loaded)
