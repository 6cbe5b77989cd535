"""The modules that plain containers take: what packs may hold.

A pack is imported as a whole, so one that had learned what a rare container took would have every other pay for it, in time and
in memory. A test compares this list with what is loaded.
"""

from __future__ import annotations

_FOLDERS = {
    "": "api apply caution cli container errors jsonlite kernel launch plan privilege record request sealed spec state undo",
    "apply.": "cgroup cgroupmount credentials devices faults labels mounts paths sysctl",
    "apply.cgroup.": "detect devices files group processes",
    "cli.": "command context execute foreground lifecycle options report show signals table",
    "kernel.": "capability execute exefile fork keyring libc limits loopback mount namespace path pidfd prctl spawn uts",
    "launch.": "becoming console creator ending entering gate guarded hooks inherited init outside preload program protocol "
    "root setns sources stage1",
    "plan.": "cgroup cgroup_devices cgroup_v1 cgroup_v2 devices idmaps launch mounts namespaces process",
    "spec.": "lasting model parse parse_linux parse_resources parse_seccomp reader resources validate validate_resources words",
}
MODULES = frozenset(f"runtime.{folder}{name}" for folder, names in _FOLDERS.items() for name in names.split())
