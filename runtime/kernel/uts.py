"""sethostname(2) and setdomainname(2)."""

from __future__ import annotations

import os

from runtime.kernel.libc import function

_setdomainname = function("setdomainname", "sl")
_sethostname = function("sethostname", "sl")


def sethostname(name: str) -> None:
    """Name the host of this UTS namespace."""
    encoded = os.fsencode(name)
    _sethostname(encoded, len(encoded), path=name)


def setdomainname(name: str) -> None:
    """Name the NIS domain of this UTS namespace."""
    encoded = os.fsencode(name)
    _setdomainname(encoded, len(encoded), path=name)
