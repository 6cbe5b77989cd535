"""The runtime under judgement, a bundle for each test, the known deviations, and what is said about a failure."""

from __future__ import annotations

import os
import shlex
import shutil
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from conformance.oci.support import criu, host, wait
from conformance.oci.support.case import Case
from conformance.oci.support.runtime import Runtime, identify
from conformance.oci.support.saving import Saving
from conformance.support import verdicts

if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Iterator

SPECIFICATION = "https://github.com/opencontainers/runtime-spec/blob/v1.3.0/"
runtime_key = pytest.StashKey[Runtime]()
TABLE = Path(__file__).with_name("deviations.toml")


def pytest_addoption(parser: pytest.Parser) -> None:
    """Name the binary and what it is always called with."""
    group = parser.getgroup("OCI runtime")
    group.addoption("--runtime", default=os.environ.get("OCI_RUNTIME", "runc"), help="the binary to judge (default: runc)")
    group.addoption("--runtime-args", default="", help='global options for every call, such as "--systemd-cgroup"')


def pytest_configure(config: pytest.Config) -> None:
    """Find the runtime before anything is collected: the deviations depend on its version."""
    try:
        config.stash[runtime_key] = identify(
            config.getoption("--runtime"), tuple(shlex.split(config.getoption("--runtime-args")))
        )
    except ValueError as error:
        raise pytest.UsageError(str(error)) from error
    verdicts.configure(config)
    wait.adopt_orphans()


def pytest_report_header(config: pytest.Config) -> str:
    """Say who is judged and where."""
    runtime = config.stash[runtime_key]
    layout = "v2" if host.v2() else "hybrid" if host.cgroup_mounts().get("") else "v1"
    version = ".".join(map(str, runtime.version))
    return f"judged: {runtime.name} {version} ({runtime.path}); host: Linux {os.uname().release}, cgroup {layout}"


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Expect the known deviations to fail."""
    verdicts.expect(items, config.stash[runtime_key], TABLE)
    if os.geteuid() != 0:
        for item in items:
            item.add_marker(pytest.mark.skip(reason="host: the judge must be root"))


@pytest.hookimpl(wrapper=True)
def pytest_pyfunc_call(pyfuncitem: pytest.Function) -> Generator[None, object, object]:
    """Judge what is left behind as part of the test."""
    return (yield from verdicts.judge_leaks(pyfuncitem, "case", "delete (runtime.md#delete)"))


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item, call: pytest.CallInfo[None]
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Put the rule and the section of the specification under a failure."""
    report = yield
    return verdicts.cite(item, call, report, SPECIFICATION)


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Name the deviations that are none any more."""
    verdicts.name_outdated(terminalreporter, TABLE)


@pytest.fixture(scope="session")
def runtime(pytestconfig: pytest.Config) -> Runtime:
    """Give the runtime under judgement."""
    return pytestconfig.stash[runtime_key]


@pytest.fixture(scope="session")
def scratch() -> Iterator[Path]:
    """Give a folder with a short name (a socket's path has at most 107 bytes) that containers' users can pass through."""
    folder = Path(tempfile.mkdtemp(prefix="judge"))
    os.chmod(folder, 0o755)
    yield folder
    shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture(scope="session")
def busybox(scratch: Path) -> Path:
    """Give the one program of all roots: OCI_BUSYBOX, or what is installed as busybox; it must be static."""
    found = os.environ.get("OCI_BUSYBOX") or shutil.which("busybox")
    if found is None:
        pytest.exit("the judge needs a static busybox: install busybox-static, or set OCI_BUSYBOX to one", 4)
    if b"ld-linux" in Path(found).read_bytes()[:4096] or b"ld-musl" in Path(found).read_bytes()[:4096]:
        pytest.exit(f"{found} is not static: install busybox-static, or set OCI_BUSYBOX to a static one", 4)
    copy = scratch / "busybox"
    shutil.copyfile(found, copy)
    os.chmod(copy, 0o755)
    return copy


@pytest.fixture
def case(runtime: Runtime, busybox: Path, scratch: Path) -> Case:
    """Give a bundle; it is closed, and its leaks judged, as part of the test."""
    return Case(runtime, busybox, scratch)


@pytest.fixture
def saving(case: Case, runtime: Runtime) -> Saving:
    """Give a container to be saved, where the runtime and a criu can."""
    criu.need(runtime)
    return Saving(case)


@pytest.fixture(scope="module")
def shared(runtime: Runtime, busybox: Path, scratch: Path) -> Iterator[Callable[[], Case]]:
    """Make bundles for many tests of a file that only look at what one container saw."""
    made: list[Case] = []

    def make() -> Case:
        made.append(Case(runtime, busybox, scratch))
        return made[-1]

    yield make
    left = [thing for case in made for thing in case.close()]
    if left:
        pytest.fail("left behind after delete (runtime.md#delete):\n  " + "\n  ".join(left), pytrace=False)


@pytest.fixture
def source(case: Case) -> Path:
    """Make a folder of the host to be mounted."""
    folder = case.bundle / "source"
    folder.mkdir()
    (folder / "file").write_text("host's\n")
    return folder
