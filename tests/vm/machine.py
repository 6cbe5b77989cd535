"""One run of the virtual machine: QEMU in software emulation, one command inside, its output here."""

from __future__ import annotations

import compileall
import shlex
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

from tests.support.tools import find_tool

if TYPE_CHECKING:
    from collections.abc import Sequence

    from tests.vm.image import Image

CHECKOUT = Path(__file__).resolve().parents[2]
KERNEL_OPTIONS = (
    "console=ttyS0 quiet panic=-1 no_timer_check cgroup_no_v1=all psi=1 hugepages=16 systemd.unified_cgroup_hierarchy=1"
    " systemd.unit=wherry-vm.service systemd.show_status=no"
)
"""no_timer_check: on a busy host an emulated timer ticks too late for the kernel, which then panics."""
MEMORY, CPUS = "3G", 2
PYTHON = (3, 11)
"""What Debian bookworm has; the packages in .venv must be for the same."""


class MachineError(Exception):
    """The machine ended without telling how its command did; the message has the end of its console."""


def run(image: Image, command: Sequence[str], *, seconds: float) -> int:
    """Run a command in a new machine, its output as ours, and give its exit status.

    The checkout lies at the same path as here, read-only, with an interpreter of the guest's in .venv. Raises MachineError,
    and TimeoutExpired after `seconds`.
    """
    with tempfile.TemporaryDirectory(prefix="wherry-vm") as name:
        job = Path(name)
        _compile()
        (job / "command").write_text(shlex.join(command) + "\n")
        (job / "checkout").write_text(f"{CHECKOUT}\n")
        subprocess.run(_qemu(image, job), check=False, stdin=subprocess.DEVNULL, timeout=seconds)
        try:
            return int((job / "status").read_text())
        except (FileNotFoundError, ValueError):
            console = (job / "console").read_text(errors="replace")
            raise MachineError(f"the virtual machine ended early; its console:\n{console[-4000:]}") from None


def _compile() -> None:
    """Compile our sources here: inside it takes twenty times longer and the checkout may not be written."""
    if sys.version_info[:2] != PYTHON:
        wanted, own = (".".join(map(str, version)) for version in (PYTHON, sys.version_info[:2]))
        raise MachineError(
            f"the virtual machine has Python {wanted}, .venv has {own}: run make clean, then make PYTHON=python{wanted}"
        )
    for folder in ("runtime", "shim", "cni", "tests"):
        compileall.compile_dir(CHECKOUT / folder, quiet=2)


def _qemu(image: Image, job: Path) -> list[str]:
    """Give QEMU's command line (qemu(1))."""
    options = {
        "machine": "pc",
        "accel": "tcg,thread=multi",
        "cpu": "max",
        "smp": str(CPUS),
        "m": MEMORY,
        "kernel": str(image.kernel),
        "initrd": str(image.initrd),
        "append": KERNEL_OPTIONS,
        "drive": f"file={image.root},format=raw,if=virtio,snapshot=on",
        "display": "none",
        "serial": f"file:{job / 'console'}",
    }
    command = [find_tool("qemu-system-x86_64"), "-nodefaults", "-no-user-config", "-no-reboot"]
    for option, value in options.items():
        command += [f"-{option}", value]
    command += ["-device", "virtio-serial-pci", "-chardev", "file,id=output,path=/dev/stdout,append=on"]
    command += ["-device", "virtserialport,chardev=output"]
    command += ["-virtfs", f"local,path={CHECKOUT},mount_tag=checkout,security_model=none,readonly=on,multidevs=remap"]
    command += ["-virtfs", f"local,path={job},mount_tag=job,security_model=none"]
    return command
