"""Read the command line, run one command, turn every fault into one line and an exit code.

Only what the command in use needs is imported, because starting is half of what `run` costs.
"""

from __future__ import annotations

import os
import sys

from runtime.cli.options import declare, parse
from runtime.cli.report import Report
from runtime.cli.table import COMMANDS, GLOBAL_OPTIONS
from runtime.errors import RuntimeFault, UsageFault

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence

    from runtime.cli.context import Context
    from runtime.cli.options import Values

FAILURE = 1
UNKNOWN_COMMAND = 3
EXEC_FAILURE = 255
"""Exit codes of runc."""
_TOLD = frozenset(("create", "exec", "run"))
"""Commands whose faults begin with their name, as with runc."""


def command_line(words: Sequence[str]) -> int:
    """Run `wherry-oci` with these words; give the exit code. Never raises: a defect of ours is a line too."""
    report = Report()
    try:
        outer = parse(declare(GLOBAL_OPTIONS), words, interleaved=False)
        report = Report(outer)
        report.begin()
        report.debug(f"wherry-oci {' '.join(words)}")
        code = _command(outer, report)
        _write_out()
    except (Exception, KeyboardInterrupt) as error:  # noqa: BLE001 - the last one who can say in a line what happened
        report.fault(_said(error, report))
        return FAILURE
    return code


def _write_out() -> None:
    """Write what was printed, and only then be done; raise RuntimeFault where nobody can have it."""
    try:
        sys.stdout.flush()
    except OSError as error:
        raise RuntimeFault.from_os(error, "write /dev/stdout") from error


def _said(error: BaseException, report: Report) -> str:
    """Give the line for any failure; the trace of a defect is for --debug only."""
    if isinstance(error, RuntimeFault):
        return "; ".join([str(error), *getattr(error, "__notes__", ())])  # what could not be undone
    if isinstance(error, OSError):
        return f"{error.filename}: {error.strerror}" if error.filename else str(error)
    if isinstance(error, RecursionError):
        return "the input is nested too deeply"
    if isinstance(error, KeyboardInterrupt):
        return "interrupted"
    if isinstance(error, MemoryError):
        return "not enough memory"
    if report.debugging:
        import traceback

        report.debug("".join(traceback.format_exception(error)))
    return f"a defect of wherry-oci, please report what --debug shows: {type(error).__name__}: {error}"


def _command(outer: Values, report: Report) -> int:
    if outer.flag("version"):
        from runtime.cli.help import print_version

        return print_version()
    name, *words = outer.arguments or ["help"]
    if outer.flag("help") or name in ("help", "h"):
        from runtime.cli.help import print_help

        return print_help(words[:1] if name in ("help", "h") else outer.arguments[:1])
    if name not in COMMANDS:
        report.fault(f"No help topic for '{name}'")
        return UNKNOWN_COMMAND
    values = _parse_command(name, words)
    if values.flag("help"):
        from runtime.cli.help import print_help

        return print_help([name])
    return _run(name, _context(outer, values, report))


def _parse_command(name: str, words: Sequence[str]) -> Values:
    _, _, least, most, interleaved, options, _ = COMMANDS[name]
    values = parse(declare(options), words, interleaved=interleaved)
    count = len(values.arguments)
    if not values.flag("help") and (count < least or (most is not None and count > most)):
        wanted = f"a minimum of {least}" if count < least else f"a maximum of {most}"
        wanted = f"exactly {least}" if least == most else wanted
        raise UsageFault(f'wherry-oci: "{name}" requires {wanted} argument(s)')
    return values


def _context(outer: Values, values: Values, report: Report) -> Context:
    from runtime.caution import listen
    from runtime.cli.context import Context

    listen(report.caution, report.debug if report.debugging else None)
    if outer.text("cgroup-manager", "cgroupfs") not in ("cgroupfs", "systemd", "disabled"):
        raise UsageFault(f'unknown cgroup manager "{outer.text("cgroup-manager")}": it is cgroupfs, systemd or disabled')
    if outer.text("log-format", "text") not in ("text", "json"):
        raise UsageFault(f'unknown log-format "{outer.text("log-format")}": it is text or json')
    if outer.text("rootless", "auto") not in ("auto", "true", "false"):
        raise UsageFault(f'invalid value "{outer.text("rootless")}" for flag -rootless: it is true, false or auto')
    return Context(
        root=os.path.abspath(outer.text("root") or default_root()),
        outer=outer,
        values=values,
        report=report,
    )


def default_root() -> str:
    """Give where state is kept: /run/wherry/oci, or for a user without privileges a folder of its own."""
    own = os.environ.get("XDG_RUNTIME_DIR")
    if own:
        from runtime.privilege import has_own_runtime_folder

        if has_own_runtime_folder():
            return os.path.join(own, "wherry", "oci")
    return "/run/wherry/oci"


def _run(name: str, context: Context) -> int:
    module, _, function = COMMANDS[name][-1].partition(":")
    handler = getattr(__import__(f"runtime.cli.{module}", fromlist=[function]), function)
    try:
        return int(handler(context))
    except Exception as error:
        if name not in _TOLD:
            raise
        return _failed(name, error, context.report)


def _failed(name: str, error: Exception, report: Report) -> int:
    said = _said(error, report)
    if isinstance(error, RuntimeFault) and error.kind == "start":  # runc's words: callers look for them
        said = f"unable to start container process: {said}"
    report.fault(f"exec failed: {said}" if name == "exec" else f"wherry-oci {name} failed: {said}")
    return EXEC_FAILURE if name == "exec" else FAILURE
