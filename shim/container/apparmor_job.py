"""Load the default AppArmor profile through apparmor_parser(8), in a spawner job: wherryd itself never forks."""

from __future__ import annotations

import os
import shutil
from typing import TYPE_CHECKING, Any

from runtime.kernel.spawn import spawn, wait
from shim.container.apparmor_profile import profile_text
from shim.errors import FailedPrecondition

if TYPE_CHECKING:
    from collections.abc import Callable

PARSER = "apparmor_parser"
_SYSTEM_PATH = "/usr/local/sbin:/usr/sbin:/sbin"
_ABI_FILE = "/etc/apparmor.d/abi/3.0"
_MOST_SAID = 4096


def run(params: dict[str, Any], _fds: list[int], _report: Callable[[dict[str, Any]], None]) -> dict[str, Any]:
    """Load the profile called `name`; raise FailedPrecondition, with the parser's own words, when that cannot be done."""
    name = params["name"]
    path = shutil.which(PARSER, path=f"{os.environ.get('PATH', '')}:{_SYSTEM_PATH}")
    if path is None:
        raise FailedPrecondition(f"AppArmor profile {name} cannot be loaded: this node has no {PARSER}; install it (apparmor)")
    text = profile_text(name, abi="<abi/3.0>" if os.path.exists(_ABI_FILE) else "")
    source, said = os.memfd_create("wherry-profile", os.MFD_CLOEXEC), os.memfd_create("wherry-said", os.MFD_CLOEXEC)
    try:
        os.write(source, text.encode())
        os.lseek(source, 0, os.SEEK_SET)
        # replace: somebody else may have loaded it meanwhile. The cache is by file, and this text is in none.
        code = wait(spawn([PARSER, "--replace", "--skip-cache", "--quiet"], dict(os.environ), (source, said, said), path=path))
        words = os.pread(said, _MOST_SAID, 0).decode("utf-8", "replace").strip().replace("\n", "; ")
    finally:
        os.close(source)
        os.close(said)
    if code != 0:
        raise FailedPrecondition(f"AppArmor profile {name} cannot be loaded: {PARSER} ended with {code}: {words}")
    return {}
