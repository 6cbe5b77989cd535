"""Where a plugin is found, and how it is run: as a program, or as a function of this package.

A type is looked for in the plugin directories first; a bundled plugin serves when no binary is found, or always when
`prefer_embedded` is set. Both ways take an Invocation and give the decoded answer, so that the client, and plugins that
delegate to an IPAM plugin, cannot tell them apart.

Source: CNI specification 1.1 section 2 (execution protocol) and section 4 (delegation).
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

from cni import plugins, skel
from cni.errors import CniFault, Code, PluginFault
from cni.executor import program

if TYPE_CHECKING:
    from collections.abc import Sequence

    from cni.skel import Invocation, Plugin

DEFAULT_TIMEOUT_SECONDS = 60.0


class Executor:
    """Run plugins found in `bin_dirs` or bundled; `timeout` in seconds bounds each program."""

    def __init__(
        self, bin_dirs: Sequence[str], *, prefer_embedded: bool = False, timeout: float = DEFAULT_TIMEOUT_SECONDS
    ) -> None:
        self._bin_dirs = tuple(bin_dirs)
        self._prefer_embedded = prefer_embedded
        self._timeout = timeout
        self._versions: dict[str, tuple[str, ...]] = {}

    def run(self, invocation: Invocation) -> dict[str, Any] | None:
        """Run one command of one plugin; raise PluginFault with the plugin's own code when it refuses."""
        found = self.find(invocation.plugin)
        if isinstance(found, str):
            return program.run(found, invocation, self._bin_dirs, self._timeout)
        try:
            return skel.call(found, invocation, self)
        except PluginFault:
            raise
        except CniFault as fault:
            raise PluginFault(
                fault.msg, plugin=invocation.plugin, command=invocation.command, code=fault.code, details=fault.details
            ) from fault

    def versions(self, plugin: str) -> tuple[str, ...]:
        """Ask a plugin once which protocol versions it speaks."""
        if plugin not in self._versions:
            answer = self.run(skel.Invocation(plugin=plugin, command="VERSION", config={"cniVersion": "1.0.0"})) or {}
            spoken = answer.get("supportedVersions")
            if not isinstance(spoken, list) or not all(isinstance(version, str) for version in spoken):
                raise PluginFault("gave no supportedVersions", plugin=plugin, command="VERSION", code=Code.DECODING_FAILURE)
            self._versions[plugin] = tuple(spoken)
        return self._versions[plugin]

    def find(self, plugin: str) -> str | Plugin:
        """Give the path of the program, or the bundled plugin; raise CniFault (code 50) naming where was looked."""
        bundled = plugins.find(plugin)
        if bundled is not None and self._prefer_embedded:
            return bundled
        for directory in self._bin_dirs:
            path = os.path.join(directory, plugin)
            if os.access(path, os.X_OK) and os.path.isfile(path):
                return path
        if bundled is not None:
            return bundled
        where = ", ".join(self._bin_dirs) or "no directory configured"
        raise CniFault(f"plugin {plugin!r} is neither bundled nor found in {where}", code=Code.PLUGIN_NOT_AVAILABLE)
