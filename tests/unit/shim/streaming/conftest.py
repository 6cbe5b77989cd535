"""What the tests of streaming share: a server on loopback with an echo behind it."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.unit.shim.streaming.backend import streaming

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from tests.unit.shim.streaming.backend import Parts


@pytest.fixture
async def parts() -> AsyncIterator[Parts]:
    async with streaming() as pair:
        yield pair
