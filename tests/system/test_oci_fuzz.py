"""Documents that went wrong in any way: one clear line and nothing left, or a container; never a traceback or a hang."""

from __future__ import annotations

import copy
import os
import subprocess
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.system.oci_node import default_config

if TYPE_CHECKING:
    from tests.system.oci_node import Oci

pytestmark = pytest.mark.system

EXAMPLES = int(os.environ.get("WHERRY_TEST_FUZZ", "120"))
"""How many documents are tried; the same ones each time, more of them with the variable set."""

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


def pointers(value: Any, here: tuple[str | int, ...] = ()) -> list[tuple[str | int, ...]]:
    """Give the path to everything in a document."""
    found = [here] if here else []
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, part in items:
        found += pointers(part, (*here, key))
    return found


POINTERS = pointers(rich_config())
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
]
NUMBERS = [0, 1, -1, 2**31, -(2**31), 2**32, 2**63, -(2**63) - 1, 2**64, 10**30, 0.5, 1e308]
JUNK = st.one_of(
    st.none(),
    st.booleans(),
    st.sampled_from(NUMBERS),
    st.sampled_from(WORDS),
    st.text(max_size=5),
    st.sampled_from([[], {}, [None], [[]], [{}], {"": None}, {"x": []}, ["x", 1], [0] * 3]),
)
CHANGES = st.lists(
    st.tuples(st.sampled_from(POINTERS), st.sampled_from(["replace", "delete", "repeat", "add"]), JUNK), min_size=1, max_size=3
)


def change(config: dict[str, Any], pointer: tuple[str | int, ...], kind: str, junk: Any) -> None:
    """Do one change, if the place is still there."""
    parent: Any = config
    for key in pointer[:-1]:
        if not (isinstance(parent, dict) and key in parent) and not (
            isinstance(parent, list) and isinstance(key, int) and key < len(parent)
        ):
            return
        parent = parent[key]
    key = pointer[-1]
    if isinstance(parent, list) and isinstance(key, int) and key < len(parent):
        if kind == "repeat":
            parent.append(parent[key])
        elif kind == "delete":
            del parent[key]
        else:
            parent[key] = junk
    elif isinstance(parent, dict) and key in parent:
        if kind == "delete":
            del parent[key]
        else:
            parent["unknown" if kind == "add" else key] = junk


def create(node: Oci, name: str) -> tuple[int, str]:
    """Create a container (which keeps standard error open) and give the exit code and what was said."""
    path = node.bundle / "stderr"
    with path.open("w") as file:
        code = node.call("create", name, stdout=subprocess.DEVNULL, stderr=file).returncode
    said = path.read_text()
    assert "Traceback" not in said
    return code, said


@settings(
    max_examples=EXAMPLES,
    derandomize="WHERRY_TEST_FUZZ" not in os.environ,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
@given(changes=CHANGES)
def test_any_document(ours: Oci, changes: list[tuple[tuple[str | int, ...], str, Any]]) -> None:
    config = rich_config()
    for pointer, kind, junk in changes:
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
        assert "Traceback" not in started.stderr
        ours.ok("delete", "--force", name)
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
