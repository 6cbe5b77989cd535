"""What `wherry-oci run` imports: the heavy parts of the standard library stay out, and so does everything outside runtime/."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from runtime.plain import MODULES

ROOT = Path(__file__).parents[3]
HEAVY = {
    "_collections_abc", "argparse", "asyncio", "collections", "contextlib", "ctypes", "dataclasses", "enum", "functools",
    "inspect", "json", "logging", "pathlib", "re", "selectors", "signal", "socket", "struct", "subprocess", "threading",
    "traceback", "typing",
}  # fmt: skip
LIMIT = 135
"""Modules of all kinds: each costs a tenth of a millisecond and more."""

SCRIPT = """
import sys
sys.path.insert(0, sys.argv[1])
import runtime.start, runtime.lean
runtime.lean.install()
import runtime.kernel.exefile
import runtime.cli.command, runtime.cli.execute, runtime.cli.foreground, runtime.cli.lifecycle
import runtime.api, runtime.container, runtime.launch.creator, runtime.launch.hooks
import runtime.apply.cgroupmount, runtime.apply.devices, runtime.apply.sysctl, runtime.kernel.loopback, runtime.kernel.uts
import runtime.apply.cgroup, runtime.plan.cgroup_v1, runtime.plan.cgroup_v2, runtime.spec.parse, runtime.spec.validate
import runtime.apply.cgroup.devices, runtime.cli.context, runtime.plan.cgroup_devices, runtime.spec.validate_resources
print(*sorted(sys.modules))
"""

EXEC = """
import sys
sys.path.insert(0, sys.argv[1])
import runtime.sealed, runtime.cli.execute, runtime.cli.signals, runtime.launch.setns
print(*sorted(sys.modules))
"""
START = """
import sys
sys.path.insert(0, sys.argv[1])
import runtime.start, runtime.lean
runtime.lean.install()
import runtime.cli.command, runtime.cli.lifecycle, runtime.cli.show, runtime.api, runtime.container
import runtime.launch.gate
print(*sorted(sys.modules))
"""
DELETE = START.replace("import runtime.launch.gate", "import runtime.apply.cgroup, runtime.apply.cgroup.processes")


def loaded_by(script: str) -> set[str]:
    command = [sys.executable, "-I", "-S", "-c", script, str(ROOT)]
    return set(subprocess.run(command, capture_output=True, text=True, check=True).stdout.split())


@pytest.mark.parametrize(("script", "foreign", "limit"), [(START, {"_socket"}, 65), (DELETE, set(), 69)])
def test_commands_about_a_container_load_hardly_a_library(script, foreign, limit):
    """Each of them costs a fifth of a millisecond: `_json` is worth it, `_ctypes` is not needed."""
    loaded = loaded_by(script)
    assert loaded & {"_ctypes", "_json", "_socket", "fcntl", "select"} == foreign | {"_json"}
    assert "_collections_abc" not in loaded  # which comes with the real os
    assert len(loaded) < limit, sorted(loaded)


def test_the_run_path_imports_little():
    loaded = loaded_by(SCRIPT)
    assert not loaded & HEAVY
    assert not {name for name in loaded if name.split(".")[0] in ("shim", "cni")}
    assert len(loaded) < LIMIT, sorted(loaded)


def test_packs_hold_what_is_loaded_by_plain_containers():
    loaded = {name for script in (SCRIPT, EXEC, START, DELETE) for name in loaded_by(script) if name.startswith("runtime.")}
    assert loaded - {"runtime.lean", "runtime.pyc", "runtime.start"} == MODULES
