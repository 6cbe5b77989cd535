"""The suite that judges any CNI plugins: ours pass whole; Debian's pass but for what the table says."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.support.tools import find_cni_plugins

if TYPE_CHECKING:
    from collections.abc import Callable

pytestmark = [pytest.mark.system, pytest.mark.timeout(900)]

ROOT = Path(__file__).parents[2]
JUDGEMENTS = 480
"""Tests that were judged at the least; the rest concerns what a plugin or its version does not have."""


@pytest.fixture(scope="module")
def verdicts(tmp_path_factory: pytest.TempPathFactory) -> dict[str, tuple[int, str]]:
    """Judge both at once: each judge has a network and folders of its own."""
    ours = str(tmp_path_factory.mktemp("plugins"))
    subprocess.run([str(Path(sys.executable).parent / "wherry-cni"), "install", ours], check=True)
    folders = {"wherry-cni": ours, "containernetworking": find_cni_plugins()}
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "conformance/cni", "--plugin-dir"]
    started = {
        name: subprocess.Popen([*command, folder], cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
        for name, folder in folders.items()
    }
    try:
        return {name: (process.communicate(timeout=850)[0], process.returncode)[::-1] for name, process in started.items()}
    finally:
        for process in started.values():
            process.kill()


@pytest.mark.parametrize("name", ["wherry-cni", "containernetworking"])
def test_passes(verdicts: dict[str, tuple[int, str]], name: str, tool: Callable[[str], str]) -> None:
    """Ours have no line in the table; the peer's have no failure that it does not explain."""
    tool("nft")
    code, said = verdicts[name]
    assert code == 0, said[-9000:]
    summary = {word: int(number) for number, word in re.findall(r"(\d+) (\w+)", said.strip().splitlines()[-1])}
    assert sum(summary[word] for word in summary.keys() & {"passed", "xfailed"}) >= JUDGEMENTS
    assert "xpassed" not in summary, said[-3000:]
    assert name != "wherry-cni" or "xfailed" not in summary
