"""The plugins under judgement: how one is called, what it answered, and whose they are."""

from __future__ import annotations

import json
import os
import re
import subprocess
from dataclasses import dataclass
from functools import cached_property
from typing import Any

SECONDS = 30
"""How long one call may take: none has more to do than to ask the kernel a few things."""
NEWEST = ("1.1.0", "1.0.0")
"""What the judge speaks, best first."""


@dataclass(frozen=True, kw_only=True)
class Answer:
    """What came of one call: exit code, standard output and standard error."""

    code: int
    out: str
    err: str

    @cached_property
    def value(self) -> dict[str, Any]:
        """The one JSON object on standard output."""
        try:
            value = json.loads(self.out)
        except ValueError:
            raise AssertionError(
                f"standard output is not one JSON value: {self.out!r} (on standard error: {self.err!r})"
            ) from None
        assert isinstance(value, dict), f"{self.out!r} is no object"
        return value

    def result(self) -> dict[str, Any]:
        """Give the object of a call that had to succeed."""
        assert self.code == 0, f"it failed: {self}"
        return self.value

    def done(self) -> None:
        """Require success of a call that has nothing to say."""
        assert self.code == 0, f"it failed: {self}"

    def fault(self, *codes: int) -> dict[str, Any]:
        """Give the error object of a call that had to fail, with one of these codes when any are given."""
        assert self.code != 0, f"it was not refused: {self}"
        value = self.value
        assert isinstance(value.get("code"), int), f"no code: {value}"
        assert value["code"] > 0, f"codes begin at 1: {value}"
        assert isinstance(value.get("msg"), str), f"no message: {value}"
        assert value["msg"], "the message is empty"
        assert not codes or value["code"] in codes, f"{value}, expected code {' or '.join(map(str, codes))}"
        return value


@dataclass(frozen=True, kw_only=True)
class Plugins:
    """A folder of plugins, and who made them."""

    folder: str
    name: str
    version: tuple[int, ...]

    def has(self, plugin: str) -> bool:
        """Tell whether there is such a plugin."""
        return os.access(os.path.join(self.folder, plugin), os.X_OK)

    def call(
        self,
        command: str,
        config: dict[str, Any] | str,
        *,
        plugin: str = "",
        environment: dict[str, str] | None = None,
    ) -> Answer:
        """Call one plugin, that of the configuration when it is not named; "" in `environment` leaves a variable out."""
        given = {"CNI_COMMAND": command, "CNI_PATH": self.folder, "PATH": os.environ.get("PATH", os.defpath)} | (
            environment or {}
        )
        text = config if isinstance(config, str) else json.dumps(config)
        program = os.path.join(self.folder, plugin or json.loads(text)["type"])
        done = subprocess.run(
            [program],
            input=text,
            capture_output=True,
            text=True,
            timeout=SECONDS,
            env={name: value for name, value in given.items() if value},
            check=False,
        )
        return Answer(code=done.returncode, out=done.stdout, err=done.stderr)

    @cached_property
    def spoken(self) -> tuple[str, ...]:
        """The versions that the plugins speak, oldest first."""
        answer = self.call("VERSION", {"cniVersion": "1.0.0"}, plugin="bridge")
        return tuple(answer.result()["supportedVersions"])

    @cached_property
    def newest(self) -> str:
        """The best version that plugins and judge both speak."""
        return next(version for version in NEWEST if version in self.spoken)


def identify(folder: str) -> Plugins:
    """Look at a folder; ValueError says what is wrong.

    The version of a deviation's table is that of the specification: plugins are often built without one of their own.
    """
    program = os.path.join(folder, "bridge")
    if not os.access(program, os.X_OK):
        raise ValueError(f"--plugin-dir {folder}: there is no bridge plugin")
    environment = {"PATH": os.environ.get("PATH", os.defpath)}
    called = subprocess.run(
        [program], stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=SECONDS, env=environment, check=False
    )
    about = re.match(r"CNI bridge plugin(?: of (?P<maker>[\w-]+))?", called.stderr)
    name = (about["maker"] or "containernetworking") if about else os.path.basename(os.path.abspath(folder))
    judged = Plugins(folder=os.path.abspath(folder), name=name, version=(0,))
    return Plugins(folder=judged.folder, name=name, version=tuple(int(part) for part in judged.spoken[-1].split(".")))
