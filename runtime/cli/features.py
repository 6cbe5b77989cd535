"""The document of `features` (runtime-spec features.md): only what this build really does."""

from __future__ import annotations

import sys

from runtime.jsonlite import dumps
from runtime.plan.mounts import KERNEL_OPTIONS
from runtime.plan.seccomp import ACTIONS, ARCHITECTURES
from runtime.spec.defaults import OCI_VERSION
from runtime.spec.words import (
    CAPABILITIES,
    NAMESPACES,
    SECCOMP_FLAGS,
    SECCOMP_OPERATORS,
)

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from runtime.cli.context import Context

HOOKS = ("prestart", "createRuntime", "createContainer", "startContainer", "poststart", "poststop")


def features(_context: Context) -> int:
    """Print the document."""
    sys.stdout.write(dumps(document(), "    ") + "\n")
    return 0


def document() -> dict[str, Any]:
    """Give the document as plain JSON values; lists of words are sorted."""
    from runtime.cli.help import VERSION
    from runtime.kernel.libseccomp import version

    library = version()
    annotations = {"io.wherry.version": VERSION}
    if library:
        annotations["io.github.seccomp.libseccomp.version"] = library
    return {
        "ociVersionMin": "1.0.0",
        "ociVersionMax": OCI_VERSION,
        "hooks": list(HOOKS),
        "mountOptions": sorted(set(KERNEL_OPTIONS) - {""}),
        "linux": _linux(seccomp=bool(library)),
        "annotations": annotations,
        "potentiallyUnsafeConfigAnnotations": [],
    }


def _linux(*, seccomp: bool) -> dict[str, Any]:
    return {
        "namespaces": sorted(NAMESPACES),
        "capabilities": list(CAPABILITIES),
        "cgroup": {"v1": True, "v2": True, "systemd": False, "systemdUser": False, "rdma": True},
        "seccomp": _seccomp() if seccomp else {"enabled": False},
        "apparmor": {"enabled": True},
        "selinux": {"enabled": True},
        "intelRdt": {"enabled": False},
        "mountExtensions": {"idmap": {"enabled": True}},
        "netDevices": {"enabled": True},
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
