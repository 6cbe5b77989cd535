"""Plugins of NRI for system tests: started beside the daemon, or installed for it to start."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tests.support.process import Process
from tests.support.wait import wait_for

if TYPE_CHECKING:
    from tests.support.daemon import Wherryd

ROOT = Path(__file__).resolve().parents[2]


class NriPlugin:
    """A plugin with a log of what it has heard; see nri_plugin for its configuration."""

    def __init__(self, wherryd: Wherryd, index: str, name: str, **config: Any) -> None:
        self.name = f"{index}-{name}"
        self.wherryd = wherryd
        self.log = wherryd.folder / f"{self.name}.log"
        self.config = {"index": index, "name": name, "log": str(self.log), **config}
        command = [sys.executable, "-m", "tests.support.nri_plugin", f"{wherryd.folder}/nri", json.dumps(self.config)]
        self.process = Process(command, wherryd.folder / f"{self.name}.out", environment={"PYTHONPATH": str(ROOT)})

    def start(self, until: str = "Synchronize") -> NriPlugin:
        """Connect, and wait until it has heard `until`."""
        self.process.start(lambda: until in self.heard())
        return self

    def install(self) -> NriPlugin:
        """Put it where the daemon starts plugins from; its configuration comes from the daemon."""
        for folder in ("nri.d", "nri.conf.d"):
            (self.wherryd.folder / folder).mkdir(exist_ok=True)
        program = self.wherryd.folder / "nri.d" / self.name
        program.write_text(f"#!/bin/sh\ncd {ROOT} && exec {sys.executable} -m tests.support.nri_plugin\n")
        program.chmod(0o755)
        (self.wherryd.folder / "nri.conf.d" / f"{self.name}.conf").write_text(json.dumps(self.config))
        return self

    def requests(self) -> list[tuple[str, dict[str, Any]]]:
        """Give what it has heard so far: methods with their requests."""
        if not self.log.exists():
            return []
        lines = self.log.read_text().splitlines(keepends=True)
        entries = [json.loads(line) for line in lines if line.endswith("\n")]
        return [(entry["method"], entry["message"]) for entry in entries]

    def heard(self) -> list[str]:
        """Give the methods."""
        return [method for method, _ in self.requests()]

    def last(self, method: str) -> dict[str, Any]:
        """Give the newest request of a method, waiting for a first one."""
        wait_for(lambda: method in self.heard(), f"{self.name} to hear {method}")
        return next(message for name, message in reversed(self.requests()) if name == method)

    def update(self, **request: Any) -> dict[str, Any]:
        """Let it send an UpdateContainers, and give the answer."""
        count = self.heard().count("updated")
        scratch = Path(f"{self.log}.new")
        scratch.write_text(json.dumps(request))
        scratch.rename(f"{self.log}.go")
        wait_for(lambda: self.heard().count("updated") > count, f"the answer to {self.name}")
        return self.last("updated")
