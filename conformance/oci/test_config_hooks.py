"""The six kinds of hooks: when each runs, where, with what, and what becomes of a failure."""

from __future__ import annotations

import json
import os
import time
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from conformance.oci.support.case import Case

pytestmark = pytest.mark.rule("config.md#posix-platform-hooks")
KINDS = ("prestart", "createRuntime", "createContainer", "startContainer", "poststart", "poststop")
EARLY = ("prestart", "createRuntime", "createContainer")
OUTSIDE = ("prestart", "createRuntime", "poststart", "poststop")
"""What is executed in the runtime's namespaces."""


def hook(case: Case, kind: str, script: str, **more: Any) -> None:
    """Add a hook that is a shell script; the container's own shell is at the same path outside (through the busybox copy)."""
    if "cat > " not in script:
        script = f"cat > /dev/null; {script}"  # who does not read what he is told may kill a writer by SIGPIPE
    if kind == "startContainer":
        path, args = "/bin/sh", ["sh", "-c", script]
    else:
        path, args = str(case.bundle / "rootfs/bin/busybox"), ["sh", "-c", script]
    case.config.setdefault("hooks", {}).setdefault(kind, []).append({"path": path, "args": args} | more)


def journal(case: Case, kind: str) -> str:
    """Give the path at which a hook of a kind finds the journal; the container's program finds it at /journal."""
    return "/journal" if kind == "startContainer" else str(case.rootfs / "journal")


def entries(case: Case) -> list[str]:
    """Read the journal."""
    path = case.rootfs / "journal"
    return path.read_text().splitlines() if path.exists() else []


def whole_life(case: Case) -> None:
    """Create, start and delete a container whose program writes into the journal too."""
    name = case.create("sh", "-c", "echo program >> /journal; sleep 0.2")
    case.ok("start", name)
    case.until("stopped")
    case.ok("delete", name)


def test_order(case: Case) -> None:
    """All six kinds run, once each, in the order of the lifecycle."""
    for kind in reversed(KINDS):
        hook(case, kind, f"echo {kind} >> {journal(case, kind)}")
    whole_life(case)
    found = entries(case)
    assert [entry for entry in found if entry != "program"] == list(KINDS)
    assert found.index("startContainer") < found.index("program") < found.index("poststop")


@pytest.mark.parametrize("kind", KINDS)
def test_order_within_a_kind(case: Case, kind: str) -> None:
    """Hooks of a kind run in the order of the list."""
    for number in range(3):
        hook(case, kind, f"echo {number} >> {journal(case, kind)}")
    whole_life(case)
    assert [entry for entry in entries(case) if entry != "program"] == ["0", "1", "2"]


@pytest.mark.parametrize("kind", KINDS)
def test_when(case: Case, kind: str) -> None:
    """Early hooks run in create; startContainer and poststart in start; poststop in delete."""
    hook(case, kind, f"echo ran >> {journal(case, kind)}")
    name = case.create("sleep", "0.1")
    after_create = bool(entries(case))
    case.ok("start", name)
    after_start = bool(entries(case))
    case.until("stopped")
    case.ok("delete", name)
    assert after_create == (kind in EARLY)
    assert after_start == (kind != "poststop")
    assert entries(case) == ["ran"]


@pytest.mark.parametrize("kind", KINDS)
def test_state_on_stdin(case: Case, kind: str) -> None:
    """Each hook reads the container's state from its standard input."""
    case.config["annotations"] = {"org.example": "told"}
    hook(case, kind, f"cat > {journal(case, kind)}.state")
    whole_life(case)
    state = json.loads((case.rootfs / "journal.state").read_text())
    assert state["id"] == case.id
    assert state["bundle"] == str(case.bundle)
    assert state["ociVersion"]
    assert state["annotations"] == {"org.example": "told"}


@pytest.mark.parametrize("kind", KINDS)
def test_state_need_not_be_read(case: Case, kind: str) -> None:
    """A hook that ends without reading the state has not failed."""
    path = "/bin/true" if kind == "startContainer" else str(case.rootfs / "bin/busybox")
    case.config["annotations"] = {"com.example.long": "x" * 100_000}
    case.config["hooks"] = {kind: [{"path": path, "args": ["true"]}]}
    whole_life(case)


