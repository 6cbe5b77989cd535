import pytest

from shim.gen.runtime.v1 import api_pb2
from shim.rpc.encode import signal_name


@pytest.mark.parametrize(
    ("number", "name"),
    [
        (15, "SIGNAL_SIGTERM"),
        (10, "SIGNAL_SIGUSR1"),
        (34, "SIGNAL_SIGRTMIN"),
        (37, "SIGNAL_SIGRTMINPLUS3"),
        (63, "SIGNAL_SIGRTMAXMINUS1"),
        (64, "SIGNAL_SIGRTMAX"),
    ],
)
def test_signal_names(number, name):
    assert signal_name(number) == name


def test_every_signal_has_a_name_in_the_cri():
    for number in range(1, 65):
        if number in {32, 33}:  # the C library keeps these
            continue
        assert signal_name(number) in api_pb2.Signal.DESCRIPTOR.values_by_name
