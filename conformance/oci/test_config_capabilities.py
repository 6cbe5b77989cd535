"""The five capability sets."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from conformance.oci.support.probe import status

if TYPE_CHECKING:
    from conformance.oci.support.case import Case

pytestmark = pytest.mark.rule("config.md#linux-process")
CHOWN, KILL, BIND, NET_ADMIN = 0, 5, 10, 12
LINES = {"bounding": "CapBnd", "effective": "CapEff", "permitted": "CapPrm", "inheritable": "CapInh", "ambient": "CapAmb"}


def mask(*numbers: int) -> int:
    """Give the bits of capabilities."""
    return sum(1 << number for number in numbers)


def sets(case: Case, **asked: list[str]) -> dict[str, int]:
    """Run with these sets; give what the kernel says."""
    case.process["capabilities"] = asked
    found = status(case.output("cat", "/proc/self/status"))
    return {kind: int(found[line], 16) for kind, line in LINES.items()}


ALL = ["CAP_CHOWN", "CAP_KILL", "CAP_NET_BIND_SERVICE"]
EXACT = mask(CHOWN, KILL, BIND)


@pytest.mark.parametrize("kind", ["bounding", "effective", "permitted"])
def test_root(case: Case, kind: str) -> None:
    """For root the sets that matter are as they were asked for."""
    assert sets(case, bounding=ALL, effective=ALL, permitted=ALL)[kind] == EXACT


def test_no_capability(case: Case) -> None:
    """Empty sets are empty for root too."""
    assert sets(case, bounding=[], effective=[], permitted=[]) == dict.fromkeys(LINES, 0)


def test_bounding_alone(case: Case) -> None:
    """The bounding set limits what root gets at execve."""
    assert sets(case, bounding=["CAP_KILL"])["bounding"] == mask(KILL)


def test_inheritable(case: Case) -> None:
    """The inheritable set is as asked for."""
    assert sets(case, bounding=ALL, effective=ALL, permitted=ALL, inheritable=["CAP_KILL"])["inheritable"] == mask(KILL)


def test_inheritable_is_not_added(case: Case) -> None:
    """What is permitted is not made inheritable."""
    assert sets(case, bounding=ALL, effective=ALL, permitted=ALL)["inheritable"] == 0


def test_ambient(case: Case) -> None:
    """The ambient set is as asked for, given that it is permitted and inheritable."""
    one = ["CAP_KILL"]
    assert sets(case, bounding=ALL, effective=ALL, permitted=ALL, inheritable=one, ambient=one)["ambient"] == mask(KILL)


def test_ambient_for_a_user(case: Case) -> None:
    """A user who is not root keeps the ambient set through execve, effective and permitted."""
    case.process["user"] = {"uid": 1000, "gid": 1000}
    found = sets(case, bounding=ALL, effective=ALL, permitted=ALL, inheritable=ALL, ambient=ALL)
    assert found == dict.fromkeys(LINES, EXACT)


def test_user_without_ambient(case: Case) -> None:
    """A user who is not root has no effective capability without ambient ones; the bounding set stays."""
    case.process["user"] = {"uid": 1000, "gid": 1000}
    found = sets(case, bounding=ALL, effective=ALL, permitted=ALL)
    assert found["effective"] == 0
    assert found["bounding"] == EXACT


def test_bounding_for_a_user(case: Case) -> None:
    """The bounding set is that of the document for every user."""
    case.process["user"] = {"uid": 1000, "gid": 1000}
    assert sets(case, bounding=["CAP_CHOWN"])["bounding"] == mask(CHOWN)


@pytest.mark.parametrize("kind", ["bounding", "effective", "permitted", "inheritable", "ambient"])
def test_unknown(case: Case, kind: str) -> None:
    """A capability nobody knows is a warning, and the rest holds."""
    asked = {"bounding": ["CAP_KILL"], "effective": ["CAP_KILL"], "permitted": ["CAP_KILL"]}
    asked[kind] = [*asked.get(kind, []), "CAP_NO_SUCH_THING"]
    assert sets(case, **asked)["bounding"] == mask(KILL)


@pytest.mark.rule("runtime.md#warnings")
def test_unknown_is_warned_of(case: Case) -> None:
    """A capability that cannot be mapped is named in a warning."""
    case.process["capabilities"]["bounding"].append("CAP_NO_SUCH_THING")
    log = case.bundle / "log"
    name = case.new_id()
    case.write("true")
    done = case.runtime.call("--root", str(case.root), "--log", str(log), "run", name, cwd=case.bundle)
    assert "CAP_NO_SUCH_THING" in done.stderr + (log.read_text() if log.exists() else "")


def test_they_work(case: Case) -> None:
    """A capability that was given works; one that was not is refused."""
    (case.rootfs / "file").write_text("")
    case.process["capabilities"] = {"bounding": ["CAP_CHOWN"], "effective": ["CAP_CHOWN"], "permitted": ["CAP_CHOWN"]}
    said = case.shell("chown 5 /file; stat -c %u /file; hostname other 2>&1 || :")
    assert said.startswith("5\n")
    assert "not permitted" in said.lower()


def test_exec_cannot_have_more(case: Case) -> None:
    """A child that is root again cannot get out of the bounding set."""
    case.process["noNewPrivileges"] = False
    case.process["capabilities"] = {"bounding": ["CAP_KILL"], "effective": ["CAP_KILL"], "permitted": ["CAP_KILL"]}
    assert int(status(case.shell("sh -c 'cat /proc/self/status'"))["CapEff"], 16) == mask(KILL)
