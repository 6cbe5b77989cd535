"""Whether the heap is without holes after `fill_holes`: what is allocated next lies side by side."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[4]
PROGRAM = """
import collections, gc, json, email.message, xml.dom.minidom, sys  # something that leaves holes
from shim.spawner import warmth
def scattered():
    found = 0
    for size in range(48, 272, 16):
        made = [bytes(size - sys.getsizeof(b"")) for _ in range(100)]
        pages = collections.Counter(id(block) >> 12 for block in made)
        found += 100 - sum(count for _page, count in pages.most_common(100 * size // 4096 + 2))
    return found
for module in [name for name in sys.modules if name.startswith(("xml", "email"))]:
    del sys.modules[module]
gc.collect()
print(scattered())
warmth.fill_holes()
print(scattered())
"""


def test_new_objects_lie_in_a_row() -> None:
    finished = subprocess.run([sys.executable, "-c", PROGRAM], cwd=ROOT, capture_output=True, text=True, check=True, timeout=60)
    before, after = map(int, finished.stdout.split())
    assert after <= 40  # of 1400
    assert before > 2 * after
