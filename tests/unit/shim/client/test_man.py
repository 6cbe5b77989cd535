"""The manual page is not behind the program."""

from __future__ import annotations

import re
from pathlib import Path

import shim.client
from shim.client.main import COMMANDS

PAGE = Path(shim.client.__file__).parents[1] / "man" / "wherry.1"


def test_every_command_has_its_line() -> None:
    lines = re.findall(r"^\.It Cm (.*)$", PAGE.read_text(encoding="utf-8"), re.MULTILINE)
    words = {word for line in lines for word in re.split(r"[ ,]+", line)}
    assert {command.name for command in COMMANDS} - words == set()
