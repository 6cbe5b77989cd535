"""Entry of `wherry-oci`. A command that lets a program into a container first moves to a sealed interpreter.

The seal comes before everything else is imported, because all that would be imported twice.
"""

from __future__ import annotations

import sys

SEALED = frozenset(("create", "exec", "run"))
"""Commands whose container must not find the host's Python behind /proc/self/exe; `runtime.sealed` says why."""


def main() -> int:
    """Run `wherry-oci` with sys.argv and give its exit code."""
    if not SEALED.isdisjoint(sys.argv):  # a word that only looks like the command costs a few milliseconds, no more
        from runtime.sealed import reexec

        try:
            reexec("runtime.cli.main", sys.argv[1:], name=sys.argv[0])
        except OSError as error:
            sys.stderr.write(f"wherry-oci: seal the interpreter: {error.strerror}\n")
            return 1
    from runtime.cli.command import command_line

    return command_line(sys.argv[1:])


if __name__ == "__main__":
    sys.exit(main())
