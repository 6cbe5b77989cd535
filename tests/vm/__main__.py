"""Run the tests of systemd and of pure cgroup v2 in a virtual machine, or, with arguments, that command.

python -m tests.vm                  what `make test` runs
python -m tests.vm --peers          the same with runc and crun beside wherry-oci
python -m tests.vm COMMAND…         anything else
"""

from __future__ import annotations

import subprocess
import sys

from tests.support.tools import MissingToolError
from tests.vm import image, machine

SECONDS = 900.0
"""A run takes two to three minutes; other load on the machine slows it down."""
PYTEST = ("python", "-m", "pytest", "-q", "-p", "no:cacheprovider", "-m", "vm", "--durations=5")
TESTS = (*PYTEST, "tests/system", "tests/vm/inside")
PEERS = "--peers"


def main(arguments: list[str]) -> int:
    """Give the exit status of the command."""
    command = arguments or ["env", "WHERRY_TEST_RUNTIMES=wherry-oci", *TESTS]
    try:
        return machine.run(image.build(), TESTS if command == [PEERS] else command, seconds=SECONDS)
    except (MissingToolError, machine.MachineError, subprocess.SubprocessError) as error:
        sys.stderr.write(f"{error}\n")
        return 1


sys.exit(main(sys.argv[1:]))
