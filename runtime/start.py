"""Entry of `wherry-oci`: an interpreter starts twice, the first time only to become an image that nobody can write to.

The first one imports this file and `runtime.sealed`, which says why; all else would be imported twice. The launcher passes
the folder of this package, so that neither site nor a .pth file is needed to find it.
"""

from __future__ import annotations

import posix
import sys

SEALED = frozenset(("create", "exec", "run"))
"""Commands whose container must not find the host's Python behind /proc/self/exe."""


def main() -> None:
    """Run `wherry-oci` with sys.argv and end the process, without finalising the interpreter: that only takes time."""
    words = sys.argv[1:]
    code = 1
    if SEALED.isdisjoint(words) or _seal():  # a word that only looks like a command costs a few milliseconds, no more
        code = _run(words)
    sys.stdout.flush()
    sys.stderr.flush()
    posix._exit(code)  # noqa: SLF001 - os, where the name is public, costs the first interpreter a millisecond


def _seal() -> bool:
    from runtime.sealed import reexec

    try:
        reexec()
    except OSError as error:
        sys.stderr.write(f"wherry-oci: seal the interpreter: {error.strerror}\n")
        return False
    return True


def _run(words: list[str]) -> int:
    import gc

    gc.disable()  # a short process has little to collect
    from runtime import pyc

    pyc.install()
    from runtime.cli.command import command_line

    return command_line(words)