@pytest.mark.rule("runtime.md#state")
@pytest.mark.parametrize(
    ("kind", "statuses"),
    [
        ("prestart", {"creating", "created"}),
        ("createRuntime", {"creating", "created"}),
        ("createContainer", {"creating", "created"}),
        ("startContainer", {"created", "creating"}),
        ("poststart", {"running"}),
        ("poststop", {"stopped"}),
    ],
)
def test_status(case: Case, kind: str, statuses: set[str]) -> None:
    """The state a hook reads has the status of that moment."""
    hook(case, kind, f"cat > {journal(case, kind)}")
    name = case.create("sleep", "0.5")
    case.ok("start", name)
    case.until("stopped")
    case.ok("delete", name)
    assert json.loads("".join(entries(case)))["status"] in statuses


@pytest.mark.rule("runtime.md#state")
@pytest.mark.parametrize("kind", ["prestart", "createRuntime", "poststart"])
def test_pid(case: Case, kind: str) -> None:
    """The pid a hook of the runtime's namespace reads is the one the runtime reports."""
    hook(case, kind, f"cat > {journal(case, kind)}")
    name = case.create("sleep", "0.5")
    pid = case.pid()
    case.ok("start", name)
    case.until("stopped")
    assert json.loads("".join(entries(case)))["pid"] == pid


@pytest.mark.parametrize("kind", KINDS)
def test_namespaces(case: Case, kind: str) -> None:
    """createContainer and startContainer run in the container's namespaces, the others in the runtime's."""
    hook(case, kind, f"readlink /proc/self/ns/uts > {journal(case, kind)}")
    whole_life(case)
    outside = os.readlink("/proc/self/ns/uts")
    found = [entry for entry in entries(case) if entry != "program"]
    assert len(found) == 1
    assert (found[0] == outside) == (kind in OUTSIDE)


@pytest.mark.parametrize("kind", ["prestart", "createRuntime", "createContainer"])
def test_before_pivot(case: Case, kind: str) -> None:
    """Early hooks run before pivot_root: the host's paths are still there for them."""
    (case.bundle / "outside").write_text("seen\n")
    hook(case, kind, f"cat {case.bundle}/outside > {journal(case, kind)}")
    case.create("true")
    assert entries(case) == ["seen"]


@pytest.mark.parametrize("kind", ["createContainer", "prestart", "createRuntime"])
def test_environment_exists(case: Case, kind: str) -> None:
    """Early hooks run when the container's environment has been made: its process is in its namespaces."""
    hook(case, kind, f"cat > {journal(case, kind)}.state; echo done >> {journal(case, kind)}")
    case.create("true")
    pid = json.loads((case.rootfs / "journal.state").read_text())["pid"]
    assert kind == "createContainer" or os.readlink(f"/proc/{pid}/ns/net") != os.readlink("/proc/self/ns/net")


def test_start_container_in_the_root(case: Case) -> None:
    """A startContainer hook is a program of the container, in its root."""
    hook(case, "startContainer", "ls / > /journal")
    case.start("true")
    case.until("stopped")
    assert "bin" in entries(case)
    assert "config.json" not in entries(case)


@pytest.mark.parametrize("kind", KINDS)
def test_args_and_env(case: Case, kind: str) -> None:
    """A hook has its own arguments, the first as its name, and its own environment."""
    hook(case, kind, f'echo "$0|$1|$2|$WORD" > {journal(case, kind)}', env=["WORD=a b"])
    case.config["hooks"][kind][0]["args"] += ["name", "one two", ""]
    whole_life(case)
    assert "name|one two||a b" in entries(case)


@pytest.mark.parametrize("kind", [kind for kind in KINDS if kind != "startContainer"])
def test_environment_is_its_own(case: Case, kind: str) -> None:
    """Neither the runtime's nor the container's environment reaches a hook that has one of its own."""
    case.process["env"].append("CONTAINERS=1")
    hook(case, kind, f'echo "<$CONTAINERS$CALLERS>" >> {journal(case, kind)}', env=["PATH=/bin"])
    name = case.create("sleep", "0.1", env=os.environ | {"CALLERS": "2"})
    case.ok("start", name, env=os.environ | {"CALLERS": "2"})
    case.until("stopped")
    case.ok("delete", name, env=os.environ | {"CALLERS": "2"})
    assert "<>" in entries(case)


@pytest.mark.parametrize("kind", KINDS)
def test_path_is_not_the_name(case: Case, kind: str) -> None:
    """`path` is what is executed; args[0] is only what it is told it is called."""
    hook(case, kind, f"echo ran > {journal(case, kind)}")
    entry = case.config["hooks"][kind][0]
    if kind == "startContainer":
        entry["path"] = "/bin/busybox"
    case.create("sleep", "0.1")
    case.ok("start", case.id)
    case.until("stopped")
    case.ok("delete", case.id)
    assert entries(case) == ["ran"]


