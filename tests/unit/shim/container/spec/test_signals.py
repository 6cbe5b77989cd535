from __future__ import annotations

import pytest

from shim.container.spec.signals import cri_signal, parse_signal, stop_signal
from shim.errors import InvalidArgument
from shim.gen.runtime.v1 import api_pb2


@pytest.mark.parametrize(
    ("text", "number"),
    [
        ("SIGTERM", 15),
        ("term", 15),
        ("15", 15),
        ("50", 50),
        ("KILL", 9),
        ("SIGRTMIN", 34),
        ("RTMIN+3", 37),
        ("SIGRTMAX-1", 63),
        ("rtmax", 64),
        ("64", 64),
        ("SIGIOT", 6),
        ("SIGPOLL", 29),
        ("SIGSTKFLT", 16),
    ],
)
def test_parse(text, number):
    assert parse_signal(text) == number


@pytest.mark.parametrize(
    "text", ["", "0", "32", "33", "65", "-1", "SIGFOO", "RTMIN+31", "\u0661\u0665", "9999999999", "SIG", "15; rm"]
)
def test_no_signal(text):
    with pytest.raises(InvalidArgument):
        parse_signal(text)


@pytest.mark.parametrize(
    ("cri", "image", "name"),
    [
        (0, "", "SIGTERM"),
        (0, "SIGQUIT", "SIGQUIT"),
        (0, "3", "SIGQUIT"),
        (0, "RTMIN+3", "SIGRTMIN+3"),
        (0, "nonsense", "SIGTERM"),
        (0, "50", "SIGRTMAX-14"),
        (api_pb2.SIGNAL_SIGUSR1, "SIGQUIT", "SIGUSR1"),
        (api_pb2.SIGNAL_SIGRTMINPLUS3, "", "SIGRTMIN+3"),
        (api_pb2.SIGNAL_SIGRTMAXMINUS14, "", "SIGRTMAX-14"),
    ],
)
def test_stop_signal(kit, cri, image, name):
    config = kit.container()
    config.stop_signal = cri
    assert stop_signal(config, image) == name
    if cri:
        assert cri_signal(name) == cri


def test_every_signal_of_the_cri_has_a_number(kit):
    for value in api_pb2.Signal.values()[1:]:
        config = kit.container()
        config.stop_signal = value
        assert 1 <= parse_signal(stop_signal(config, "")) <= 64


def test_a_signal_the_cri_lacks():
    assert cri_signal("SIGX") == api_pb2.SIGNAL_RUNTIME_DEFAULT
