"""criu, which runtimes call to save and restore containers: whether one here works, and how a runtime is made to find it."""

from __future__ import annotations

import os
import shutil
import subprocess
from functools import cache
from typing import TYPE_CHECKING

from conformance.oci.support import host

if TYPE_CHECKING:
    from conformance.oci.support.runtime import Runtime

PATHS = os.pathsep.join((os.environ.get("PATH", os.defpath), "/usr/sbin", "/sbin"))


@cache
def program() -> str:
    """Give the path of a criu that knows this kernel: OCI_CRIU or the installed one, empty without one."""
    path = os.environ.get("OCI_CRIU") or shutil.which("criu", path=PATHS)
    works = path and subprocess.run([path, "check"], capture_output=True, check=False, timeout=60).returncode == 0
    return path if path and works else ""


def environment() -> dict[str, str]:
    """Give an environment in which `criu` is that criu."""
    folder, name = os.path.split(program())
    assert name == "criu", f"OCI_CRIU must name a program called criu, not {name}: runtimes look for that name in PATH"
    return os.environ | {"PATH": folder + os.pathsep + PATHS}


@cache
def offered(runtime: Runtime) -> bool:
    """Tell whether the features document of a runtime says that it checkpoints: an annotation of its own each."""
    done = runtime.call("features")
    return done.returncode == 0 and any(
        word.endswith('.checkpoint.enabled":"true"') for word in "".join(done.stdout.split()).replace(",", "\n").splitlines()
    )


def need(runtime: Runtime) -> None:
    """Skip where the runtime does not checkpoint, or no criu can."""
    host.need(program(), "no criu that works on this kernel (set OCI_CRIU to one)")
    if not offered(runtime):
        import pytest

        pytest.skip(f"{runtime.name} does not offer checkpoints in its features")
