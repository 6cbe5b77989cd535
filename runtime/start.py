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
    words = sys.argv[1:]
    gc.disable()  # a short process has little to collect
    lean.install()
    finder = pyc.install()
    command = next((word for word in words if word in _PACKED), "") if posix.geteuid() == 0 else ""
    if command:  # not without privileges: the seal would have it all done twice
        finder.unpack(command)
    code = 1
    if SEALED.isdisjoint(words) or _seal():  # a word that only looks like a command costs a few milliseconds, no more
        from runtime.cli.command import command_line

        code = command_line(words)
        if command and code == 0:
            finder.pack(command)
    sys.stdout.flush()
    sys.stderr.flush()
    posix._exit(code)  # noqa: SLF001 - os, where the name is public, costs the first interpreter a millisecond


def _seal() -> bool:
    from runtime.sealed import seal

    try:
        seal()
    except OSError as error:
        sys.stderr.write(f"wherry-oci: seal the interpreter: {error.strerror}\n")
        return False
    return True
