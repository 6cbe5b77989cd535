"""Resource limits of the process."""

from __future__ import annotations

import resource
from typing import TYPE_CHECKING

import pytest

from conformance.oci.support import host
from conformance.oci.support.probe import limits

if TYPE_CHECKING:
    from collections.abc import Callable

    from conformance.oci.support.case import Case

pytestmark = pytest.mark.rule("config.md#posix-process")
INFINITY = 2**64 - 1
WORDS = {
    "RLIMIT_AS": "Max address space",
    "RLIMIT_CORE": "Max core file size",
    "RLIMIT_CPU": "Max cpu time",
    "RLIMIT_DATA": "Max data size",
    "RLIMIT_FSIZE": "Max file size",
    "RLIMIT_LOCKS": "Max file locks",
    "RLIMIT_MEMLOCK": "Max locked memory",
    "RLIMIT_MSGQUEUE": "Max msgqueue size",
    "RLIMIT_NICE": "Max nice priority",
    "RLIMIT_NOFILE": "Max open files",
    "RLIMIT_NPROC": "Max processes",
    "RLIMIT_RSS": "Max resident set",
    "RLIMIT_RTPRIO": "Max realtime priority",
    "RLIMIT_RTTIME": "Max realtime timeout",
    "RLIMIT_SIGPENDING": "Max pending signals",
    "RLIMIT_STACK": "Max stack size",
}
"""Every limit of getrlimit(2), and what /proc/PID/limits calls it."""
VALUES = {
    "RLIMIT_AS": 1 << 32,
    "RLIMIT_DATA": 1 << 32,
    "RLIMIT_STACK": 1 << 23,
    "RLIMIT_FSIZE": 1 << 21,
    "RLIMIT_NICE": 0,
    "RLIMIT_RTPRIO": 0,
}


def present() -> dict[str, tuple[str, str]]:
    """Give the judge's own limits."""
    return limits(host.read("/proc/self/limits"))


def below(word: str, value: int) -> bool:
    """Tell whether a value is within what the judge himself may set."""
    hard = present()[word][1]
    return hard == "unlimited" or value <= int(hard) or host.has_capability("CAP_SYS_RESOURCE")


@pytest.fixture(scope="module")
def all_limits(shared: Callable[[], Case]) -> dict[str, tuple[str, str]]:
    """Set every limit that may be set in one container."""
    case = shared()
    asked = []
    for name, word in WORDS.items():
        value = VALUES.get(name, 640)
        if below(word, value):
            asked.append({"type": name, "soft": value // 2, "hard": value})
    case.process["rlimits"] = asked
    return limits(case.shell("cat /proc/self/limits"))


@pytest.mark.parametrize("name", WORDS)
def test_each(all_limits: dict[str, tuple[str, str]], name: str) -> None:
    """Soft and hard limit are those of the document."""
    value = VALUES.get(name, 640)
    host.need(below(WORDS[name], value), f"CAP_SYS_RESOURCE, to raise {name}")
    assert all_limits[WORDS[name]] == (str(value // 2), str(value))


def test_equal(case: Case) -> None:
    """Soft and hard may be equal."""
    case.process["rlimits"] = [{"type": "RLIMIT_NOFILE", "soft": 99, "hard": 99}]
    assert case.shell("ulimit -Sn; ulimit -Hn") == "99\n99"


def test_infinity(case: Case) -> None:
    """The greatest number means no limit."""
    soft, hard = resource.getrlimit(resource.RLIMIT_CORE)
    host.need(
        hard == resource.RLIM_INFINITY or host.has_capability("CAP_SYS_RESOURCE"), f"a hard limit of cores: {soft}, {hard}"
    )
    case.process["rlimits"] = [{"type": "RLIMIT_CORE", "soft": INFINITY, "hard": INFINITY}]
    assert case.shell("ulimit -Sc; ulimit -Hc") == "unlimited\nunlimited"


def test_inherited(case: Case) -> None:
    """A limit that is not mentioned is the runtime's own."""
    said = limits(
        case.output("cat", "/proc/self/limits", preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_CORE, (4096, 8192)))
    )
    assert said["Max core file size"] == ("4096", "8192")


def test_no_file_is_inherited(case: Case) -> None:
    """The limit of descriptors is the runtime's own too, whatever the runtime needs for itself."""
    said = limits(
        case.output("cat", "/proc/self/limits", preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_NOFILE, (512, 900)))
    )
    assert said["Max open files"] == ("512", "900")


def test_exec_has_them(case: Case) -> None:
    """A process of `exec` has the container's limits."""
    case.process["rlimits"] = [{"type": "RLIMIT_NOFILE", "soft": 77, "hard": 88}]
    case.sleeper()
    assert case.execute("ulimit -Sn; ulimit -Hn") == "77\n88"


def test_unknown(case: Case) -> None:
    """A limit that does not exist is an error."""
    case.process["rlimits"] = [{"type": "RLIMIT_NOSUCH", "soft": 1, "hard": 1}]
    case.run_refused("true", want="there is no RLIMIT_NOSUCH")


def test_twice(case: Case) -> None:
    """A limit given twice is an error."""
    case.process["rlimits"] = [{"type": "RLIMIT_NOFILE", "soft": value, "hard": value} for value in (100, 200)]
    case.run_refused("true", want="RLIMIT_NOFILE is given twice")


def test_soft_above_hard(case: Case) -> None:
    """A soft limit above the hard one cannot be set, and is an error."""
    case.process["rlimits"] = [{"type": "RLIMIT_NOFILE", "soft": 200, "hard": 100}]
    case.run_refused("true", want="soft is above hard")


@pytest.mark.parametrize("value", [-1, "many", 1 << 64])
def test_no_number(case: Case, value: object) -> None:
    """A limit that is no unsigned number of 64 bits is an error."""
    case.process["rlimits"] = [{"type": "RLIMIT_NOFILE", "soft": value, "hard": value}]
    case.refused("true")
