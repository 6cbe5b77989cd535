"""Run the tests of systemd and of cgroups as it mounts them in a virtual machine, or, with arguments, any command in one.

python -m tests.vm                  what `make test` runs: pure cgroup v2, then v1 alone
python -m tests.vm --peers          the same with runc and crun beside wherry-oci
python -m tests.vm --legacy         hybrid, then v1 alone
python -m tests.vm --crash          a crash of the machine under a busy wherryd
python -m tests.vm --selinux        SELinux in AppArmor's place
python -m tests.vm --conformance …  conformance/oci, or its files that are named, on pure cgroup v2; an hour for all
python -m tests.vm COMMAND…         anything else, on pure cgroup v2
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

from tests.support.tools import MissingToolError, find_tool
from tests.vm import image, machine

if TYPE_CHECKING:
    from tests.vm.image import Image

SECONDS = 1800.0
"""The longest of the runs takes two to three minutes; other load on the machine slows it down."""
PYTEST = ("python", "-m", "pytest", "-q", "-p", "no:cacheprovider", "-m", "vm", "--durations=5")
TESTS = (*PYTEST, "tests/system", "tests/vm/inside")
OURS = ("env", "WHERRY_TEST_RUNTIMES=wherry-oci")


def modern(built: Image, *, peers: bool = False) -> int:
    """Judge on pure cgroup v2."""
    return machine.run(built, TESTS if peers else (*OURS, *TESTS), seconds=SECONDS)


def legacy(built: Image, kind: str = "hybrid") -> int:
    """Judge where systemd mounts v1's hierarchies."""
    boot = machine.Boot(cgroups=kind)
    return machine.run(built, (*OURS, *PYTEST, "tests/vm/legacy"), seconds=SECONDS, boot=boot)


def selinux(built: Image) -> int:
    """Judge where labels are enforced."""
    return machine.run(built, (*OURS, *PYTEST, "tests/vm/selinux"), seconds=SECONDS, boot=machine.Boot(selinux=True))


def crash(built: Image) -> int:
    """Let the machine crash under a busy wherryd, and judge what it finds when it is up again."""
    with tempfile.TemporaryDirectory(prefix="wherry-vm") as name:
        boot = machine.Boot(disk=Path(name) / "disk")
        with open(Path(name) / "disk", "wb") as disk:
            disk.truncate(1 << 30)
        subprocess.run([find_tool("mkfs.ext4"), "-q", Path(name) / "disk"], check=True)
        machine.crash(built, ("python", "-m", "tests.vm.crash.before"), seconds=SECONDS, boot=boot)
        return machine.run(built, (*PYTEST, "tests/vm/crash"), seconds=SECONDS, boot=boot)


def conformance(built: Image, files: list[str]) -> int:
    """Judge wherry-oci by the suite that judges any runtime, where neither v1 nor another kernel's habits are in the way."""
    suite = (
        "python",
        "-m",
        "pytest",
        "-q",
        "-p",
        "no:cacheprovider",
        *(files or ["conformance/oci"]),
        "--runtime",
        "wherry-oci",
    )
    return machine.run(built, ("env", "OCI_PATIENCE=6", *suite), seconds=4 * SECONDS * (1 if files else 4))


def main(arguments: list[str]) -> int:
    """Give the exit status of what failed first, or 0."""
    try:
        built = image.build()
        match arguments:
            case [] | ["--legacy"]:
                return (legacy(built) if arguments else modern(built)) or legacy(built, "v1")
            case ["--peers"]:
                return modern(built, peers=True)
            case [("--selinux" | "--crash") as name]:
                return (selinux if name == "--selinux" else crash)(built)
            case ["--conformance", *files]:
                return conformance(built, files)
        return machine.run(built, arguments, seconds=SECONDS)
    except (MissingToolError, machine.MachineError, subprocess.SubprocessError, TimeoutError) as error:
        sys.stderr.write(f"{error}\n")
        return 1


sys.exit(main(sys.argv[1:]))
