"""Documents that went wrong in any way: one clear line and nothing left, or a container; never a traceback or a hang."""

from __future__ import annotations

import contextlib
import copy
import os
import re
import socket
import subprocess
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.system.oci_node import default_config

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from pathlib import Path

    from tests.system.oci_node import Oci

pytestmark = pytest.mark.system

EXAMPLES = int(os.environ.get("WHERRY_TEST_FUZZ", "120"))
"""How many documents are tried; the same ones each time, more of them with the variable set."""

LISTENER = "/listener"
"""Stands for the socket that takes terminals and filters, until its path is known."""
DEFECT = re.compile(r"a defect of wherry|Error at \w+\.py:|Traceback")
NULL_DEVICE = {"path": "/dev/null", "type": "c", "major": 1, "minor": 3, "fileMode": 438, "uid": 0, "gid": 0}
HOOK = {"path": "/bin/true", "args": ["true"], "env": ["A=b"], "timeout": 5}


def rich_config() -> dict[str, Any]:
    """Give a document that uses nearly everything there is, and is right."""
    config = default_config("true")
    config["process"] |= {
        "user": {"uid": 1000, "gid": 1000, "umask": 18, "additionalGids": [5, 6]},
        "capabilities": {
            kind: ["CAP_KILL", "CAP_CHOWN"] for kind in ("bounding", "effective", "permitted", "inheritable", "ambient")
        },
        "oomScoreAdj": 500,
        "scheduler": {"policy": "SCHED_BATCH", "nice": 3},
        "ioPriority": {"class": "IOPRIO_CLASS_BE", "priority": 5},
        "execCPUAffinity": {"initial": "0", "final": "0"},
        "consoleSize": {"height": 20, "width": 80},
        "terminal": False,
    }
    config["annotations"] = {"org.example.key": "value"}
    config["domainname"] = "harbour"
    config["hooks"] = {
        kind: [HOOK] for kind in ("prestart", "createRuntime", "createContainer", "startContainer", "poststart", "poststop")
    }
    config["mounts"].append(
        {"destination": "/tmp/x", "type": "tmpfs", "source": "tmpfs", "options": ["rw", "size=1m", "noexec"]}
    )
    config["mounts"].append({"destination": "/x", "type": "bind", "source": "/proc/self/status", "options": ["rbind", "ro"]})
    config["linux"] |= {
        "namespaces": [*config["linux"]["namespaces"], {"type": "cgroup"}],
        "devices": [NULL_DEVICE],
        "sysctl": {"net.ipv4.ip_forward": "1", "kernel.shm_rmid_forced": "1"},
        "maskedPaths": ["/proc/kcore"],
        "readonlyPaths": ["/proc/sys"],
        "rootfsPropagation": "private",
        "personality": {"domain": "LINUX"},
        "mountLabel": "",
        "seccomp": {
            "defaultAction": "SCMP_ACT_ALLOW",
            "architectures": ["SCMP_ARCH_X86_64"],
            "flags": [],
            "syscalls": [
                {
                    "names": ["mkdir", "personality"],
                    "action": "SCMP_ACT_ERRNO",
                    "errnoRet": 1,
                    "args": [{"index": 0, "value": 5, "valueTwo": 6, "op": "SCMP_CMP_MASKED_EQ"}],
                }
            ],
        },
        "resources": {
            "devices": [
                {"allow": False, "access": "rwm"},
                {"allow": True, "type": "c", "major": 1, "minor": 3, "access": "rw"},
            ],
            "memory": {"limit": 1 << 27, "reservation": 1 << 26, "swap": 1 << 28, "disableOOMKiller": False},
            "cpu": {"shares": 100, "quota": 50000, "period": 100000, "cpus": "0", "mems": "0", "idle": 0},
            "pids": {"limit": 50},
            "blockIO": {"weight": 100},
            "unified": {},
        },
    }
    return config


