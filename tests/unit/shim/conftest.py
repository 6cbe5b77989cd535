import pytest

from tests.unit.shim import fakes


@pytest.fixture
async def world(tmp_path):
    """Give a node and the trace of what its parts were asked to do."""
    node, trace = fakes.make_node(tmp_path)
    yield node, trace
    node.network.close()
    node.workers.close()
    node.database.close()
