"""Signals by the names that images and the CRI use."""

from __future__ import annotations

import signal
from typing import TYPE_CHECKING

from shim.errors import InvalidArgument
from shim.gen.runtime.v1 import api_pb2

if TYPE_CHECKING:
    from shim.gen.runtime.v1.api_pb2 import ContainerConfig

# signal(7): what programs see as real-time signals, after the two that the C library keeps.
RTMIN, RTMAX = 34, 64
DEFAULT = "SIGTERM"
ENUM = api_pb2.Signal.DESCRIPTOR.values_by_number

NUMBERS = {item.name: int(item) for item in signal.Signals if not item.name.startswith("SIGRT")}
NUMBERS |= {"SIGIOT": 6, "SIGCLD": 17, "SIGPOLL": 29, "SIGSTKFLT": 16, "SIGRTMIN": RTMIN, "SIGRTMAX": RTMAX}
NUMBERS |= {f"SIGRTMIN+{step}": RTMIN + step for step in range(1, 16)}
NUMBERS |= {f"SIGRTMAX-{step}": RTMAX - step for step in range(1, 15)}


def parse_signal(text: str) -> int:
    """Give the number of "SIGTERM", "term", "15" or "RTMIN+3"; raise InvalidArgument for anything else.

    32 and 33 are the C library's own (nptl(7)): no program can be told of them, so they are no stop signals.
    """
    word = text.strip().upper()
    if word.isascii() and word.isdigit() and len(word) <= 3:
        number = int(word)
        if number in NUMBERS.values() or RTMIN <= number <= RTMAX:
            return number
    known = NUMBERS.get(f"SIG{word.removeprefix('SIG')}")
    if known is None:
        raise InvalidArgument(f"{text!r} is no signal")
    return known


def stop_signal(config: ContainerConfig, image_stop_signal: str) -> str:
    """Give the name to stop with: the CRI's stop_signal, else the image's, else SIGTERM (names like "SIGRTMIN+3").

    An image's value that is no signal counts as none: the container would be impossible to stop. Raises InvalidArgument for
    a number that the CRI does not know.
    """
    if config.stop_signal != api_pb2.SIGNAL_RUNTIME_DEFAULT:
        entry = ENUM.get(config.stop_signal)
        if entry is None:
            raise InvalidArgument(f"stop_signal {config.stop_signal} is unknown")
        return entry.name.removeprefix("SIGNAL_").replace("PLUS", "+").replace("MINUS", "-")
    if image_stop_signal:
        try:
            return _name(parse_signal(image_stop_signal))
        except InvalidArgument:
            return DEFAULT
    return DEFAULT


def cri_signal(name: str) -> int:
    """Give the CRI's number for a name that `stop_signal` gave, SIGNAL_RUNTIME_DEFAULT for one the CRI lacks."""
    wire = f"SIGNAL_{name.replace('+', 'PLUS').replace('-', 'MINUS')}"
    values = api_pb2.Signal.DESCRIPTOR.values_by_name
    return api_pb2.Signal.Value(wire) if wire in values else api_pb2.SIGNAL_RUNTIME_DEFAULT


def _name(number: int) -> str:
    """Give the usual name of a number; of SIGABRT and SIGIOT the first."""
    return next((name for name, value in NUMBERS.items() if value == number), f"SIG{number}")
