"""`wherryd`: what happens before the daemon, in this order and with nothing but the standard library.

1  options that only print something print it and end
2  the interpreter runs again from a sealed image: no container may ever write to the host's Python (invariant 1)
3  the spawner is forked, while this process has no thread and no grpc
4  shim.daemon is imported and takes over
"""

from __future__ import annotations

import os
import sys

from shim import wire


def main() -> int:
    """Run wherryd and give its exit status."""
    from runtime.sealed import is_sealed  # noqa: PLC0415 - needed once

    argv = sys.argv[1:]
    status = None if is_sealed() else _print_only(argv)
    if status is not None:
        return status
    try:
        _seal()
    except OSError as error:
        sys.stderr.write(f"wherryd: the interpreter cannot be sealed: {error}\n")
        return 1
    from runtime.kernel.prctl import set_name  # noqa: PLC0415 - needed once

    set_name("wherryd")  # the kernel named it after the memfd it was executed from
    ours, theirs = wire.pair()
    pid = _fork_spawner(ours.fileno(), theirs.fileno())
    theirs.close()
    _hide_rich()
    from shim import daemon  # noqa: PLC0415 - it imports grpc, whose threads the spawner must not inherit

    return daemon.main(argv, ours, pid)


def _hide_rich() -> None:
    """Have structlog find no rich: it would import it for tracebacks we never print, with three more libraries and 5 MB."""
    sys.modules["rich"] = None  # type: ignore[assignment]  # so the import system is told that there is none
    import structlog  # noqa: F401, PLC0415 - for the look it takes at rich

    del sys.modules["rich"]


def _print_only(argv: list[str]) -> int | None:
    """Serve --help, --version and `config default` without starting anything; None when there is a daemon to run."""
    from shim.errors import InvalidArgument  # noqa: PLC0415 - after the sealed start they would be imported twice
    from shim.options import parse, print_only  # noqa: PLC0415 - as above

    try:
        return print_only(parse(argv))
    except InvalidArgument as error:
        sys.stderr.write(f"wherryd: {error}\n")
        return 2


def _seal() -> None:
    from runtime.sealed import reexec  # noqa: PLC0415 - needed once

    reexec()


def _fork_spawner(ours: int, theirs: int) -> int:
    import gc  # noqa: PLC0415 - needed once

    from shim.process import fork  # noqa: PLC0415 - needed once

    gc.freeze()  # a collection writes to what it looks at: the spawner shares these pages with the daemon
    pid = fork()
    if pid == 0:
        from shim.spawner import forks  # noqa: PLC0415 - before the imports it is about

        forks.defer()
        import socket  # noqa: PLC0415 - needed once

        from shim.spawner.server import run_spawner  # noqa: PLC0415 - imports what only the spawner needs

        os.close(ours)
        run_spawner(socket.socket(fileno=theirs))
    return pid


if __name__ == "__main__":
    sys.exit(main())