def other_config() -> dict[str, Any]:
    """Give a right document that uses what cannot stand beside the first one's: other namespaces, ids, a terminal."""
    config = rich_config()
    ids = [{"containerID": 0, "hostID": 100000, "size": 70000}]
    config["process"] |= {
        "scheduler": {"policy": "SCHED_IDLE", "nice": 0, "priority": 0, "flags": ["SCHED_FLAG_RESET_ON_FORK"]}
    }
    del config["domainname"]
    config["mounts"][-1] = {"destination": "/y", "type": "bind", "source": "rootfs", "options": ["rbind", "ridmap", "rro"]}
    config["mounts"][-1] |= {"uidMappings": ids, "gidMappings": ids}
    config["mounts"][-2]["options"] += ["tmpcopyup", "rslave", "mode=700", "uid=5"]
    kinds = ("pid", "network", "ipc", "uts", "mount", "user", "time", "cgroup")
    config["linux"] |= {
        "namespaces": [{"type": kind} for kind in kinds],
        "uidMappings": ids,
        "gidMappings": ids,
        "timeOffsets": {"monotonic": {"secs": 100, "nanosecs": 5}, "boottime": {"secs": -1, "nanosecs": 999999999}},
        "memoryPolicy": {"mode": "MPOL_BIND", "nodes": "0", "flags": ["MPOL_F_STATIC_NODES"]},
        "intelRdt": {
            "closID": "fuzzed",
            "schemata": ["L3:0=f"],
            "l3CacheSchema": "L3:0=f",
            "memBwSchema": "MB:0=10",
            "enableMonitoring": True,
        },
        "netDevices": {"fuzz0": {"name": "eth0"}},
        "devices": [NULL_DEVICE | {"path": "/dev/fuzz/fifo", "type": "p"}],
        "cgroupsPath": "/fuzzed-one",
    }
    config["linux"]["seccomp"] |= {
        "flags": ["SECCOMP_FILTER_FLAG_LOG", "SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV"],
        "listenerPath": LISTENER,
        "listenerMetadata": "x",
    }
    config["linux"]["seccomp"]["syscalls"].append({"names": ["chroot"], "action": "SCMP_ACT_NOTIFY"})
    config["linux"]["resources"] |= {
        "cpu": {"burst": 1000, "quota": 50000, "period": 100000, "realtimeRuntime": 0, "realtimePeriod": 1000000},
        "memory": {"limit": 1 << 27, "kernel": -1, "kernelTCP": -1, "swappiness": 5, "useHierarchy": True}
        | {"checkBeforeUpdate": True},
        "blockIO": {
            "leafWeight": 100,
            "weightDevice": [{"major": 8, "minor": 0, "weight": 100, "leafWeight": 100}],
            **{f"throttle{kind}Device": [{"major": 8, "minor": 0, "rate": 100}] for kind in ("ReadBps", "WriteIOPS")},
        },
        "hugepageLimits": [{"pageSize": "2MB", "limit": 1 << 21}],
        "network": {"classID": 1, "priorities": [{"name": "lo", "priority": 1}]},
        "rdma": {"mlx5_1": {"hcaHandles": 3, "hcaObjects": 10}},
        "unified": {"memory.high": "1000000"},
    }
    return config


RIGHT = (rich_config, other_config)
HARD = (
    ("linux", "intelRdt"), ("linux", "netDevices"), ("linux", "resources", "hugepageLimits"), ("linux", "resources", "rdma"),
    ("linux", "resources", "network"), ("linux", "resources", "unified"), ("linux", "resources", "blockIO"),
    ("linux", "resources", "memory", "kernelTCP"), ("linux", "resources", "cpu", "realtimeRuntime"),
    ("linux", "resources", "cpu", "realtimePeriod"), ("linux", "resources", "memory", "swappiness"),
)  # fmt: skip
"""What this host may lack: each example leaves most of it out, so that the rest is reached."""


def pointers(value: Any, here: tuple[str | int, ...] = ()) -> list[tuple[str | int, ...]]:
    """Give the path to everything in a document."""
    found = [here] if here else []
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, part in items:
        found += pointers(part, (*here, key))
    return found


POINTERS = [pointers(make()) for make in RIGHT]
WORDS = [
    "",
    "/",
    ".",
    "..",
    "../x",
    "/x",
    "a\0b",
    "a\nb",
    "é",
    "x" * 5000,
    "/x" * 3000,
    "true",
    "-1",
    "0-99999",
    "%s",
    "{}",
    "\ud800",
    "0-999999",
    "0," * 40000 + "0",
    "/proc/self/ns/net",
    "/proc/1/root",
    "max",
]
NUMBERS = [0, 1, -1, 7, 65536, 2**31, 2**32 - 1, -(2**31), 2**32, 2**63, -(2**63) - 1, 2**64, 10**30, 0.5, 1.0, 1e308]
JUNK = st.one_of(
    st.none(),
    st.booleans(),
    st.sampled_from(NUMBERS),
    st.sampled_from(WORDS),
    st.text(max_size=5),
    st.sampled_from([[], {}, [None], [[]], [{}], {"": None}, {"x": []}, ["x", 1], [0] * 3]),
)
KINDS = st.sampled_from(["replace", "replace", "delete", "repeat", "add"])
CHANGES = st.integers(0, len(RIGHT) - 1).flatmap(
    lambda number: st.tuples(
        st.just(number),
        st.sets(st.sampled_from(HARD), min_size=len(HARD) - 2),
        st.lists(st.tuples(st.sampled_from(POINTERS[number]), KINDS, JUNK), min_size=1, max_size=3),
    )
)
"""Which document, what of it is left out, and what is changed."""


