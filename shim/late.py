"""Modules that others import and that we hardly ever need: they are loaded when something is first taken from them."""

from __future__ import annotations

import importlib
import sys
from types import ModuleType

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any


class _Late(ModuleType):
    """Stands for a module until then; importlib's own lazy module does not outlive a second `import` of it."""

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        if sys.modules.get(self.__name__) is self:
            del sys.modules[self.__name__]
        self.__dict__.update(vars(importlib.import_module(self.__name__)))
        return self.__dict__[name]


def import_late(name: str) -> None:
    """Have a module loaded late. Call before those are imported that import it.

    `dataclasses`, for one, imports `inspect`, ten times its own size, for classes without a docstring.
    """
    sys.modules.setdefault(name, _Late(name))
