"""kill -9 at every message between creator, stage1, init and starter: the others say so in a line, and nothing is left."""

from __future__ import annotations

import json
import signal
import socket
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from tests.system.oci_kills import AFTER, BEFORE, HEAR, MESSAGES, SAY, SPOTS
from tests.system.test_oci_faults import processes_of
from tests.system.test_oci_namespaces import in_user_namespace
from tests.system.test_oci_root import bind

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.system.oci_node import Oci

pytestmark = pytest.mark.system

REPOSITORY = Path(__file__).parents[2]
SECONDS = 120
KILLED = -signal.SIGKILL
ENDED_SO = 128 + signal.SIGKILL
FIRST_ENDED_SO = 128 + signal.SIGSEGV
"""How the kill of the first process of a PID namespace looks here."""
GATE = 2
"""The GO that is said at the gate, in a process that has said or heard one before."""

Point = tuple[str, str, str, int]
"""A message, the side, the moment, and which time."""

CALLER_SAYS = {"placed", "mapped", "go", "moved", "hooked", "confined", "taken"}
AT_THE_GATE: tuple[Point, ...] = (
    ("go", SAY, BEFORE, GATE),
    ("go", SAY, AFTER, GATE),
    ("go", HEAR, BEFORE, 1),
    ("go", HEAR, AFTER, GATE),
)
STARTER: tuple[Point, ...] = (
    ("go", SAY, BEFORE, 1), ("go", SAY, AFTER, 1), ("listener", HEAR, AFTER, 1),
    ("taken", SAY, BEFORE, 1), ("taken", SAY, AFTER, 1), ("fault", HEAR, AFTER, 1),
)  # fmt: skip
STARTED: tuple[Point, ...] = (
    ("go", HEAR, BEFORE, 1), ("go", HEAR, AFTER, GATE), ("listener", SAY, BEFORE, 1), ("listener", SAY, AFTER, 1),
    ("taken", HEAR, AFTER, 1), ("fault", SAY, BEFORE, 1),
)  # fmt: skip
WAITS: dict[str, set[Point]] = {
    "create": {("taken", SAY, AFTER, 1), ("ready", HEAR, AFTER, 1), ("child", SAY, AFTER, 1)},
    "run": {("taken", SAY, AFTER, 1), ("ready", HEAR, AFTER, 1), ("go", SAY, BEFORE, GATE)},
    "start": {("go", SAY, BEFORE, 1)},
    "exec": set(),
}
"""After these init waits, or may wait, at the gate: it has nothing more to hear from its creator."""
OTHERWISE: dict[str, dict[Point, int]] = {
    "create": {
        ("child", SAY, AFTER, 1): 0,  # it was stage1's last word
        ("ready", SAY, AFTER, 1): 0,  # the container is created, and then killed
    },
    "run": {
        ("child", SAY, AFTER, 1): 0,
        ("go", HEAR, AFTER, GATE): FIRST_ENDED_SO,  # the container was started, and then killed
    },
    "exec": {
        ("child", SAY, AFTER, 1): 0,
        ("confined", HEAR, AFTER, 1): ENDED_SO,
        ("listener", SAY, BEFORE, 1): ENDED_SO,
        ("fault", SAY, BEFORE, 1): ENDED_SO,
        ("taken", HEAR, AFTER, 1): ENDED_SO,
    },
    "start": {
        ("go", HEAR, AFTER, GATE): 0,
        ("listener", SAY, BEFORE, 1): 0,
        ("taken", HEAR, AFTER, 1): 0,
        ("fault", SAY, BEFORE, 1): 0,
    },
}
"""Points at which it is not the command that fails: it was done, and then the container or its program killed."""


@pytest.fixture
def agent(short_dir: Path) -> Iterator[str]:
    """Give the address of an agent that takes listeners and never has a call to answer."""
    path = str(short_dir / "agent")
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as listener:
        listener.bind(path)
        listener.listen(128)
        yield path


def prepare(node: Oci, agent: str, *, staged: bool, call: str = "swapon") -> None:
    """Write a document that takes every message there is; `call` is what the agent would answer for."""
    node.config["hooks"] = {"createRuntime": [{"path": "/bin/true", "args": ["true"]}]}
    rule = {"names": [call], "action": "SCMP_ACT_NOTIFY"}
    node.config["linux"]["seccomp"] = {"defaultAction": "SCMP_ACT_ALLOW", "syscalls": [rule], "listenerPath": agent}
    node.config["linux"]["netDevices"] = {"wherry0": {}}
    bad = node.rootfs / "bin/bad"
    bad.write_text("no program\n")
    bad.chmod(0o755)
    if staged:
        in_user_namespace(node)
        (node.rootfs / "mnt").mkdir(exist_ok=True)
        node.config["mounts"].append(bind(node.rootfs / "dev", "/mnt"))


def points(command: str) -> list[Point]:
    """Give every point of a command: whose last word it was is not killed after it."""
    return [
        (kind, side, when, 1)
        for kind in MESSAGES[command]
        for side, when in SPOTS
        if (kind, when, side) != ("fault", AFTER, SAY)
    ]


