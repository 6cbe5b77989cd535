"""Try whether this node can mount the root of a container with a user namespace, in a spawner job: wherryd never forks."""

from __future__ import annotations

import os
import shutil
from typing import TYPE_CHECKING, Any

from runtime.apply.idmap import IdMaps
from runtime.apply.mounts import mount_overlay
from runtime.plan.namespaces import NamespacePlan
from runtime.request import RootfsMount

if TYPE_CHECKING:
    from collections.abc import Callable

SOME_IDS = "0 65536 65536"
"""Any will do; nothing is written with them."""


def run(params: dict[str, Any], _fds: list[int], _report: Callable[[dict[str, Any]], None]) -> dict[str, Any]:
    """Mount an overlay of id-mapped layers made below `folder`, and forget it; raise RuntimeFault saying what is lacking."""
    folder = f"{params['folder']}/layers-probe"
    shutil.rmtree(folder, ignore_errors=True)  # of a daemon that was killed
    names = [f"{folder}/{name}" for name in ("layer", "upper", "work")]
    for name in names:
        os.makedirs(name, 0o700)
    maps = IdMaps(NamespacePlan(uid_map=SOME_IDS, gid_map=SOME_IDS), -1)
    try:
        layer, upper, work = names
        os.close(mount_overlay(RootfsMount(lower=(layer,), upper=upper, work=work), maps))
    finally:
        maps.close()
        shutil.rmtree(folder, ignore_errors=True)
    return {}
