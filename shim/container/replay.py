"""A shell command that repeats a failed create by hand."""

from __future__ import annotations

import base64
import gzip
import shlex
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence


def replay_command(container_id: str, config_json: bytes, layers: Sequence[str]) -> str:
    """Give a command that makes the same bundle in a new directory and runs it with `wherry-oci`.

    It carries config.json in itself, because the failed container's own bundle is gone when somebody reads the log.
    """
    packed = base64.b64encode(gzip.compress(config_json, mtime=0)).decode()
    lower = shlex.quote("lowerdir=" + ":".join(layers))
    return (
        "B=$(mktemp -d) && mkdir $B/rootfs $B/upper $B/work"
        f" && mount -t overlay overlay -o {lower},upperdir=$B/upper,workdir=$B/work $B/rootfs"
        f" && echo {packed} | base64 -d | gunzip > $B/config.json"
        f" && wherry-oci run --bundle $B {container_id[:12]}"
    )
