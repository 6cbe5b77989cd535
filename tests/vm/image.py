"""Build what the virtual machine starts from, once; packages are unpacked, not configured, so nothing needs to be root."""

from __future__ import annotations

import hashlib
import shutil
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

from tests.support.tools import find_tool
from tests.vm import initrd, kernel

HERE = Path(__file__).parent
STORE = HERE.parents[1] / "build" / "vm"
SUITE = "bookworm"
PACKAGES = (
    "apparmor", "bash", "busybox-static", "conmon", "coreutils", "crun", "dash", "dbus", "dbus-user-session", "findutils",
    "grep", "iproute2", "libnftables1", "libpam-modules", "libpam-systemd", "libseccomp2", "libstdc++6", "mount", "nftables",
    "podman", "procps", "python3.11", "runc", "secilc", "sed", "systemd-sysv", "uidmap", "util-linux",
)  # fmt: skip
USERS = (
    "root:x:0:0::/root:/bin/sh", "messagebus:x:100:100::/:/bin/false", "nobody:x:65534:65534::/:/bin/false",
    "sailor:x:4321:4321::/home/sailor:/bin/sh",
)  # fmt: skip
"""The last is tests.system.rootless_node's."""
GROUPS = ("root:x:0:", "tty:x:5:", "messagebus:x:100:", "nogroup:x:65534:", "sailor:x:4321:")
MASKED = (
    "getty.target", "systemd-ask-password-console.path", "systemd-ask-password-wall.path", "systemd-binfmt.service",
    "systemd-firstboot.service", "systemd-journal-flush.service", "systemd-journal-catalog-update.service",
    "systemd-machine-id-commit.service", "systemd-modules-load.service", "systemd-pcrphase.service",
    "systemd-pcrphase-sysinit.service", "systemd-pstore.service", "systemd-random-seed.service",
    "systemd-remount-fs.service", "systemd-sysusers.service", "systemd-update-done.service",
    "systemd-update-utmp.service", "systemd-tmpfiles-setup-dev.service",
    "systemd-tmpfiles-clean.timer", "dev-hugepages.mount", "dev-mqueue.mount", "sys-kernel-debug.mount",
    "sys-kernel-tracing.mount", "sys-kernel-config.mount", "sys-fs-fuse-connections.mount",
    "proc-sys-fs-binfmt_misc.automount",
)  # fmt: skip
"""Units that cost emulated seconds and give the tests nothing."""
USELESS = ("usr/share/doc", "usr/share/man", "usr/share/locale", "usr/share/info", "usr/share/perl", "usr/lib/udev/hwdb.d")


@dataclass(frozen=True, slots=True, kw_only=True)
class Image:
    """Files QEMU takes."""

    kernel: Path
    initrd: Path
    root: Path


def build() -> Image:
    """Give the image for the present packages and files, made now unless it was before; raise CalledProcessError."""
    name = _digest()
    folder = STORE / name
    if not folder.exists():
        shutil.rmtree(STORE, ignore_errors=True)  # what is older is not needed again
        STORE.mkdir(parents=True)
        with tempfile.TemporaryDirectory(dir=STORE, prefix=".making") as scratch:
            _make(Path(scratch))
            (Path(scratch) / "image").rename(folder)
    return Image(kernel=folder / "vmlinux", initrd=folder / "initrd", root=folder / "root.ext4")


def _digest() -> str:
    sum_ = hashlib.sha256()
    for path in sorted([*HERE.glob("guest/*"), HERE / "image.py", HERE / "initrd.py", HERE / "kernel.py"]):
        sum_.update(path.read_bytes())
    return sum_.hexdigest()[:16]


