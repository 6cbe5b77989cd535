"""The document of `features` (runtime-spec features.md): only what this build really does."""

from __future__ import annotations

import sys

from runtime.jsonlite import dumps
from runtime.plan.mounts import KERNEL_OPTIONS
from runtime.plan.seccomp import ACTIONS, ARCHITECTURES
from runtime.plan.systemd import ANNOTATION as SYSTEMD_PROPERTY
from runtime.spec.defaults import OCI_VERSION
from runtime.spec.words import (
    CAPABILITIES,
    MEMORY_POLICIES,
    MEMORY_POLICY_FLAGS,
    NAMESPACES,
    SECCOMP_FLAGS,
    SECCOMP_OPERATORS,
)

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from runtime.cli.context import Context

HOOKS = ("prestart", "createRuntime", "createContainer", "startContainer", "poststart", "poststop")


CHECKPOINT = ("io.wherry.checkpoint.enabled", "org.opencontainers.runc.checkpoint.enabled")
"""Annotations that tell whether checkpoint and restore have the criu they need; the second is the name callers of runc know."""


def features(_context: Context) -> int:
    """Print the document."""
    sys.stdout.write(dumps(document(), "    ") + "\n")
    return 0


def document() -> dict[str, Any]:
    """Give the document as plain JSON values; lists of words are sorted."""
    from runtime.checkpoint.dump import CONFIG_ANNOTATION
    from runtime.cli.help import VERSION
    from runtime.kernel.libseccomp import version

    library = version()
    annotations = {"io.wherry.version": VERSION}
    if library:
        annotations["io.github.seccomp.libseccomp.version"] = library
    annotations |= dict.fromkeys(CHECKPOINT, "true" if _has_criu() else "false")
    return {
        "ociVersionMin": "1.0.0",
        "ociVersionMax": OCI_VERSION,
        "hooks": list(HOOKS),
        "mountOptions": sorted(set(KERNEL_OPTIONS) - {""}),
        "linux": _linux(seccomp=bool(library)),
        "annotations": annotations,
        "potentiallyUnsafeConfigAnnotations": [CONFIG_ANNOTATION, SYSTEMD_PROPERTY],
    }


def _has_criu() -> bool:
    from runtime.checkpoint.service import find_program
    from runtime.errors import KernelFault

    try:
        return bool(find_program("criu"))
    except KernelFault:
        return False


def _linux(*, seccomp: bool) -> dict[str, Any]:
    return {
        "namespaces": sorted(NAMESPACES),
        "capabilities": list(CAPABILITIES),
        "cgroup": {"v1": True, "v2": True, "systemd": True, "systemdUser": True, "rdma": True},
        "seccomp": _seccomp() if seccomp else {"enabled": False},
        "apparmor": {"enabled": True},
        "selinux": {"enabled": True},
        "intelRdt": {"enabled": True, "schemata": True, "monitoring": True},
        "mountExtensions": {"idmap": {"enabled": True}},
        "netDevices": {"enabled": True},
        "memoryPolicy": {"modes": sorted(MEMORY_POLICIES), "flags": sorted(MEMORY_POLICY_FLAGS)},
    }


def _seccomp() -> dict[str, Any]:
    from runtime.kernel.seccomp import FILTER_FLAGS, flag_is_known

    return {
        "enabled": True,
        "actions": sorted(ACTIONS),
        "operators": sorted(SECCOMP_OPERATORS),
        "archs": sorted(ARCHITECTURES),
        "knownFlags": sorted(SECCOMP_FLAGS),
        "supportedFlags": sorted(flag for flag in SECCOMP_FLAGS if flag_is_known(FILTER_FLAGS[flag])),
    }
