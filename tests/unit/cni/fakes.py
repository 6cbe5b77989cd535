"""Plugins that are shell scripts, and requests for bundled ones."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from cni import plugins, skel
from cni.executor import Executor

if TYPE_CHECKING:
    from pathlib import Path

SPOKEN = '{"cniVersion":"1.1.0","supportedVersions":["0.4.0","1.0.0","1.1.0"]}'


class Scripts:
    """A plugin directory whose plugins note each call in a file and do what their script says."""

    def __init__(self, folder: Path) -> None:
        self.bin = folder / "bin"
        self.log = folder / "calls"
        self.bin.mkdir()

    def add(self, name: str, body: str = "echo '{}'") -> None:
        """Make a plugin: `body` runs for every command but VERSION, with the standard input in $input."""
        path = self.bin / name
        path.write_text(
            f"""#!/bin/sh
input=$(cat)
if [ "$CNI_COMMAND" = VERSION ]; then echo '{SPOKEN}'; exit 0; fi
config=$(echo "$input" | tr -d '\\n\\t')
printf '%s\\t%s\\t%s\\t%s\\t%s\\n' "{name}" "$CNI_COMMAND" "$CNI_IFNAME" "$CNI_ARGS" "$config" >> {self.log}
{body}
"""
        )
        path.chmod(0o755)

    def calls(self) -> list[tuple[str, str]]:
        """Give plugin and command of every call so far."""
        return [(call["plugin"], call["command"]) for call in self.details()]

    def details(self) -> list[dict[str, Any]]:
        """Give every call so far."""
        if not self.log.exists():
            return []
        keys = ("plugin", "command", "ifname", "args", "config")
        found = [dict(zip(keys, line.split("\t"), strict=True)) for line in self.log.read_text().splitlines()]
        return [call | {"config": json.loads(call["config"])} for call in found]


def call(plugin: str, command: str, config: dict[str, Any], **fields: str) -> dict[str, Any] | None:
    """Run a command of a bundled plugin in this process."""
    found = plugins.find(plugin)
    assert found is not None
    invocation = skel.Invocation(plugin=plugin, command=command, config=config, **fields)
    return skel.call(found, invocation, Executor((), prefer_embedded=True))