def _make(scratch: Path) -> None:
    image, root, unpacked = scratch / "image", scratch / "root", scratch / "kernel"
    image.mkdir()
    _say("unpacking the kernel")
    _download(kernel.package(), unpacked)
    (image / "vmlinux").write_bytes(kernel.vmlinux(next((unpacked / "boot").glob("vmlinuz-*")).read_bytes()))
    _say("unpacking Debian")
    _unpack_debian(root)
    modules = kernel.install_modules(unpacked, root)
    busybox = Path(find_tool("busybox")).read_bytes()
    packed = initrd.archive((HERE / "guest/init.sh").read_bytes(), busybox, kernel.load_order(modules))
    (image / "initrd").write_bytes(packed)
    _configure(root)
    _say("making the disk")
    size = int(subprocess.run(["du", "-sm", root], check=True, capture_output=True, text=True).stdout.split()[0])
    command = [find_tool("mkfs.ext4"), "-q", "-O", "^has_journal", "-d", root, image / "root.ext4", f"{size * 5 // 4 + 300}M"]
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)


def _say(text: str) -> None:
    sys.stderr.write(f"virtual machine: {text}\n")


def _download(package: str, target: Path) -> None:
    target.mkdir()
    command = ["apt-get", "-qq", "-o", "APT::Sandbox::User=root", "download", package]
    if subprocess.run(command, cwd=target, check=False).returncode:
        subprocess.run(["apt-get", "-qq", "update"], check=True)  # the list is older than the mirror
        subprocess.run(command, cwd=target, check=True)
    archive = next(target.glob("*.deb"))
    subprocess.run(["dpkg-deb", "-x", archive, target], check=True)
    archive.unlink()


def _unpack_debian(root: Path) -> None:
    command = [find_tool("mmdebstrap"), "--quiet", "--variant=extract", f"--include={','.join(PACKAGES)}"]
    merged = "/usr/share/mmdebstrap/hooks/merged-usr"
    subprocess.run([*command, f"--hook-dir={merged}", SUITE, root], check=True, stdout=subprocess.DEVNULL)
    for folder in USELESS:
        shutil.rmtree(root / folder, ignore_errors=True)


def _configure(root: Path) -> None:
    """Write what packages' scripts would have: users, the library cache's absence is no loss."""
    files = {
        "etc/passwd": "\n".join(USERS),
        "etc/group": "\n".join(GROUPS),
        "etc/hostname": "vessel",
        "etc/hosts": "127.0.0.1 localhost vessel",
        "etc/machine-id": "0123456789abcdef0123456789abcdef",
        "etc/fstab": "",
        "etc/subuid": "sailor:200000:65536",
        "etc/subgid": "sailor:200000:65536",
        "etc/containers/policy.json": '{"default": [{"type": "insecureAcceptAnything"}]}',
        "etc/systemd/journald.conf": "[Journal]\nStorage=volatile\nRateLimitBurst=0",
        "opt/venv/pyvenv.cfg": "home = /usr/bin\ninclude-system-site-packages = false",
    }
    (root / "opt/venv/bin").mkdir(parents=True)
    files |= {
        f"etc/pam.d/common-{kind}": f"{kind} required pam_permit.so" for kind in ("account", "auth", "password", "session")
    }
    files["etc/pam.d/common-session-noninteractive"] = "session required pam_permit.so\nsession optional pam_systemd.so"
    for path, text in files.items():
        (root / path).parent.mkdir(exist_ok=True)
        (root / path).write_text(f"{text}\n")
    for name in ("python", "python3"):
        (root / "opt/venv/bin" / name).symlink_to("/usr/bin/python3.11")
    (root / "sbin/modprobe").unlink(missing_ok=True)
    (root / "sbin/modprobe").symlink_to("/bin/busybox")  # kmod's wants an index that busybox, which made ours, does not write
    (root / "root").mkdir(exist_ok=True)
    shutil.copy(HERE / "guest/run.sh", root / "opt/run.sh")
    for name in ("newuidmap", "newgidmap"):
        (root / "usr/bin" / name).chmod(0o4755)
    bus = root / "etc/systemd/user/sockets.target.wants/dbus.socket"
    bus.parent.mkdir(parents=True)
    bus.symlink_to("/usr/lib/systemd/user/dbus.socket")
    units = root / "etc/systemd/system"
    shutil.copy(HERE / "guest/wherry-vm.service", units)
    for unit in MASKED:
        (units / unit).symlink_to("/dev/null")
