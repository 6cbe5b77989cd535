"""Entry of `wherry-oci`: before a container is touched, the interpreter becomes an image that nobody can write to.

`runtime.sealed` says why. It may start the interpreter again, so what is imported before is little. The launcher passes the
folder of this package, so that neither site nor a .pth file is needed to find it.
"""

import gc
import posix
import sys

from runtime import lean, pyc

SEALED = frozenset(("create", "exec", "run"))
"""Commands whose container must not find the host's Python behind /proc/self/exe."""
_PACKED = frozenset(("create", "delete", "exec", "kill", "list", "run", "start", "state"))
"""Commands that engines use all the time."""


def main() -> None:
    """Run `wherry-oci` with sys.argv and end the process, without finalising the interpreter: that only takes time."""
    gc.disable()  # a short process has little to collect
    if None in (sys.stdin, sys.stdout, sys.stderr):
        _open_missing()
    try:
        code = _run(sys.argv[1:])
    except BaseException as error:  # noqa: BLE001 - an installation that is not whole is a line too
        sys.stderr.write(f"wherry-oci: {type(error).__name__}: {error}\n")
        code = 1
    posix._exit(code)  # noqa: SLF001 - os, where the name is public, costs the first interpreter a millisecond


def _run(words: list[str]) -> int:
    lean.install()
    finder = pyc.install()
    command = next((word for word in words if word in _PACKED), "") if posix.geteuid() == 0 else ""
    if command:  # not without privileges: the seal would have it all done twice
        finder.unpack(command)
    if not SEALED.isdisjoint(words) and not _seal():  # a word that only looks like a command costs milliseconds, no more
        return 1
    from runtime.cli.command import command_line

    code = command_line(words)
    if command and code == 0:
        finder.pack(command)
    return code


def _open_missing() -> None:
    """Open what the caller closed of descriptors 0 to 2: else the next file would be taken for the output."""
    while (fd := posix.open("/dev/null", posix.O_RDWR)) <= 2:
        posix.set_inheritable(fd, True)
    posix.close(fd)
    for number, name in enumerate(("stdin", "stdout", "stderr")):
        if getattr(sys, name) is None:
            setattr(sys, name, open(number, "w" if number else "r", closefd=False))  # noqa: SIM115 - as long as the process lives


def _seal() -> bool:
    from runtime.sealed import seal

    try:
        seal()
    except OSError as error:
        sys.stderr.write(f"wherry-oci: seal the interpreter: {error.strerror}\n")
        return False
    return True
