"""Signal names and numbers (signal(7)) without the signal module, whose enums cost an import."""

from __future__ import annotations

from runtime.errors import UsageFault

TYPE_CHECKING = False
if TYPE_CHECKING:
    import signal as _signal
else:
    import _signal


def parse_signal(text: str) -> int:
    """Give the number of "9", "KILL", "SIGKILL", "RTMIN+3"; raise UsageFault for anything else."""
    if text.isascii() and text.isdigit() and len(text) < 4:
        number = int(text)
        if 0 <= number < _signal.NSIG:  # 0 only asks whether there is a process (kill(2))
            return number
    name = text.upper().removeprefix("SIG")
    base, sign, offset = name.partition("+") if "+" in name else name.partition("-")
    known = getattr(_signal, f"SIG{base}", None) if base.isalnum() else None
    if isinstance(known, int) and (not sign or (base in ("RTMIN", "RTMAX") and offset.isascii() and offset.isdigit())):
        number = int(known) + int(sign + offset) if sign else int(known)
        if 0 < number < _signal.NSIG:
            return number
    raise UsageFault(f'unknown signal "{text}"')
