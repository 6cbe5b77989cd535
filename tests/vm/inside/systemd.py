"""What the tests ask systemd itself, through its own tools."""

from __future__ import annotations

import subprocess
from pathlib import Path

CGROUPS = Path("/sys/fs/cgroup")


def show(unit: str, *names: str) -> dict[str, str]:
    """Give properties of a unit."""
    command = ["systemctl", "show", unit, *(f"--property={name}" for name in names)]
    text = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    return dict(line.partition("=")[::2] for line in text.splitlines())


def known(unit: str) -> bool:
    """Tell whether systemd knows a unit."""
    return show(unit, "LoadState")["LoadState"] == "loaded"


def systemctl(*arguments: str) -> None:
    """Have something done."""
    subprocess.run(["systemctl", *arguments], check=True, capture_output=True)
