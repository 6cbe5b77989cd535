"""Fixtures of the system tests: the leak check around every test, images, registries, daemons and peers."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import pytest

from tests.support import snapshot

if TYPE_CHECKING:
    from collections.abc import Iterator


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Skip what needs root for everybody else."""
    if os.geteuid() == 0:
        return
    skip = pytest.mark.skip(reason="needs root: run the tests with sudo")
    for item in items:
        if item.get_closest_marker("system"):
            item.add_marker(skip)


@pytest.fixture(autouse=True)
def no_leaks(request: pytest.FixtureRequest) -> Iterator[None]:
    """Fail a test after which a mount, link, rule, cgroup, process, descriptor or file is there that was not before."""
    before = snapshot.take()
    yield
    left = snapshot.leaks(before)
    if left:
        lines = [f"  {kind}: {name}" for kind, names in left.items() for name in names[:10]]
        pytest.fail(f"{request.node.name} left behind:\n" + "\n".join(lines), pytrace=False)
