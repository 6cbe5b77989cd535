"""state, list, ps and spec: what is printed or written for people and for other programs."""

from __future__ import annotations

import os
import sys

from runtime import api
from runtime.errors import RuntimeFault, UsageFault
from runtime.jsonlite import dumps

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import Any

    from runtime.cli.context import Context
    from runtime.state import ContainerState

_FORMATS = ("table", "json")


def _public(state: ContainerState) -> dict[str, Any]:
    value = state.public()
    if not value.get("annotations"):
        value.pop("annotations", None)
    return value


def state(context: Context) -> int:
    """Print a container's state."""
    sys.stdout.write(dumps(_public(api.state(context.root, context.container_id)), "  ") + "\n")
    return 0


def _format(context: Context) -> str:
    wanted = context.values.text("format", "table")
    if wanted not in _FORMATS:
        raise UsageFault("invalid format option: it is table or json")
    return wanted


def list_containers(context: Context) -> int:
    """Print every container."""
    wanted = _format(context)
    if context.root_given and not os.path.isdir(context.root):
        raise UsageFault(f"open {context.root}: no such directory: containers have no state there")
    states = api.list_containers(context.root)
    if context.values.flag("quiet"):
        sys.stdout.write("".join(f"{state.id}\n" for state in states))
    elif wanted == "json":
        sys.stdout.write((dumps([_public(state) for state in states]) if states else "null") + "\n")
    else:
        rows = [("ID", "PID", "STATUS", "BUNDLE", "CREATED", "OWNER")]
        for found in states:
            public = found.public()
            rows.append((found.id, str(public["pid"]), found.status, found.bundle, found.created, found.owner))
        sys.stdout.write(table(rows))
    return 0


def table(rows: Sequence[Sequence[str]]) -> str:
    """Align columns: each at least twelve wide, three spaces apart."""
    widths = [max(12, *(len(row[column]) + 3 for row in rows)) for column in range(len(rows[0]) - 1)]
    lines = []
    for row in rows:
        cells = [cell.ljust(width) for cell, width in zip(row, widths, strict=False)]
        lines.append("".join(cells) + row[-1] + "\n")
    return "".join(lines)


def ps(context: Context) -> int:
    """Show which processes the container has: as the ps command does, or only their ids as JSON."""
    wanted = _format(context)
    pids = api.ps(context.root, context.container_id)
    if wanted == "json":
        sys.stdout.write(dumps(pids) + "\n")
        return 0
    options = context.values.arguments[1:] or ["-ef"]
    sys.stdout.write(select_processes(_run_ps(options), set(pids)))
    return 0


def _run_ps(options: Sequence[str]) -> str:
    from runtime.kernel.spawn import spawn, wait

    path = next((path for path in ("/usr/bin/ps", "/bin/ps") if os.access(path, os.X_OK)), None)
    if path is None:
        raise RuntimeFault("the ps command is not installed: install procps, or use --format json", step="list processes")
    reader, writer = os.pipe2(os.O_CLOEXEC)
    child = spawn(["ps", *options], dict(os.environ), (0, writer, 2), path=path)
    os.close(writer)
    with open(reader, "rb") as output:
        text = output.read().decode("utf-8", "replace")
    if code := wait(child):
        raise RuntimeFault(f"ps {' '.join(options)} exited with {code}", step="list processes")
    return text


def select_processes(text: str, pids: set[int]) -> str:
    """Keep the heading of ps's output and the lines of these processes; raise RuntimeFault without a PID column."""
    lines = text.splitlines()
    columns = lines[0].split() if lines else []
    if "PID" not in columns:
        raise RuntimeFault("couldn't find PID field in ps output: let the ps options print it", step="list processes")
    place = columns.index("PID")
    kept = [lines[0]]
    for line in lines[1:]:
        fields = line.split()
        if len(fields) > place and fields[place].isdigit() and int(fields[place]) in pids:
            kept.append(line)
    return "\n".join(kept) + "\n"


def spec(context: Context) -> int:
    """Write a new config.json into the bundle; an existing one stays as it is."""
    from runtime.spec.defaults import default_spec

    rootless = context.values.flag("rootless")
    user = (os.geteuid(), os.getegid())
    unified = os.path.exists("/sys/fs/cgroup/cgroup.controllers")
    document = default_spec(rootless=rootless, user=user, cgroup_namespace=unified)
    path = os.path.join(context.values.text("bundle", "."), "config.json")
    try:
        fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o666)
    except FileExistsError:
        raise UsageFault(f"file {path} exists: remove it first") from None
    except OSError as error:
        raise RuntimeFault.from_os(error, "write config.json", path=path) from error
    with open(fd, "w", encoding="utf-8") as file:
        file.write(dumps(document, "\t") + "\n")
    return 0
