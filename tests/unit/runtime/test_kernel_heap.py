"""What a process gives back once it has started, read from smaps(5) of a process of its own."""

from __future__ import annotations

import json
import subprocess
import sys

_PROGRAM = """
import json, sqlite3, ssl
from runtime.kernel.heap import unmap_code

def resident():
    '''Kilobytes of files' code this process has mapped.'''
    total, code = 0, False
    for line in open("/proc/self/smaps", errors="replace"):
        words = line.split()
        if not words[0].endswith(":"):
            code = words[1] == "r-xp" and len(words) == 6 and words[5].startswith("/")
        elif code and words[0] == "Rss:":
            total += int(words[1])
    return total

before = resident()
unmap_code()
after = resident()
row = sqlite3.connect(":memory:").execute("select upper('still here')").fetchone()[0]
print(json.dumps([before, after, row]))
"""


def test_code_that_ran_at_the_start_is_unmapped_and_comes_back_where_it_is_needed() -> None:
    said = subprocess.run([sys.executable, "-c", _PROGRAM], check=True, capture_output=True, text=True).stdout
    before, after, row = json.loads(said)
    assert after < before * 3 / 4, f"{before} kB of code before, {after} after"
    assert row == "STILL HERE"
