"""Signals by the names that images and the CRI use."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from shim.gen.runtime.v1.api_pb2 import ContainerConfig


def parse_signal(text: str) -> int:
    """Give the number of "SIGTERM", "term", "15" or "RTMIN+3"; raise InvalidArgument for anything else."""
    raise NotImplementedError


def stop_signal(config: ContainerConfig, image_stop_signal: str) -> str:
    """Give the name to stop with: the CRI's stop_signal, else the image's, else SIGTERM (names like "SIGRTMIN+3")."""
    raise NotImplementedError
