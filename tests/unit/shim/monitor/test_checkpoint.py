"""A checkpoint is one moment: everybody stands still before the first is written, and runs on after the last or a failure."""

from __future__ import annotations

import asyncio
from types import SimpleNamespace

import pytest

from shim.errors import FailedPrecondition, Internal
from shim.monitor.checkpoint import save
from shim.monitor.protocol import CheckpointRequest


class Runtime:
    """Notes what it is asked."""

    def __init__(self, told: list[str], *, fails: bool = False, frozen: bool = False) -> None:
        self.told = told
        self.fails = fails
        self.frozen = frozen

    def is_frozen(self) -> bool:
        return self.frozen

    async def pause(self, container_id: str) -> None:
        self.told.append(f"pause {container_id}")

    async def resume(self, container_id: str) -> None:
        self.told.append(f"resume {container_id}")

    async def checkpoint(self, container_id: str, folder: str, _options: dict[str, bool], _seconds: float) -> None:
        self.told.append(f"save {container_id} in {folder}")
        if self.fails:
            raise Internal("criu says no")


def told_of(*members: tuple[str, dict[str, bool]], status: str = "running") -> list[str]:
    told: list[str] = []
    containers = [
        SimpleNamespace(status=status, runtime=Runtime(told, **fields), request=SimpleNamespace(container_id=name, rootfs=None))
        for name, fields in members
    ]
    names = tuple(name for name, _ in members)
    try:
        asyncio.run(save(containers, CheckpointRequest(containers=names, folders=tuple(f"/{name}" for name in names))))  # type: ignore[arg-type]  # the parts of a container that are looked at
    except Internal:
        told.append("failed")
    return told


def test_all_stand_still_before_the_first_is_written() -> None:
    told = told_of(("a", {}), ("b", {}))
    assert told[:4] == ["pause a", "pause b", "save a in /a", "save b in /b"]
    assert sorted(told[4:]) == ["resume a", "resume b"]


@pytest.mark.parametrize("broken", ["a", "b"])
def test_all_run_on_when_one_cannot_be_written(broken: str) -> None:
    told = told_of(*((name, {"fails": name == broken}) for name in ("a", "b")))
    assert sorted(told[-3:]) == ["failed", "resume a", "resume b"]


def test_who_stood_still_before_stays_so() -> None:
    assert told_of(("a", {"frozen": True}), ("b", {})) == ["pause b", "save a in /a", "save b in /b", "resume b"]


def test_who_does_not_run_keeps_all_from_being_stopped() -> None:
    with pytest.raises(FailedPrecondition):
        told_of(("a", {}), status="created")