def change(config: dict[str, Any], pointer: tuple[str | int, ...], kind: str, junk: Any) -> None:
    """Do one change, if the place is still there."""
    parent: Any = config
    for step in pointer[:-1]:
        if not has(parent, step):
            return
        parent = parent[step]
    key: Any = pointer[-1]
    if not has(parent, key):
        return
    if kind == "delete":
        del parent[key]
    elif isinstance(parent, list) and kind == "repeat":
        parent.append(parent[key])
    else:
        parent["unknown" if kind == "add" and isinstance(parent, dict) else key] = junk


def has(parent: Any, key: str | int) -> bool:
    """Tell whether a part of a document has something at `key`."""
    if isinstance(parent, dict):
        return key in parent
    return isinstance(parent, list) and isinstance(key, int) and key < len(parent)


@pytest.fixture
def listener(ours: Oci) -> Iterator[socket.socket]:
    """Listen for terminals and filters; what is mounted on is there already, since ids of a user namespace cannot make it."""
    for name in ("y", "tmp/x"):
        (ours.rootfs / name).mkdir(parents=True)
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(str(ours.bundle / "listener"))
        server.listen(16)
        server.setblocking(False)
        yield server


def create(node: Oci, name: str) -> tuple[int, str]:
    """Create a container (which keeps standard error open) and give the exit code and what was said."""
    path = node.bundle / "stderr"
    process = node.config.get("process")
    terminal = isinstance(process, dict) and process.get("terminal") is True
    options = ["--console-socket", str(node.bundle / "listener")] if terminal else []
    with path.open("w") as file:
        code = node.call("create", *options, name, stdout=subprocess.DEVNULL, stderr=file).returncode
    said = path.read_text()
    assert not DEFECT.search(said), said
    return code, said


def prepared(number: int, left_out: Iterable[tuple[str | int, ...]], folder: Path) -> dict[str, Any]:
    """Give one of the right documents without some parts."""
    config = RIGHT[number]()
    for pointer in left_out if number else ():
        change(config, pointer, "delete", None)
    seccomp = config["linux"].get("seccomp", {})
    if seccomp.get("listenerPath") == LISTENER:
        seccomp["listenerPath"] = str(folder / "listener")
    return config


def take_all(server: socket.socket) -> None:
    """Take and close whatever was sent."""
    with contextlib.suppress(BlockingIOError):
        while True:
            server.accept()[0].close()


@pytest.mark.parametrize("number", range(len(RIGHT)))
def test_the_documents_are_right(ours: Oci, listener: socket.socket, number: int) -> None:
    """What is changed afterwards is something that works."""
    ours.config = prepared(number, HARD, ours.bundle)
    ours.write()
    code, said = create(ours, ours.new_id())
    assert code == 0, said
    ours.ok("start", ours.ids[-1])
    take_all(listener)


@settings(
    max_examples=EXAMPLES,
    derandomize="WHERRY_TEST_FUZZ" not in os.environ,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
@given(changes=CHANGES)
def test_any_document(
    ours: Oci, listener: socket.socket, changes: tuple[int, set[Any], list[tuple[tuple[str | int, ...], str, Any]]]
) -> None:
    number, left_out, done = changes
    config = prepared(number, left_out, ours.bundle)
    for pointer, kind, junk in done:
        change(config, pointer, kind, copy.deepcopy(junk))
    ours.config = config
    ours.write()
    name = "fuzzed"
    code, said = create(ours, name)
    assert code in (0, 1), said
    if code == 1:
        assert said.count("level=error") == 1, said
        assert ours.call("state", name).returncode == 1, "the refused container is still known"
    else:
        started = ours.call("start", name)
        assert not DEFECT.search(started.stderr), started.stderr
        ours.ok("delete", "--force", name)
    take_all(listener)
    assert not ours.root.exists() or os.listdir(ours.root) == []


RAW = st.one_of(
    st.binary(max_size=40),
    st.sampled_from(
        [b"", b"{", b"[]", b"null", b"\xff\xfe{}", b'{"a":' * 5000, b"[" * 100000, b'{"ociVersion": "1.0.2", "ociVersion": 1}']
    ),
)


@settings(max_examples=25, derandomize=True, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=RAW)
def test_any_bytes(ours: Oci, data: bytes) -> None:
    (ours.bundle / "config.json").write_bytes(data)
    code, said = create(ours, "fuzzed")
    assert code == 1
    assert said.count("\n") == 1, said
