"""One run of the virtual machine: QEMU in software emulation, one command inside, its output here."""

from __future__ import annotations

import compileall
import shlex
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from tests.support.tools import find_tool
from tests.support.wait import wait_for

if TYPE_CHECKING:
    from collections.abc import Sequence

    from tests.vm.image import Image

CHECKOUT = Path(__file__).resolve().parents[2]
KERNEL_OPTIONS = (
    "console=ttyS0 quiet panic=-1 no_timer_check psi=1 hugepages=16 systemd.unit=wherry-vm.service systemd.show_status=no"
)
"""no_timer_check: on a busy host an emulated timer ticks too late for the kernel, which then panics."""
CGROUPS = {
    "v2": "cgroup_no_v1=all systemd.unified_cgroup_hierarchy=1",
    "hybrid": "systemd.unified_cgroup_hierarchy=0",
    "v1": "systemd.unified_cgroup_hierarchy=0 systemd.legacy_systemd_cgroup_controller=1",
}
"""What makes systemd mount cgroups so (systemd(1), kernel command line)."""
SELINUX = "security=selinux enforcing=0"
MEMORY, CPUS = "3G", 2
PYTHON = (3, 11)
"""What Debian bookworm has; the packages in .venv must be for the same."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Boot:
    """What differs between boots: how cgroups are mounted (v2, hybrid or v1), a second disk, /dev/vdb, that keeps, and SELinux.

    With `selinux` the kernel has that module in AppArmor's place, without a policy.
    """

    cgroups: str = "v2"
    selinux: bool = False
    disk: Path | None = None


class MachineError(Exception):
    """The machine ended without telling how its command did; the message has the end of its console."""


def run(image: Image, command: Sequence[str], *, seconds: float, boot: Boot | None = None) -> int:
    """Run a command in a new machine, its output as ours, and give its exit status.

    The checkout lies at the same path as here, read-only, with an interpreter of the guest's in .venv. Raises MachineError,
    and TimeoutExpired after `seconds`.
    """
    with tempfile.TemporaryDirectory(prefix="wherry-vm") as name:
        job = _job(Path(name), command)
        subprocess.run(_qemu(image, job, boot or Boot()), check=False, stdin=subprocess.DEVNULL, timeout=seconds)
        try:
            return int((job / "status").read_text())
        except (FileNotFoundError, ValueError):
            raise _early(job) from None


def crash(image: Image, command: Sequence[str], *, seconds: float, boot: Boot) -> None:
    """Run a command in a new machine until it has made /job/ready, and then end the machine as if its power had failed.

    What the guest's kernel had not written to its disks is lost. Raises MachineError, and TimeoutError after `seconds`.
    """
    with tempfile.TemporaryDirectory(prefix="wherry-vm") as name:
        job = _job(Path(name), command)
        with subprocess.Popen(_qemu(image, job, boot), stdin=subprocess.DEVNULL) as machine:
            try:
                ready = job / "ready"
                wait_for(lambda: ready.exists() or machine.poll() is not None, "the command to be ready", seconds=seconds)
            finally:
                machine.kill()
        if not ready.exists():
            raise _early(job)


def _job(job: Path, command: Sequence[str]) -> Path:
    """Write what the guest's run.sh reads."""
    _compile()
    (job / "command").write_text(shlex.join(command) + "\n")
    (job / "checkout").write_text(f"{CHECKOUT}\n")
    return job


def _early(job: Path) -> MachineError:
    console = job / "console"
    text = console.read_text(errors="replace") if console.exists() else ""
    return MachineError(f"the virtual machine ended early; its console:\n{text[-4000:]}")


def _compile() -> None:
    """Compile our sources here: inside it takes twenty times longer and the checkout may not be written."""
    if sys.version_info[:2] != PYTHON:
        wanted, own = (".".join(map(str, version)) for version in (PYTHON, sys.version_info[:2]))
        raise MachineError(
            f"the virtual machine has Python {wanted}, .venv has {own}: run make clean, then make PYTHON=python{wanted}"
        )
    for folder in ("runtime", "shim", "cni", "tests", "conformance"):
        compileall.compile_dir(CHECKOUT / folder, quiet=2)


def _qemu(image: Image, job: Path, boot: Boot) -> list[str]:
    """Give QEMU's command line (qemu(1))."""
    options = {
        "machine": "pc",
        "accel": "tcg,thread=multi",
        "cpu": "max",
        "smp": str(CPUS),
        "m": MEMORY,
        "kernel": str(image.kernel),
        "initrd": str(image.initrd),
        "append": f"{KERNEL_OPTIONS} {CGROUPS[boot.cgroups]} {SELINUX if boot.selinux else ''}",
        "drive": f"file={image.root},format=raw,if=virtio,snapshot=on",
        "display": "none",
        "serial": f"file:{job / 'console'}",
    }
    command = [find_tool("qemu-system-x86_64"), "-nodefaults", "-no-user-config", "-no-reboot"]
    for option, value in options.items():
        command += [f"-{option}", value]
    if boot.disk is not None:
        command += ["-drive", f"file={boot.disk},format=raw,if=virtio"]
    command += ["-device", "virtio-serial-pci", "-chardev", "file,id=output,path=/dev/stdout,append=on"]
    command += ["-device", "virtserialport,chardev=output"]
    command += ["-virtfs", f"local,path={CHECKOUT},mount_tag=checkout,security_model=none,readonly=on,multidevs=remap"]
    command += ["-virtfs", f"local,path={job},mount_tag=job,security_model=none"]
    return command
