"""The result as Markdown: both sides, their ratios, the budgets, the machine."""

from __future__ import annotations

import os
import platform
import subprocess
from typing import TYPE_CHECKING

from conformance.bench.budget import STEPS, Step

if TYPE_CHECKING:
    from conformance.bench.measure import Results

NONE = "-"
VERDICTS = {True: "hit", False: "**miss**", None: NONE}


def markdown(results: Results, versions: dict[str, str]) -> str:
    """Write the whole report."""
    lines = [
        "| step | Wherry | containerd + runc | containerd + crun | of runc | of crun | budget | |",
        "|---|---:|---:|---:|---:|---:|---|---|",
        *(_row(step, results) for step in STEPS if step.key in results.figures),
        "",
        f"Machine: {machine()}.",
        f"Versions: {'; '.join(f'{name}: {version}' for name, version in versions.items())}.",
    ]
    if results.notes:
        lines += ["", "Not measured:", "", *(f"- {note}" for note in results.notes)]
    return "\n".join(lines) + "\n"


def _row(step: Step, results: Results) -> str:
    own, runc, crun = (results.figures[step.key].get(name) for name in ("wherry", "runc", "crun"))
    met = None if own is None else step.met(own, runc, crun)
    cells = [
        step.title,
        *(_figure(value, step) for value in (own, runc, crun)),
        _share(own, runc, step),
        _share(own, crun, step),
        step.budget,
        VERDICTS[met],
    ]
    return f"| {' | '.join(cells)} |"


def _figure(value: float | None, step: Step) -> str:
    return NONE if value is None else f"{value:.{step.digits}f} {step.unit}"


def _share(own: float | None, peer: float | None, step: Step) -> str:
    """Write the ratio so that more is better reads as a factor, and less is better as a fraction."""
    if own is None or not peer or not own:
        return NONE
    ratio = own / peer
    if step.more_is_better or ratio >= 1:
        return f"{ratio:.2f}x"
    return f"1/{1 / ratio:.1f}"


def machine() -> str:
    """Describe the processor, memory and kernel."""
    model = "unknown processor"
    memory = 0
    with open("/proc/cpuinfo", encoding="utf-8") as table:
        for line in table:
            if line.startswith("model name"):
                model = " ".join(line.partition(":")[2].split())
                break
    with open("/proc/meminfo", encoding="utf-8") as table:
        memory = int(table.readline().split()[1])
    cores = len(os.sched_getaffinity(0))
    return f"{cores} cores of {model}, {memory / 1e6:.0f} GB, Linux {platform.release()}, Python {platform.python_version()}"


def tool_version(path: str) -> str:
    """Give the first line a runtime prints about its version."""
    finished = subprocess.run([path, "--version"], capture_output=True, text=True, check=False)
    return (finished.stdout.splitlines() or [finished.stderr.strip() or "unknown"])[0]
