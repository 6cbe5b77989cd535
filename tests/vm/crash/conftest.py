"""The daemon as it comes up after the crash."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.vm.crash.daemon import Lasting, mount

if TYPE_CHECKING:
    from collections.abc import Iterator


@pytest.fixture(scope="module")
def survivor() -> Iterator[Lasting]:
    mount()
    daemon = Lasting()
    daemon.start()
    yield daemon
    daemon.stop()
