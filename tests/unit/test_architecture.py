"""The architecture as tests: who may import whom, and what nobody may do outside its one place."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from tests.unit.sources import PACKAGES, ROOT, Source, sources


def _offenders(found: list[tuple[Source, str]], allowed: tuple[str, ...] = ()) -> list[str]:
    return sorted({f"{source.path}: {name}" for source, name in found if not source.path.startswith(allowed or ("\0",))})


def _callers(*names: str) -> list[tuple[Source, str]]:
    return [(source, call) for source in sources(*PACKAGES) for call in source.calls() if call in names]


def _importers(*packages: str, folders: tuple[str, ...] = PACKAGES) -> list[tuple[Source, str]]:
    return [
        (source, name)
        for source in sources(*folders)
        for name in source.imports()
        if any(name == package or name.startswith(f"{package}.") for package in packages)
    ]


def test_import_contracts() -> None:
    program = str(Path(sys.executable).parent / "lint-imports")
    finished = subprocess.run([program, "--no-cache"], cwd=ROOT, capture_output=True, text=True, check=False)
    assert finished.returncode == 0, finished.stdout


def test_runtime_needs_nothing_but_python() -> None:
    """An OCI runtime starts an interpreter each time: every dependency would be paid for at every start."""
    outside = [
        (source, name)
        for source in sources("runtime")
        for name in source.imports()
        if name.partition(".")[0] not in sys.stdlib_module_names | {"runtime"}
    ]
    assert not _offenders(outside)


def test_forks_only_where_a_single_thread_is_certain() -> None:
    """A fork in a threaded process copies locks that nobody will ever release."""
    names = ("os.fork", "os.forkpty", "pty.fork", "os.posix_spawn", "os.posix_spawnp", "os.system", "os.popen")
    assert not _offenders(_callers(*names), ("runtime/kernel/",))


def test_subprocess_only_where_a_foreign_program_is_run() -> None:
    """Starting programs is the slow path, and its threads and signal masks are nobody's business elsewhere."""
    assert not _offenders(_importers("subprocess", "multiprocessing"), ("cni/executor",))


@pytest.mark.parametrize("name", ["time.sleep"])
def test_nobody_sleeps(name: str) -> None:
    """What waits, waits for something, with a deadline; only `wherry stats` waits for time: a rate needs two moments."""
    assert not _offenders(_callers(name, name.partition(".")[2]), ("shim/client/commands/usage",))


def test_no_pickles() -> None:
    """What crosses a process boundary is a value that anybody can read. (A .pyc crosses none.)"""
    assert not _offenders(_importers("pickle", "marshal", "shelve"), ("runtime/pyc",))


def test_pyroute2_is_for_tests() -> None:
    """It takes 100 ms and 20 MB to import: it judges our netlink code from outside (tests/system/test_cni_reader)."""
    assert not _offenders(_importers("pyroute2"))


def test_grpc_stays_out_of_what_forks() -> None:
    """Importing grpc starts threads; the spawner, the monitors and the image store's jobs must not have any."""
    folders = ("shim/spawner", "shim/monitor", "shim/image/unpack", "runtime", "cni")
    assert not _offenders(_importers("grpc", "shim.gen", folders=folders))


def test_the_command_for_people_is_a_client() -> None:
    """`wherry` speaks to any CRI endpoint: it knows the wire and nothing of the daemon behind it."""
    known = ("shim.gen", "shim.client", "shim.streaming", "shim.errors")  # streaming: the wire of exec, in the client's role
    inside = _importers("shim", "runtime", "cni", folders=("shim/client",))
    assert not _offenders([(source, name) for source, name in inside if not name.startswith(known)])


def test_nothing_generated_is_committed() -> None:
    try:
        listed = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True, check=True)
    except (OSError, subprocess.CalledProcessError):
        pytest.skip("not a git checkout")
    assert not [name for name in listed.stdout.splitlines() if name.startswith("shim/gen/") or "_pb2" in name]
