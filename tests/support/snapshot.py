"""What the kernel and the file system hold, before and after: the leak check.

A snapshot is a set of strings for each kind of thing. Other programs work on the same machine, so that a difference counts
only if it stays: `leaks` looks again until the difference is gone or its patience ends.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
from contextlib import suppress
from dataclasses import dataclass, field

from tests.support.wait import wait_for

MARK = "WHERRY_TEST_SESSION"
"""Environment variable that every process started by a test inherits; its value is the pid of the test process."""

DIRECTORIES = ("/run/netns", "/run/wherry", "/var/lib/wherry", "/run/runc", "/run/crun", "/run/wherry-oci", "/var/lib/cni")
"""Directories of which every entry, at any depth, counts."""

_STANDING = frozenset({"/var/lib/cni/results", "/var/lib/cni/networks"})
"""Directories that the standard plugins make once a node."""

_STANDING_MOUNTS = frozenset({"/run/netns"})
"""Mounts that a tool makes once a node: ip(8) with the first named namespace."""

_INFRASTRUCTURE = re.compile(
    # The standard plugins make these chains and jumps once a node and never take them away.
    r"CNI-(HOSTPORT|FORWARD|ADMIN|DN-SETMARK)"
)
_POLLER = re.compile(r"anon_inode:\[(eventpoll|eventfd)\]")


@dataclass(frozen=True, slots=True, kw_only=True)
class Snapshot:
    """The things of one moment, by kind."""

    things: dict[str, frozenset[str]] = field(default_factory=dict)

    def added(self, after: Snapshot) -> dict[str, list[str]]:
        """Give what `after` has and this has not."""
        new = {kind: sorted(things - self.things.get(kind, frozenset())) for kind, things in after.things.items()}
        return {kind: names for kind, names in new.items() if names}


def take(*, fds: bool = True) -> Snapshot:
    """Look at everything the leak check covers."""
    things = {
        "mount": mounts(),
        "link": links(),
        "nft rule": nft_rules(),
        "cgroup": cgroups(),
        "process": processes(),
        "file": files(),
    }
    if fds:
        things["fd"] = descriptors()
    return Snapshot(things=things)


def leaks(before: Snapshot, *, patience: float = 3.0) -> dict[str, list[str]]:
    """Give what is new since `before` and does not go away within `patience` seconds."""
    latest: dict[str, list[str]] = {}

    def clean() -> bool:
        nonlocal latest
        latest = before.added(take(fds="fd" in before.things))
        return not latest

    with suppress(TimeoutError):
        wait_for(clean, "everything to be as before", seconds=patience)
    return latest


def mounts() -> frozenset[str]:
    """Give the mount points of this namespace with their kind (stacked ones once each)."""
    found = []
    with open("/proc/self/mountinfo", encoding="utf-8", errors="surrogateescape") as table:
        for line in table:
            left, _, right = line.partition(" - ")
            parts = left.split()
            if parts[4] not in _STANDING_MOUNTS:
                found.append(f"{parts[4]} ({right.split()[0]}, id {parts[0]})")
    return frozenset(found)


def links() -> frozenset[str]:
    """Give the network interfaces of this namespace."""
    return frozenset(os.listdir("/sys/class/net"))


def nft_rules() -> frozenset[str]:
    """Give the rules and set elements in force, without what the standard plugins never remove; empty without nft."""
    nft = shutil.which("nft", path="/usr/sbin:/sbin:/usr/bin")
    if nft is None:
        return frozenset()
    listing = subprocess.run([nft, "-j", "list", "ruleset"], capture_output=True, check=False)
    if listing.returncode != 0:
        return frozenset()
    found = set()
    for entry in json.loads(listing.stdout or b"{}").get("nftables", []):
        for kind in ("rule", "element"):
            if kind in entry:
                body = {key: value for key, value in entry[kind].items() if key not in ("handle", "index")}
                found.add(f"{kind} {_without_counters(json.dumps(body, sort_keys=True))}")
        for kind in ("set", "map"):
            if kind in entry:
                elements = entry[kind].get("elem", [])
                found.update(f"{kind} {entry[kind]['name']} element {json.dumps(element)}" for element in elements)
    return frozenset(rule for rule in found if not _INFRASTRUCTURE.search(rule))


def _without_counters(text: str) -> str:
    return re.sub(r'"(packets|bytes)": \d+', "", text)


def cgroups() -> frozenset[str]:
    """Give the cgroup directories that hold no process, or one of ours."""
    found = set()
    for folder, _subfolders, entries in os.walk("/sys/fs/cgroup"):
        if "cgroup.procs" in entries and _ours(folder):
            found.add(folder)
    return frozenset(found)


def _ours(folder: str) -> bool:
    """Say whether nobody else's process is in there: other programs' cgroups come and go while we look."""
    try:
        with open(f"{folder}/cgroup.procs", encoding="ascii") as members:
            pids = members.read().split()
    except OSError:
        return False
    return all(_marked(int(pid)) for pid in pids[:20])


def processes() -> frozenset[str]:
    """Give the processes that a test started, itself excepted: marked ones, and orphans in another root."""
    own = os.getpid()
    found = set()
    for name in os.listdir("/proc"):
        if name.isdigit() and int(name) != own and (_marked(int(name)) or _orphan(int(name))):
            with suppress(OSError):
                found.add(f"{name} {_command(int(name))}")
    return frozenset(found)


def _marked(pid: int) -> bool:
    """Say whether a process or one of its ancestors carries our mark."""
    mark = f"{MARK}={os.environ.get(MARK, os.getpid())}".encode()
    for _ in range(32):
        if pid in (0, 1):
            return False
        if pid == os.getpid():
            return True
        try:
            with open(f"/proc/{pid}/environ", "rb") as environ:
                if mark in environ.read().split(b"\0"):
                    return True
            pid = parent_of(pid)
        except OSError:
            return False
    return False


def _orphan(pid: int) -> bool:
    """Say whether a process hangs below init and has another root than we: a container whose keeper has died."""
    try:
        return parent_of(pid) == 1 and not os.path.samestat(os.stat(f"/proc/{pid}/root/."), os.stat("/"))
    except OSError:
        return False


def parent_of(pid: int) -> int:
    """Give the parent of a process; raise OSError when it is gone (proc_pid_stat(5))."""
    with open(f"/proc/{pid}/stat", "rb") as stat:
        return int(stat.read().rpartition(b")")[2].split()[1])


def _command(pid: int) -> str:
    with open(f"/proc/{pid}/cmdline", "rb") as cmdline:
        words = cmdline.read().replace(b"\0", b" ").decode(errors="replace").strip()
    if words:
        return words[:120]
    with open(f"/proc/{pid}/stat", "rb") as stat:
        return stat.read().decode(errors="replace").partition(")")[0] + ")"


def files() -> frozenset[str]:
    """Give the files in the places where Wherry and its peers keep state, and our leftovers in the temporary directory."""
    found = set()
    for top in DIRECTORIES:
        for folder, _subfolders, names in os.walk(top):
            found.update(f"{folder}/{name}" for name in names)
            if folder not in DIRECTORIES and folder not in _STANDING:
                found.add(folder)
    temporary = tempfile.gettempdir()
    found.update(f"{temporary}/{name}" for name in os.listdir(temporary) if name.startswith("wherry-t"))
    return frozenset(found)


def descriptors(pid: int | None = None) -> frozenset[str]:
    """Give the open descriptors of a process; gRPC's pollers, which live as long as the process, are left out."""
    found = set()
    folder = f"/proc/{pid or os.getpid()}/fd"
    for name in os.listdir(folder):
        with suppress(OSError):
            target = os.readlink(f"{folder}/{name}")
            if target.startswith(f"/proc/{pid or os.getpid()}/fd"):
                continue
            if not ("grpc" in sys.modules and _POLLER.fullmatch(target)):
                found.add(f"{name} → {target}")
    return frozenset(found)
