"""CPUs: a container does not run with its caller's affinity, an exec with the one it asks for."""

from __future__ import annotations

import json
import os
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from tests.system.oci_node import Oci

pytestmark = [
    pytest.mark.system,
    pytest.mark.skipif(len(os.sched_getaffinity(0)) < 2, reason="needs two CPUs"),
]

LIST = ("sh", "-c", "grep Cpus_allowed_list /proc/self/status | cut -f2")


def everywhere(ours: Oci) -> str:
    return ours.output(*LIST)


def test_the_caller_s_affinity_stays_with_the_caller(ours: Oci) -> None:
    expected = everywhere(ours)
    own = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {min(own)})
    try:
        assert ours.output(*LIST) == expected
        name = ours.start("sleep", "60")
        assert ours.ok("exec", name, *LIST) == expected
    finally:
        os.sched_setaffinity(0, own)


def test_an_exec_runs_where_it_is_told_to(ours: Oci) -> None:
    last = max(os.sched_getaffinity(0))
    name = ours.start("sleep", "60")
    process = ours.config["process"] | {"args": list(LIST), "execCPUAffinity": {"initial": "0", "final": str(last)}}
    path = ours.bundle / "process.json"
    path.write_text(json.dumps(process))
    assert ours.ok("exec", "--process", str(path), name).strip() == str(last)


def test_the_container_s_own_document_tells_execs_too(ours: Oci) -> None:
    ours.config["process"]["execCPUAffinity"] = {"initial": "0", "final": "0"}
    everyone = everywhere(ours).strip()
    assert everyone != "0"
    name = ours.start("sleep", "60")
    assert ours.ok("exec", name, *LIST).strip() == "0"
