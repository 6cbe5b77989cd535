"""Say what went wrong the way runc does, because containerd, podman and CRI-O read it from the log file.

With --log, the file gets one record and standard error the plain text; without it, standard error gets the record.
"""

from __future__ import annotations

import os
import sys

from runtime.errors import UsageFault, cut

TYPE_CHECKING = False
if TYPE_CHECKING:
    from runtime.cli.options import Values


class Report:
    """Where errors go and in which form."""

    def __init__(self, values: Values | None = None) -> None:
        self._path = values.text("log") if values is not None else ""
        self.debugging = values is not None and (values.flag("debug") or values.text("log-level") == "debug")
        self._json = values is not None and values.text("log-format", "text") == "json"

    def begin(self) -> None:
        """Make the log file; raise UsageFault where it cannot be written: who reads it would wait for nothing."""
        if self._path:
            try:
                os.close(self._open())
            except OSError as error:
                path, self._path = self._path, ""
                raise UsageFault(f"open the log {path}: {(error.strerror or '').lower()}") from None

    def _open(self) -> int:
        return os.open(self._path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o644)

    def fault(self, message: str) -> None:
        """Record an error, in one line."""
        self._record("error", message)
        if self._path:
            _to_stderr(" ".join(cut(message).splitlines()))

    def caution(self, message: str) -> None:
        """Record a warning, in one line."""
        self._record("warning", message)

    def debug(self, message: str) -> None:
        """Record what was done, in one line, with --debug only."""
        if self.debugging:
            self._record("debug", message)

    def _record(self, level: str, message: str) -> None:
        message = " ".join(cut(message).splitlines())
        if not self._path:
            _to_stderr(_terminal_form(level, message) if self._on_terminal() else self._form(level, message))
            return
        try:
            fd = self._open()
            try:
                os.write(fd, (self._form(level, message) + "\n").encode("utf-8", "surrogateescape"))
            finally:
                os.close(fd)
        except OSError as error:
            _to_stderr(f"cannot write the log {self._path}: {error.strerror}")

    def _on_terminal(self) -> bool:
        return not self._json and os.isatty(2)

    def _form(self, level: str, message: str) -> str:
        from time import gmtime, strftime

        now = strftime("%Y-%m-%dT%H:%M:%SZ", gmtime())
        if self._json:
            from runtime.jsonlite import dumps

            return dumps({"level": level, "msg": message, "time": now})
        return f'time="{now}" level={level} msg={quote(message)}'


def quote(message: str) -> str:
    """Quote as logfmt readers (and Go's %q) expect: backslash, quote and what cannot be printed are escaped."""
    parts = []
    for letter in message:
        if letter in '"\\':
            parts.append("\\" + letter)
        elif letter.isprintable():
            parts.append(letter)
        else:
            parts.append({"\n": "\\n", "\t": "\\t", "\r": "\\r"}.get(letter, f"\\u{ord(letter):04x}"))
    return '"' + "".join(parts) + '"'


def _terminal_form(level: str, message: str) -> str:
    return f"{level.upper()[:4]}[0000] {message}"


def _to_stderr(line: str) -> None:
    for write in (sys.stdout.flush, lambda: os.write(2, (line + "\n").encode("utf-8", "backslashreplace"))):
        try:
            write()
        except OSError:
            continue  # nobody is there to read it
