"""Annotations, unknown properties, and values that are not valid."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from conformance.oci.support.case import Case

pytestmark = pytest.mark.rule("config.md#valid-values")
WRONG: dict[str, tuple[tuple[str | int, ...], Any]] = {
    "process-is-a-list": (("process",), []),
    "args-is-a-word": (("process", "args"), "true"),
    "args-has-a-number": (("process", "args"), ["true", 1]),
    "env-is-an-object": (("process", "env"), {"A": "1"}),
    "cwd-is-a-number": (("process", "cwd"), 1),
    "terminal-is-a-word": (("process", "terminal"), "yes"),
    "noNewPrivileges-is-a-number": (("process", "noNewPrivileges"), 1),
    "user-is-a-word": (("process", "user"), "root"),
    "gids-are-words": (("process", "user"), {"uid": 0, "gid": 0, "additionalGids": ["wheel"]}),
    "capabilities-is-a-list": (("process", "capabilities"), ["CAP_KILL"]),
    "rlimits-is-an-object": (("process", "rlimits"), {"RLIMIT_NOFILE": 1}),
    "oomScoreAdj-is-a-word": (("process", "oomScoreAdj"), "low"),
    "root-is-a-word": (("root",), "rootfs"),
    "root.path-is-a-number": (("root", "path"), 1),
    "readonly-is-a-word": (("root", "readonly"), "yes"),
    "hostname-is-a-number": (("hostname",), 1),
    "mounts-is-an-object": (("mounts",), {}),
    "options-is-a-word": (("mounts", 1, "options"), "ro"),
    "destination-is-a-number": (("mounts", 1, "destination"), 1),
    "hooks-is-a-list": (("hooks",), []),
    "annotations-is-a-list": (("annotations",), ["a"]),
    "annotation-is-a-number": (("annotations",), {"org.example": 1}),
    "linux-is-a-list": (("linux",), []),
    "namespaces-is-an-object": (("linux", "namespaces"), {"pid": ""}),
    "namespace-is-a-word": (("linux", "namespaces"), ["pid"]),
    "unknown-namespace": (("linux", "namespaces"), [{"type": "parallel"}, {"type": "mount"}]),
    "devices-is-an-object": (("linux", "devices"), {"/dev/x": 1}),
    "resources-is-a-list": (("linux", "resources"), []),
    "memory-limit-is-a-word": (("linux", "resources"), {"memory": {"limit": "1G"}}),
    "pids-limit-is-a-word": (("linux", "resources"), {"pids": {"limit": "many"}}),
    "sysctl-is-a-list": (("linux", "sysctl"), ["a=b"]),
    "sysctl-value-is-a-number": (("linux", "sysctl"), {"net.ipv4.ip_forward": 1}),
    "maskedPaths-is-a-word": (("linux", "maskedPaths"), "/proc/kcore"),
    "rootfsPropagation-is-unknown": (("linux", "rootfsPropagation"), "viral"),
    "cgroupsPath-is-a-number": (("linux", "cgroupsPath"), 1),
    "seccomp-is-a-word": (("linux", "seccomp"), "default"),
}
"""What is wrong: where, and the value there."""


@pytest.mark.parametrize("what", WRONG)
def test_wrong_value(case: Case, what: str) -> None:
    """A value of a wrong type, or that means nothing, is an error, and leaves nothing behind."""
    path, value = WRONG[what]
    where: Any = case.config
    for part in path[:-1]:
        where = where[part]
    where[path[-1]] = value
    case.refused()


@pytest.mark.rule("config.md#extensibility")
@pytest.mark.parametrize("where", ["top", "process", "root", "mount", "linux", "resources", "namespace"])
def test_unknown_property(case: Case, where: str) -> None:
    """A property that the specification does not know is ignored."""
    places: dict[str, dict[str, Any]] = {
        "top": case.config,
        "process": case.process,
        "root": case.config["root"],
        "mount": case.config["mounts"][0],
        "linux": case.linux,
        "resources": case.resources(),
        "namespace": case.linux["namespaces"][0],
    }
    places[where]["com.example.unknown"] = {"any": ["thing", 1, None]}
    assert case.shell("echo yes") == "yes"


@pytest.mark.rule("config.md#annotations")
def test_annotations(case: Case) -> None:
    """Annotations of any name and text are accepted, those of images among them."""
    case.config["annotations"] = {
        "org.opencontainers.image.os": "linux",
        "org.opencontainers.image.stopSignal": "SIGTERM",
        "com.example.long": "x" * 5000,
        "com.example.empty": "",
        "com.example.utf": "ä\n\"'",
    }
    case.create("true")
    assert case.state()["annotations"]["com.example.utf"] == "ä\n\"'"
    assert case.state()["annotations"]["com.example.empty"] == ""


@pytest.mark.rule("config.md#annotations")
def test_annotations_have_no_effect(case: Case) -> None:
    """An annotation that a runtime does not know changes nothing."""
    case.config["annotations"] = {"com.example.hostname": "other", "com.example.memory": "1"}
    assert case.shell("hostname") == "judge"


@pytest.mark.rule("config.md#platform-specific-configuration")
def test_other_platforms(case: Case) -> None:
    """What is said for other platforms is not read."""
    case.config["windows"] = {"layerFolders": ["C:\\x"]}
    case.config["solaris"] = {"milestone": "x"}
    assert case.shell("echo yes") == "yes"


def test_unicode_escapes(case: Case) -> None:
    """Strings are JSON's: escapes of every kind mean what they mean there."""
    case.write("echo", "placeholder")
    text = (case.bundle / "config.json").read_text().replace("placeholder", "\\u00e4\\u4e16\\ud83d\\ude00\\t|")
    (case.bundle / "config.json").write_text(text)
    assert case.ok("run", case.id) == "ä世😀\t|\n"


def test_white_space(case: Case) -> None:
    """White space and the order of properties do not matter."""
    case.write("echo", "yes")
    text = (case.bundle / "config.json").read_text()
    (case.bundle / "config.json").write_text(f"\n\t {text} \r\n\n")
    assert case.ok("run", case.id) == "yes\n"


def test_null(case: Case) -> None:
    """A property that is null is absent."""
    case.config |= {"annotations": None, "hooks": None}
    case.linux.update(devices=None, resources=None, seccomp=None)
    assert case.shell("echo yes") == "yes"
