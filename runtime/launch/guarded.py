"""The frame of every forked child: it ends in here, and what failed reaches the creator as a value."""

from __future__ import annotations

import os

from runtime.errors import RuntimeFault

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import NoReturn

    from runtime.launch.protocol import Link


def guarded(link: Link, work: Callable[[], object]) -> NoReturn:
    """Do the work of a forked child and end it: 0 when it returns, 1 after it told the creator what failed."""
    code = 1
    try:
        work()
        code = 0
    except RuntimeFault as fault:
        link.send_fault(fault)
    except BaseException as error:  # noqa: BLE001 - a defect of ours must reach the creator too
        link.send_fault(_defect(error))
    finally:
        os._exit(code)


def _defect(error: BaseException) -> RuntimeFault:
    trace = error.__traceback__
    while trace is not None and trace.tb_next is not None:
        trace = trace.tb_next
    where = f"{os.path.basename(trace.tb_frame.f_code.co_filename)}:{trace.tb_lineno}" if trace is not None else "?"
    number = error.errno if isinstance(error, OSError) else None
    return RuntimeFault(f"{type(error).__name__} at {where}: {error}", step="set up the container", errno=number)
