"""Run the tests of systemd and of pure cgroup v2 in a virtual machine, or, with arguments, that command."""

from __future__ import annotations

import subprocess
import sys

from tests.support.tools import MissingToolError
from tests.vm import image, machine

SECONDS = 900.0
"""A run takes two to three minutes; other load on the machine slows it down."""
TESTS = ("python", "-m", "pytest", "-q", "-p", "no:cacheprovider", "-m", "vm", "tests/system", "tests/vm/inside")


def main() -> int:
    """Give the exit status of the command."""
    try:
        return machine.run(image.build(), sys.argv[1:] or TESTS, seconds=SECONDS)
    except (MissingToolError, machine.MachineError, subprocess.SubprocessError) as error:
        sys.stderr.write(f"{error}\n")
        return 1


sys.exit(main())