@pytest.mark.rule("runtime.md#lifecycle")
@pytest.mark.parametrize("kind", EARLY)
def test_early_failure(case: Case, kind: str) -> None:
    """A failing hook of create is an error of create, after which there is no container."""
    hook(case, kind, "exit 7")
    case.refused("true")


@pytest.mark.rule("runtime.md#lifecycle")
@pytest.mark.parametrize("kind", EARLY)
def test_after_a_failure_no_other_runs(case: Case, kind: str) -> None:
    """After a failing hook the next of its kind is not run."""
    hook(case, kind, "exit 1")
    hook(case, kind, f"echo second > {journal(case, kind)}")
    case.refused("true")
    assert entries(case) == []


@pytest.mark.rule("runtime.md#lifecycle")
def test_start_container_failure(case: Case) -> None:
    """A failing startContainer hook is an error of start; the program is not run."""
    hook(case, "startContainer", "exit 7")
    name = case.create("sh", "-c", "echo program > /journal")
    case.fails("start", name)
    assert entries(case) == []


@pytest.mark.rule("runtime.md#lifecycle")
def test_poststart_failure(case: Case) -> None:
    """A failing poststart hook is an error of start and stops the container."""
    hook(case, "poststart", "exit 7")
    name = case.create("sleep", "300")
    case.fails("start", name)
    done = case.call("state", name)
    assert done.returncode != 0 or json.loads(done.stdout)["status"] == "stopped"


@pytest.mark.rule("runtime.md#lifecycle")
def test_poststop_failure(case: Case) -> None:
    """A failing poststop hook is a warning: delete succeeds, and the other hooks run."""
    hook(case, "poststop", "exit 7")
    hook(case, "poststop", f"echo second > {journal(case, 'poststop')}")
    name = case.start("true")
    case.until("stopped")
    case.ok("delete", name)
    case.fails("state", name)
    assert entries(case) == ["second"]


@pytest.mark.rule("runtime.md#lifecycle")
def test_poststop_after_an_early_failure(case: Case) -> None:
    """A create that an early hook ended goes through poststop."""
    hook(case, "createRuntime", "exit 1")
    hook(case, "poststop", f"echo poststop > {journal(case, 'poststop')}")
    case.refused("true")
    assert entries(case) == ["poststop"]


@pytest.mark.parametrize("kind", ["prestart", "createRuntime", "createContainer"])
def test_timeout(case: Case, kind: str) -> None:
    """A hook that takes longer than its timeout is ended, and has failed."""
    hook(case, kind, "sleep 20", timeout=1)
    begun = time.monotonic()
    case.refused("true")
    assert time.monotonic() - begun < 15


@pytest.mark.parametrize("kind", ["prestart", "createRuntime", "poststop"])
def test_timeout_not_reached(case: Case, kind: str) -> None:
    """A hook that keeps to its timeout is not disturbed."""
    hook(case, kind, f"echo ran > {journal(case, kind)}", timeout=20)
    whole_life(case)
    assert "ran" in entries(case)


@pytest.mark.parametrize("kind", EARLY)
def test_absent_program(case: Case, kind: str) -> None:
    """A hook that does not exist is a failure."""
    case.config["hooks"] = {kind: [{"path": "/no/such/hook"}]}
    case.refused("true")


@pytest.mark.parametrize(
    "entry", [{"path": "relative"}, {"path": "/bin/true", "timeout": 0}, {"path": "/bin/true", "timeout": -1}, {}]
)
def test_invalid(case: Case, entry: dict[str, Any]) -> None:
    """A path must be absolute, and a timeout greater than zero."""
    case.config["hooks"] = {"createRuntime": [entry]}
    case.refused("true")


def test_empty(case: Case) -> None:
    """Empty lists of hooks are no hooks."""
    case.config["hooks"] = {kind: [] for kind in KINDS}
    assert case.shell("echo yes") == "yes"


def test_run_runs_them_all(case: Case) -> None:
    """`run` is create, start and delete: each kind of hook runs."""
    for kind in KINDS:
        hook(case, kind, f"echo {kind} >> {journal(case, kind)}")
    case.output("sleep", "0.2")
    assert entries(case) == list(KINDS)


def test_delete_force_runs_poststop(case: Case) -> None:
    """A container that is killed and deleted in one goes through poststop too."""
    hook(case, "poststop", f"echo poststop > {journal(case, 'poststop')}")
    name = case.sleeper()
    case.ok("delete", "--force", name)
    assert entries(case) == ["poststop"]
