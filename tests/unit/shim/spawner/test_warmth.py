"""Whether the heap is without holes after `fill_holes`: what is allocated next lies side by side."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[4]
PROGRAM = """
import json, email.message, xml.dom.minidom  # something that leaves holes
from shim.spawner import warmth
size = 96
def pages():
    made = [bytes(size - sys.getsizeof(b"")) for _ in range(100)]
    return len({id(block) >> 12 for block in made})
import sys
for module in [name for name in sys.modules if name.startswith(("xml", "email"))]:
    del sys.modules[module]
print(pages())
warmth.fill_holes()
print(pages())
"""


def test_new_objects_lie_in_a_row() -> None:
    finished = subprocess.run([sys.executable, "-c", PROGRAM], cwd=ROOT, capture_output=True, text=True, check=True, timeout=60)
    before, after = map(int, finished.stdout.split())
    assert after <= 100 * 96 // 4096 + 2
    assert before > after
