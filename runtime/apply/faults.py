"""Name the step a system call failed in."""

from __future__ import annotations

import errno

from runtime.errors import KernelFault, RuntimeFault

TYPE_CHECKING = False
if TYPE_CHECKING:
    from types import TracebackType

_MISSING = (errno.ENOSYS, errno.EOPNOTSUPP)


class Step:
    """A context that turns an OSError into a RuntimeFault naming `step` and `path`, or a KernelFault for a missing call."""

    __slots__ = ("path", "step")

    def __init__(self, step: str, path: str | None = None) -> None:
        self.step = step
        self.path = path

    def __enter__(self) -> None:
        pass

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        del kind, trace
        if isinstance(error, OSError):
            call = (getattr(error, "__notes__", None) or [""])[0]
            if error.errno in _MISSING and call:
                raise KernelFault(
                    f"this kernel cannot do {call}", feature=call, step=self.step, errno=error.errno, path=self.path
                ) from error
            raise RuntimeFault.from_os(error, self.step, path=self.path) from error
