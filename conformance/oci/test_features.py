"""The features document: what a runtime says of itself, which must be true."""

from __future__ import annotations

import json
import os
import re
from typing import TYPE_CHECKING, Any

import pytest

from conformance.oci.support import host
from conformance.oci.support.notify import Agent, answer_one

if TYPE_CHECKING:
    from pathlib import Path

    from conformance.oci.support.case import Case
    from conformance.oci.support.runtime import Runtime

pytestmark = pytest.mark.rule("features.md")


@pytest.fixture(scope="module")
def features(runtime: Runtime, scratch: Path) -> dict[str, Any]:
    """Read the document; the other tests are of what stands in it."""
    done = runtime.call("--root", str(scratch / "features"), "features")
    assert done.returncode == 0, f"`features` ended with {done.returncode}: {done.stderr}"
    document: dict[str, Any] = json.loads(done.stdout)
    return document


def test_versions(features: dict[str, Any]) -> None:
    """The least and greatest version of the specification are semantic versions in order."""
    words = [features["ociVersionMin"], features["ociVersionMax"]]
    numbers = [re.match(r"(\d+)\.(\d+)\.(\d+)", word) for word in words]
    assert all(numbers)
    low, high = ([int(part) for part in match.groups()] for match in numbers if match)
    assert low <= high


@pytest.mark.parametrize("kind", ["prestart", "createRuntime", "createContainer", "startContainer", "poststart", "poststop"])
def test_hooks(features: dict[str, Any], kind: str) -> None:
    """All kinds of hooks are recognised."""
    assert kind in features["hooks"]


MUST = (
    "async atime bind defaults dev diratime dirsync exec iversion lazytime loud noatime nodev nodiratime noexec noiversion "
    "nolazytime norelatime nostrictatime nosuid private rbind relatime remount ro rprivate rshared rslave runbindable rw "
    "shared silent slave strictatime suid sync unbindable"
)


@pytest.mark.parametrize("option", MUST.split())
def test_mount_options(features: dict[str, Any], option: str) -> None:
    """Every mount option a runtime must know is said to be known."""
    assert option in features["mountOptions"]


@pytest.mark.rule("features-linux.md#namespaces")
@pytest.mark.parametrize("kind", ["pid", "network", "mount", "ipc", "uts", "user", "cgroup"])
def test_namespaces(features: dict[str, Any], kind: str) -> None:
    """The namespaces every runtime must know are named."""
    assert kind in features["linux"]["namespaces"]


@pytest.mark.rule("features-linux.md#namespaces")
def test_time_namespace_is_true(features: dict[str, Any], case: Case) -> None:
    """A runtime that names the time namespace can make one."""
    host.need("time" in features["linux"]["namespaces"], "(the runtime names no time namespace)")
    host.need(host.has_namespace("time"), "the kernel has no time namespaces")
    case.namespace("time")
    assert case.shell("echo yes") == "yes"


@pytest.mark.rule("features-linux.md#capabilities")
@pytest.mark.parametrize("name", ["CAP_CHOWN", "CAP_SYS_ADMIN", "CAP_AUDIT_READ"])
def test_capabilities(features: dict[str, Any], name: str) -> None:
    """The capabilities are named."""
    assert name in features["linux"]["capabilities"]


@pytest.mark.rule("features-linux.md#cgroup")
@pytest.mark.parametrize("key", ["v1", "v2", "systemd", "systemdUser"])
def test_cgroup(features: dict[str, Any], key: str) -> None:
    """Support of cgroup layouts and drivers is said in truth values."""
    assert isinstance(features["linux"]["cgroup"][key], bool)


@pytest.mark.rule("features-linux.md#cgroup")
def test_cgroup_is_true(features: dict[str, Any]) -> None:
    """The layout of this host, with which all other tests work, is said to be supported."""
    assert features["linux"]["cgroup"]["v2" if host.v2() else "v1"] is True


@pytest.mark.rule("features-linux.md#seccomp")
def test_seccomp(features: dict[str, Any]) -> None:
    """The actions, operators and architectures of seccomp are named."""
    seccomp = features["linux"]["seccomp"]
    assert seccomp["enabled"] is True
    assert {"SCMP_ACT_ERRNO", "SCMP_ACT_ALLOW", "SCMP_ACT_KILL", "SCMP_ACT_NOTIFY"} <= set(seccomp["actions"])
    assert {f"SCMP_CMP_{word}" for word in ("EQ", "NE", "LT", "LE", "GT", "GE", "MASKED_EQ")} <= set(seccomp["operators"])
    assert any(word.startswith("SCMP_ARCH_") for word in seccomp["archs"])


@pytest.mark.rule("features-linux.md#seccomp")
def test_seccomp_flags_are_true(features: dict[str, Any], case: Case) -> None:
    """Every flag that is said to be supported is accepted."""
    flags = features["linux"]["seccomp"].get("supportedFlags") or []
    known = features["linux"]["seccomp"].get("knownFlags") or flags
    assert set(flags) <= set(known)
    usable = [flag for flag in flags if flag != "SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV"]  # the next test's
    case.linux["seccomp"] = {"defaultAction": "SCMP_ACT_ALLOW", "flags": usable}
    assert case.shell("echo yes") == "yes"


@pytest.mark.rule("features-linux.md#seccomp")
def test_the_flag_of_notifying_filters_is_true(features: dict[str, Any], case: Case) -> None:
    """SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV is accepted beside a listener, where it is said to be supported."""
    flag = "SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV"
    host.need(flag in (features["linux"]["seccomp"].get("supportedFlags") or []), f"(the runtime does not say it has {flag})")
    agent = Agent(case.bundle / "agent")
    rule = {"names": ["mkdir", "mkdirat"], "action": "SCMP_ACT_NOTIFY"}
    case.linux["seccomp"] = {
        "defaultAction": "SCMP_ACT_ALLOW",
        "flags": [flag],
        "listenerPath": str(agent.path),
        "syscalls": [rule],
    }
    case.start("sh", "-c", "mkdir /made; echo done")
    _, descriptors = agent.receive()
    answer_one(descriptors[0], 28)
    os.close(descriptors[0])
    agent.close()
    case.until_printed("done")


@pytest.mark.rule("features-linux.md#mount-extensions")
def test_idmap_is_true(features: dict[str, Any], case: Case) -> None:
    """A runtime that says it maps ids of mounts does."""
    extension = features["linux"].get("mountExtensions", {}).get("idmap", {})
    host.need(extension.get("enabled"), "(the runtime does not say it maps ids of mounts)")
    host.need(host.kernel() >= (5, 12), "mounts with mapped ids, Linux 5.12")
    maps = [{"containerID": 0, "hostID": 7000, "size": 10}]
    (case.bundle / "source").mkdir()
    case.mount("/mnt", case.bundle / "source", "bind", "idmap").update(uidMappings=maps, gidMappings=maps)
    assert case.shell("stat -c %u /mnt") == "7000"


@pytest.mark.rule("features-linux.md#intel-rdt")
@pytest.mark.parametrize("part", ["apparmor", "selinux", "intelRdt"])
def test_enabled(features: dict[str, Any], part: str) -> None:
    """What depends on the build is said in truth values, where it is said."""
    found = features["linux"].get(part)
    assert found is None or found.get("enabled") in {True, False, None}


def test_known_options_work(features: dict[str, Any], case: Case) -> None:
    """An option that is said to be known is not passed to the file system as its own."""
    known = [word for word in ("nosymfollow", "lazytime", "silent") if word in features["mountOptions"]]
    case.mount("/mnt", "tmpfs", *known, kind="tmpfs")
    assert case.shell("echo yes") == "yes"
