"""Entry point of `make demo`: exit code 0 only when every check held and nothing was left."""

from __future__ import annotations

import os
import sys
from contextlib import suppress

import grpc

from tests.demo.show import CheckError, Show
from tests.demo.story import Story
from tests.support import snapshot
from tests.support.daemon import Wherryd
from tests.support.process import DaemonError
from tests.support.tools import MissingToolError

SHOWN = 30
"""Things left behind that are named."""


def main() -> int:
    """Tell the story; print the times whatever happens."""
    if os.geteuid() != 0:
        sys.stderr.write("make demo needs root: it makes namespaces, mounts and a network bridge\n")
        return 1
    os.environ.setdefault(snapshot.MARK, str(os.getpid()))
    show = Show()
    before = snapshot.take(fds=False)
    endpoint = Wherryd("wherrydemo0", "10.187.0.0/16")
    failure = ""
    try:
        Story(endpoint=endpoint, show=show, crash=endpoint.kill).tell()
    except (CheckError, DaemonError, MissingToolError, TimeoutError, OSError) as error:
        failure = f"{error}"
    except grpc.RpcError as error:
        failure = f"{error.code().name}: {error.details()}" if isinstance(error, grpc.Call) else str(error)
    log = endpoint.process.log_tail()
    if failure and endpoint.process.running:
        with suppress(grpc.RpcError, DaemonError):
            endpoint.stop()
    with show.step("look for anything left behind"):
        remains = [*endpoint.scrub(), *_left(before)]
    show.times()
    if failure:
        sys.stderr.write(f"\n✗ {failure}\n\nthe end of wherryd's log:\n{log}\n")
    elif remains:
        show.console.print("\n[bold red]✗ something was left behind[/]")
    else:
        show.check("no mount, link, rule, cgroup, process or file is left", holds=True)
        show.console.print(f"\n[bold green]all {show.checks} checks held[/]")
    show.say("\n".join(remains[:SHOWN]))
    return 1 if failure or remains else 0


def _left(before: snapshot.Snapshot) -> list[str]:
    return [f"{kind}: {name}" for kind, names in snapshot.leaks(before).items() for name in names]


if __name__ == "__main__":
    sys.exit(main())
