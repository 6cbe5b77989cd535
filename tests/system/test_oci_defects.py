"""What no document asks for: descriptors that are closed or full, sockets that are not there, an output nobody can have."""

from __future__ import annotations

import os
import subprocess
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from tests.system.oci_node import Oci

pytestmark = pytest.mark.system


def shell(node: Oci, command: str) -> subprocess.CompletedProcess[str]:
    """Run a shell's command line; $0 is the runtime with its state directory."""
    line = command.replace("RUNTIME", f"{node.program} --root {node.root}")
    return subprocess.run(["sh", "-c", line], capture_output=True, text=True, check=False, cwd=node.bundle, timeout=60)


@pytest.mark.parametrize("closed", ["<&-", ">&-", "2>&-", "<&- >&- 2>&-"])
def test_closed_descriptors(ours: Oci, closed: str) -> None:
    """They become /dev/null: nothing the runtime opens is taken for its output, or the container's; as with runc, not crun."""
    ours.write("sh", "-c", "for fd in 0 1 2; do test -e /proc/self/fd/$fd || exit 7; done; echo out; echo err >&2")
    done = shell(ours, f"RUNTIME run {ours.new_id()} {closed}")
    assert done.returncode == 0, done.stderr
    assert done.stdout == ("" if ">&-" in closed.split() else "out\n")


@pytest.mark.parametrize("command", ["features", "--version", "help"])
def test_an_output_that_is_full(ours: Oci, command: str) -> None:
    done = shell(ours, f"RUNTIME {command} > /dev/full")
    assert done.returncode == 1
    assert "write /dev/stdout: no space left on device" in done.stderr
    assert len(done.stderr.splitlines()) == 1


@pytest.mark.parametrize("command", ["create", "run", "run --detach"])
def test_a_pidfd_socket_that_is_not_there(ours: Oci, command: str) -> None:
    """The container exists by then: it goes again."""
    ours.write("sleep", "100")
    name = ours.new_id()
    done = shell(ours, f"RUNTIME {command} --pidfd-socket /none/such {name} < /dev/null")
    assert done.returncode == 1
    assert done.stderr.count("level=error") == 1
    assert ours.call("state", name).returncode == 1
    assert os.listdir(ours.root) == []
