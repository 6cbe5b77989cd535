"""A user without privileges, and the OCI runtimes as he has them: an installation he can reach, and ids to map."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from tests.support.tools import MissingToolError, find_tool
from tests.system.oci_node import HYBRID, OURS, Oci

if TYPE_CHECKING:
    from collections.abc import Iterator

ROOT = Path(__file__).parents[2]
USER, UID, FIRST, COUNT = "sailor", 4321, 200_000, 65_536
"""The user, and the range of ids that are his to map (subuid(5))."""
FILES = ("passwd", "group", "subuid", "subgid")
_SOURCES = {"passwd": f"{USER}:x:{UID}:{UID}::/tmp:/bin/sh", "group": f"{USER}:x:{UID}:"}
_RANGE = f"{USER}:{FIRST}:{COUNT}"


def everybodys_python() -> str:
    """Give an interpreter every user can execute; raise MissingToolError."""
    for path in (os.path.realpath(sys.executable), "/usr/bin/python3"):
        probe = [path, "-c", "import sys; sys.exit(sys.version_info < (3, 11))"]
        done = subprocess.run(["setpriv", f"--reuid={UID}", f"--regid={UID}", "--clear-groups", *probe], check=False)
        if done.returncode == 0:
            return path
    raise MissingToolError("no Python that every user may execute; run: apt-get install python3")


def install(folder: Path) -> Path:
    """Put `wherry-oci` where every user can execute it, and give its path."""
    packages = folder / "lib/python3/site-packages"
    shutil.copytree(ROOT / "runtime", packages / "runtime", ignore=shutil.ignore_patterns("man"))
    (folder / "bin").mkdir()
    launcher = folder / "bin" / OURS
    launcher.write_bytes((ROOT / "runtime/wherry-oci.sh").read_bytes())
    launcher.chmod(0o755)
    (folder / "bin/python3").symlink_to(everybodys_python())
    for path in [folder, *folder.rglob("*")]:
        if path.is_dir():
            path.chmod(0o755)
        elif not path.is_symlink():
            path.chmod(path.stat().st_mode | 0o444)
    return launcher


class Sailor:
    """The user: his installation, his entries in the files below /etc, and the words before a command of his."""

    def __init__(self, folder: Path) -> None:
        find_tool("newuidmap")
        self.launcher = str(install(folder / "wherry"))
        self.etc = folder / "etc"
        self.etc.mkdir()
        for name in FILES:
            own = Path("/etc", name)
            text = own.read_text() if own.exists() else ""
            if f"{USER}:" not in text:
                text += f"{_SOURCES.get(name, _RANGE)}\n"
            (self.etc / name).write_text(text)
            (self.etc / name).chmod(0o644)
        self.runtime_dir = folder / "run"
        self.runtime_dir.mkdir(mode=0o700)
        os.chown(self.runtime_dir, UID, UID)

    def prefix(self, *, hide: str = "", **environment: str) -> list[str]:
        """Give the words that run a command as the user, in a mount namespace where the files below /etc know him."""
        steps = [f"[ -e /etc/{name} ] && mount --bind {self.etc}/{name} /etc/{name}" for name in FILES]
        steps += [f"umount {hide}"] if hide else []
        steps.append(f'exec setpriv --reuid={UID} --regid={UID} --clear-groups "$@"')
        settings = {"PATH": "/usr/local/bin:/usr/bin:/bin:/usr/sbin", "XDG_RUNTIME_DIR": str(self.runtime_dir), "USER": USER}
        words = [f"{name}={value}" for name, value in (settings | environment).items()]
        return ["unshare", "-m", "sh", "-c", "\n".join(steps), "sh", "env", *words]


class Rootless(Oci):
    """One runtime in the hands of the user, with a state directory and a bundle that are his."""

    def __init__(self, runtime: str, folder: Path, sailor: Sailor) -> None:
        super().__init__(runtime, folder)
        if runtime == OURS:
            self.program = sailor.launcher
        self.sailor = sailor
        self.prefix = sailor.prefix(hide=HYBRID if runtime == "crun" and os.path.isdir(HYBRID) else "")
        self.config["linux"]["namespaces"] += [{"type": "user"}]
        self.config["linux"]["namespaces"] = [one for one in self.config["linux"]["namespaces"] if one["type"] != "network"]
        self.config["mounts"] = [one for one in self.config["mounts"] if one["type"] != "sysfs"]
        self.map((0, UID, 1))
        for path in (folder, *(folder / "rootfs").rglob("*"), folder / "rootfs"):
            os.chown(path, UID, UID, follow_symlinks=False)

    def map(self, *ranges: tuple[int, int, int]) -> None:
        """Map ids of the container, uids and gids alike: the first one in it, the first one outside, how many."""
        lines = [{"containerID": inside, "hostID": outside, "size": size} for inside, outside, size in ranges]
        self.config["linux"] |= {"uidMappings": lines, "gidMappings": lines}

    def raw(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        """Run one command without --root, as people do."""
        options: dict[str, Any] = {"text": True, "capture_output": True, "timeout": 60, "cwd": self.bundle}
        return subprocess.run([*self.prefix, self.program, *arguments], check=False, **options)


@pytest.fixture(scope="module")
def sailor() -> Iterator[Sailor]:
    """Give the user."""
    with tempfile.TemporaryDirectory(prefix="wherry-t") as name:
        os.chmod(name, 0o711)
        try:
            yield Sailor(Path(name))
        except MissingToolError as error:
            if os.environ.get("CI"):
                pytest.fail(str(error), pytrace=False)
            pytest.skip(str(error))
