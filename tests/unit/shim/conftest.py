import signal

import pytest

from shim.reactor import Reactor
from tests.unit.shim import fakes


@pytest.fixture
async def world(tmp_path):
    """Give a node and the trace of what its parts were asked to do."""
    node, trace = fakes.make_node(tmp_path)
    yield node, trace
    node.network.close()
    node.workers.close()
    node.database.close()


@pytest.fixture
def reactor():
    """Give a loop, and put back the handlers of signals that it took."""
    before = {number: signal.getsignal(number) for number in signal.valid_signals()}
    made = Reactor()
    yield made
    made.close()
    for number, handler in before.items():
        if signal.getsignal(number) is not handler:
            signal.signal(number, handler)