class Order:
    """The points of one command, and what comes of them."""

    def __init__(self, node: Oci, command: str, *, staged: bool) -> None:
        self.node, self.command, self.places = node, command, staged
        self.points: list[Point] = []
        self.order: list[dict[str, Any]] = []
        self.prefix = ["--root", str(node.root)]

    def add(self, point: Point, name: str, *commands: list[str], armed: tuple[int, ...] = (0,), last: list[str]) -> None:
        kind, side, when, nth = point
        self.points.append(point)
        self.order.append(
            {
                "kind": kind, "side": side, "when": when, "nth": nth, "armed": armed,
                "commands": [[*self.prefix, *words] for words in commands], "last": [*self.prefix, *last],
                "said": str(self.node.bundle / "said"), "folder": str(self.node.root / name),
                "waits": point in WAITS[self.command], "places": self.places,
            }
        )  # fmt: skip

    def wrong(self) -> dict[Point, dict[str, Any]]:
        """Give what came of those points of which something else should have come."""
        done = subprocess.run(
            [sys.executable, "-m", "tests.system.oci_kills"], input=json.dumps(self.order), text=True, capture_output=True,
            timeout=SECONDS, check=False, cwd=REPOSITORY,
        )  # fmt: skip
        assert done.returncode == 0, done.stderr
        answers = json.loads(done.stdout)
        assert len(answers) == len(self.points) > 0
        return {point: answer for point, answer in zip(self.points, answers, strict=True) if not self._is_right(point, answer)}

    def _is_right(self, point: Point, answer: dict[str, Any]) -> bool:
        failure = 255 if self.command == "exec" else 1
        code = KILLED if self._kills_caller(point) else OTHERWISE[self.command].get(point, failure)
        told = len(answer["said"].splitlines()) == (code == failure)
        kept = self.command in ("exec", "start") or (code in (KILLED, 0) and self.command == "create") or code == KILLED
        waits = point in WAITS[self.command]
        return (
            answer["fired"] and answer["code"] == code and told and answer["kept"] == kept and (waits or not answer["left"])
            and answer["last"] == (0 if kept else 1) and answer["left_at_last"] == 0
        )  # fmt: skip

    def _kills_caller(self, point: Point) -> bool:
        kind, side, _, _ = point
        if kind == "cloned":  # a child of the creator's says it
            return False
        return (kind in CALLER_SAYS) == (side == SAY)


def create_order(node: Oci, agent: str, command: str, *, staged: bool) -> Order:
    """Order one container for each point, and its deletion."""
    prepare(node, agent, staged=staged)
    order = Order(node, command, staged=staged)
    extra = AT_THE_GATE if command == "run" else ()
    for point in (*points("create in a user namespace" if staged else "create"), *extra):
        bundle = node.bundle
        if point[0] == "fault":
            bundle = node.bundle / "faulty"
            bundle.mkdir(exist_ok=True)
            node.config["root"]["path"] = str(node.rootfs)
            node.write("nosuch")
            (node.bundle / "config.json").rename(bundle / "config.json")
        name = node.new_id()
        order.add(point, name, [command, "--bundle", str(bundle), name], last=["delete", name])
    node.write("true")
    return order


@pytest.mark.parametrize("staged", [False, True], ids=["create", "create in a user namespace"])
def test_create(ours: Oci, agent: str, staged: bool) -> None:
    order = create_order(ours, agent, "create", staged=staged)
    assert order.wrong() == {}
    assert [name for name in ours.ids if processes_of(name)] == []


def test_run(ours: Oci, agent: str) -> None:
    order = create_order(ours, agent, "run", staged=True)
    assert order.wrong() == {}
    assert [name for name in ours.ids if processes_of(name)] == []


@pytest.mark.parametrize("staged", [False, True], ids=["exec", "exec in a user namespace"])
def test_exec(ours: Oci, agent: str, staged: bool) -> None:
    prepare(ours, agent, staged=staged)
    del ours.config["linux"]["netDevices"]
    name = ours.start("sleep", "1000")
    order = Order(ours, "exec", staged=staged)
    for point in points("exec in a user namespace" if staged else "exec"):
        order.add(point, name, ["exec", name, "nosuch" if point[0] == "fault" else "true"], last=["exec", name, "true"])
    assert order.wrong() == {}
    assert set(processes_of(name)) == {ours.state(name)["pid"]}


def test_start(ours: Oci, agent: str) -> None:
    prepare(ours, agent, staged=False, call="capget")  # which init calls while it waits, so that its agent is told after
    order = Order(ours, "start", staged=False)
    for armed, kinds in ((1, STARTER), (0, STARTED)):
        for point in kinds:
            folder = ours.bundle / point[0]
            folder.mkdir(exist_ok=True)
            ours.config["root"]["path"] = str(ours.rootfs)
            ours.write("bad" if point[0] == "fault" else "true")
            (ours.bundle / "config.json").rename(folder / "config.json")
            name = ours.new_id()
            create = ["create", "--bundle", str(folder), name]
            order.add(point, name, create, ["start", name], armed=(armed,), last=["delete", name])
    assert order.wrong() == {}
