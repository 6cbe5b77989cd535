"""The suite that judges any CRI endpoint: wherryd passes whole; Debian's containerd passes but for what the table says."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from conformance.cri.seen import every_field, excused
from tests.support.cri import Cri

if TYPE_CHECKING:
    from tests.support.daemon import Containerd, Endpoint, Wherryd

pytestmark = [pytest.mark.system, pytest.mark.timeout(900)]

ROOT = Path(__file__).parents[2]
JUDGEMENTS = 590
"""Tests that the suite has at the least."""


def judge(endpoint: Endpoint, *arguments: str) -> dict[str, int]:
    """Run the suite on an endpoint and give how many tests ended how."""
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", f"--endpoint=unix://{endpoint.address}"]
    options = (f"--cgroup-parent={endpoint.cgroup_parent}", f"--cdi-dir={endpoint.folder}/cdi")
    run = subprocess.run(
        [*command, *options, "conformance/cri", *arguments], cwd=ROOT, capture_output=True, text=True, check=False, timeout=850
    )
    assert run.returncode == 0, run.stdout[-8000:] + run.stderr[-2000:]
    summary = run.stdout.strip().splitlines()[-1]
    return {word: int(number) for number, word in re.findall(r"(\d+) (\w+)", summary)}


@pytest.mark.parametrize("containerd", [{"tidy": False}], indirect=True)
def test_wherryd_passes_whole_and_containerd_but_for_the_table(
    wherryd: Wherryd, containerd: Containerd, tmp_path: Path
) -> None:
    """Both at once: they wait more than they work. No field of the API is left that no test sends or sees."""
    fields = tmp_path / "fields.json"
    with ThreadPoolExecutor(2) as threads:
        peer = threads.submit(judge, containerd)
        ours = threads.submit(judge, wherryd, f"--fields={fields}").result()
        theirs = peer.result()
    assert ours["passed"] >= JUDGEMENTS
    assert set(ours) & {"failed", "errors", "skipped", "xfailed", "xpassed"} == set()
    assert theirs["passed"] >= JUDGEMENTS - 150
    assert theirs["xfailed"] > 0
    seen = json.loads(fields.read_text())
    assert [name for name in every_field() if name not in seen and not excused(name)] == []


FAKE = """#!/bin/sh
[ "$1" = -h ] && { echo "  -nri-socket string"; exit 0; }
echo "$@"
[ -S "${2#unix://}" ] && exit 7
"""


def test_critest_is_given_a_daemon_and_its_exit_code_is_ours(tmp_path: Path) -> None:
    program = tmp_path / "critest"
    program.write_text(FAKE)
    program.chmod(0o755)
    command = [sys.executable, "-m", "conformance.cri", "critest", str(program), "-ginkgo.focus=x"]
    run = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False, timeout=120)
    assert run.returncode == 7, run.stderr
    words = run.stdout.split()
    assert words[0::2][:3] == ["-runtime-endpoint", "-image-endpoint", "-nri-socket"]
    assert words[-1] == "-ginkgo.focus=x"
    assert "left behind" not in run.stderr


def test_whoever_has_critest_is_served_its_images() -> None:
    command = [sys.executable, "-m", "conformance.cri", "serve"]
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as server:
        assert server.stdout is not None
        assert server.stderr is not None
        cri = Cri(server.stdout.readline().strip())
        try:
            assert cri.pull("registry.k8s.io/e2e-test-images/busybox:1.29-2").startswith("sha256:")
        finally:
            cri.close()
            server.terminate()
        assert server.wait(60) == 0
        assert "left behind" not in server.stderr.read()
