"""Scheduling policy, I/O priority and CPU affinity of the process."""

from __future__ import annotations

import json
import os
from typing import TYPE_CHECKING, Any

import pytest

from conformance.oci.support import host
from conformance.oci.support.probe import status

if TYPE_CHECKING:
    from conformance.oci.support.case import Case

pytestmark = pytest.mark.rule("config.md#linux-process")
POLICIES = {"SCHED_OTHER": "0", "SCHED_FIFO": "1", "SCHED_RR": "2", "SCHED_BATCH": "3", "SCHED_IDLE": "5"}
FIELDS = "sed 's/.*) //' /proc/self/stat"
"""Of proc(5)'s stat from field 3 on: nice is 17th, the real-time priority 38th, the policy 39th."""


def scheduling(case: Case) -> tuple[str, str, str]:
    """Give nice value, real-time priority and policy of the process."""
    words = case.output("sh", "-c", FIELDS).split()
    return words[16], words[37], words[38]


def need_real_time() -> None:
    """Skip where cgroups give no real-time budget."""
    host.need(host.has_capability("CAP_SYS_NICE"), "CAP_SYS_NICE")
    budget = host.read(f"{host.CGROUPS}/cpu/cpu.rt_runtime_us")
    host.need(not budget, "real-time group scheduling is on: a new cgroup has no real-time budget")


@pytest.mark.parametrize("policy", ["SCHED_OTHER", "SCHED_BATCH", "SCHED_IDLE"])
def test_policy(case: Case, policy: str) -> None:
    """The policy is set."""
    case.process["scheduler"] = {"policy": policy}
    assert scheduling(case)[2] == POLICIES[policy]


@pytest.mark.parametrize("policy", ["SCHED_FIFO", "SCHED_RR"])
def test_real_time_policy(case: Case, policy: str) -> None:
    """A real-time policy is set with its priority."""
    need_real_time()
    case.process["scheduler"] = {"policy": policy, "priority": 5}
    assert scheduling(case)[1:] == ("5", POLICIES[policy])


@pytest.mark.parametrize("nice", [0, 7, 19, -5])
def test_nice(case: Case, nice: int) -> None:
    """The nice value is set."""
    case.process["scheduler"] = {"policy": "SCHED_OTHER", "nice": nice}
    assert scheduling(case)[0] == str(nice)


def test_unknown_policy(case: Case) -> None:
    """A policy that does not exist is an error."""
    case.process["scheduler"] = {"policy": "SCHED_LATER"}
    case.run_refused("true", want="there is no such policy")


def test_unknown_flag(case: Case) -> None:
    """A flag that does not exist is an error."""
    case.process["scheduler"] = {"policy": "SCHED_OTHER", "flags": ["SCHED_FLAG_NOSUCH"]}
    case.run_refused("true", want="there is no such flag")


@pytest.mark.parametrize(
    "scheduler",
    [
        {"policy": "SCHED_OTHER", "nice": 25},
        {"policy": "SCHED_FIFO", "priority": 1000},
        {"policy": "SCHED_DEADLINE"},
        {"policy": "SCHED_DEADLINE", "runtime": 20, "deadline": 10, "period": 5},
    ],
    ids=["nice", "priority", "deadline-empty", "deadline-order"],
)
def test_impossible(case: Case, scheduler: dict[str, Any]) -> None:
    """What sched_setattr(2) refuses is an error."""
    case.process["scheduler"] = scheduler
    case.run_refused("true", want="the kernel refuses it")


def test_exec_has_it(case: Case) -> None:
    """A process of `exec` is scheduled as the container's."""
    case.process["scheduler"] = {"policy": "SCHED_BATCH", "nice": 3}
    case.sleeper()
    words = case.execute(FIELDS).split()
    assert (words[16], words[38]) == ("3", "3")


@pytest.mark.parametrize(
    ("kind", "level", "said"),
    [
        ("IOPRIO_CLASS_BE", 4, "best-effort: prio 4"),
        ("IOPRIO_CLASS_BE", 0, "best-effort: prio 0"),
        ("IOPRIO_CLASS_BE", 7, "best-effort: prio 7"),
        ("IOPRIO_CLASS_IDLE", 0, "idle"),
        ("IOPRIO_CLASS_RT", 3, "realtime: prio 3"),
    ],
)
def test_io_priority(case: Case, kind: str, level: int, said: str) -> None:
    """The I/O priority is set."""
    host.need("_RT" not in kind or host.has_capability("CAP_SYS_NICE"), "CAP_SYS_NICE")
    case.process["ioPriority"] = {"class": kind, "priority": level}
    assert case.shell("ionice -p $$").startswith(said)


@pytest.mark.parametrize(
    "wrong", [{"class": "IOPRIO_CLASS_NOSUCH", "priority": 1}, {"class": "IOPRIO_CLASS_BE", "priority": 9}]
)
def test_io_priority_invalid(case: Case, wrong: dict[str, Any]) -> None:
    """A class or level that does not exist is an error."""
    case.process["ioPriority"] = wrong
    case.run_refused("true", want="there is no such I/O priority")


def test_exec_has_io_priority(case: Case) -> None:
    """A process of `exec` has the container's I/O priority."""
    case.process["ioPriority"] = {"class": "IOPRIO_CLASS_IDLE", "priority": 0}
    case.sleeper()
    assert case.execute("ionice -p $$").startswith("idle")


def allowed(text: str) -> str:
    """Give the list of CPUs a status file tells of."""
    return status(text)["Cpus_allowed_list"]


def own_cpus() -> list[int]:
    """Give the CPUs the judge may use; two at least, or a skip."""
    cpus = sorted(os.sched_getaffinity(0))
    host.need(len(cpus) > 1, "a second CPU")
    return cpus


def test_affinity_of_the_caller(case: Case) -> None:
    """The container may use the CPUs of its cgroup, however few its caller may use himself."""
    cpus = own_cpus()
    text = case.output("cat", "/proc/self/status", preexec_fn=lambda: os.sched_setaffinity(0, cpus[:1]))
    assert allowed(text) != str(cpus[0])


@pytest.mark.parametrize("way", ["config", "process"])
def test_exec_affinity(case: Case, way: str) -> None:
    """execCPUAffinity.final holds for a process of `exec`."""
    last = str(own_cpus()[-1])
    affinity = {"initial": "0", "final": last}
    if way == "config":
        case.process["execCPUAffinity"] = affinity
    name = case.sleeper()
    if way == "config":
        text = case.execute("cat /proc/self/status")
    else:
        process = case.process | {"args": ["cat", "/proc/self/status"], "execCPUAffinity": affinity}
        (case.bundle / "process.json").write_text(json.dumps(process))
        text = case.ok("exec", "--process", str(case.bundle / "process.json"), name)
    assert allowed(text) == last


def test_affinity_not_of_init(case: Case) -> None:
    """execCPUAffinity is no matter of the container's first process."""
    cpus = own_cpus()
    case.process["execCPUAffinity"] = {"initial": str(cpus[0]), "final": str(cpus[0])}
    assert allowed(case.output("cat", "/proc/self/status")) != str(cpus[0])


def test_affinity_invalid(case: Case) -> None:
    """A list of CPUs that is none is an error."""
    case.process["execCPUAffinity"] = {"final": "first"}
    name = case.new_id()
    case.write("sleep", "300")
    if case.call("create", name, stdout=None, stderr=None).returncode == 0:
        case.ok("start", name)
        case.fails("exec", name, "true")
