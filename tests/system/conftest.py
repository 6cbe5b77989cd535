"""Fixtures of the system tests: the leak check around every test, images, registries, daemons and peers."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

import pytest

from tests.support import images, snapshot
from tests.support.cri import PodMaker
from tests.support.daemon import BUSYBOX, Containerd, Endpoint, Wherryd
from tests.support.registry import Registry
from tests.support.tools import MissingToolError, find_tool, in_ci
from tests.system.oci_node import oci, ours  # noqa: F401 - fixtures of every test_oci file

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

PEER = "WHERRY_TEST_PEER"

T = TypeVar("T")
D = TypeVar("D", bound=Endpoint)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Skip what needs root for everybody else."""
    if os.geteuid() == 0:
        return
    skip = pytest.mark.skip(reason="needs root: run the tests with sudo")
    for item in items:
        if item.get_closest_marker("system"):
            item.add_marker(skip)


@pytest.fixture(autouse=True)
def no_leaks(request: pytest.FixtureRequest) -> Iterator[None]:
    """Fail a test after which a mount, link, rule, cgroup, process, descriptor or file is there that was not before."""
    before = snapshot.take()
    yield
    left = snapshot.leaks(before)
    if left:
        lines = [f"  {kind}: {name}" for kind, names in left.items() for name in names[:10]]
        pytest.fail(f"{request.node.name} left behind:\n" + "\n".join(lines), pytrace=False)


def _or_skip(make: Callable[[], T]) -> T:
    """Make something that needs a program; skip at home, fail in CI, when the program is missing."""
    try:
        return make()
    except MissingToolError as error:
        if in_ci():
            pytest.fail(str(error), pytrace=False)
        pytest.skip(str(error))


@pytest.fixture
def tool() -> Callable[[str], str]:
    """Give the path of a program; skip (in CI fail) when it is not installed."""
    return lambda name: _or_skip(lambda: find_tool(name))


@pytest.fixture
def short_dir() -> Iterator[Path]:
    """Give a new directory with a short name (a socket's path has at most 107 bytes), gone afterwards."""
    with tempfile.TemporaryDirectory(prefix="wherry-t") as name:
        yield Path(name)


@pytest.fixture(scope="session")
def busybox() -> images.TestImage:
    """Give the image most tests use."""
    return _or_skip(images.busybox_image)


@pytest.fixture
def busybox_rootfs(short_dir: Path) -> Path:
    """Give a directory with a static busybox root."""
    root = short_dir / "rootfs"
    _or_skip(lambda: images.unpack_busybox(root))
    return root


@pytest.fixture(scope="session")
def shared_registry() -> Iterator[Registry]:
    """Give one registry without authentication for the whole run."""
    with tempfile.TemporaryDirectory(prefix="wherry-t") as folder:
        registry = _or_skip(lambda: Registry(Path(folder)))
        registry.start()
        yield registry
        registry.stop()


@pytest.fixture
def registry(short_dir: Path) -> Iterator[Registry]:
    """Give an empty registry without authentication."""
    registry = _or_skip(lambda: Registry(short_dir / "registry"))
    registry.start()
    yield registry
    registry.stop()


@pytest.fixture
def wherryd(request: pytest.FixtureRequest) -> Iterator[Wherryd]:
    """Give a private wherryd with the busybox image loaded; what it leaves when it has stopped fails the test.

    Parametrize it indirectly with a dict of Wherryd's arguments to change its configuration. With the variable
    WHERRY_TEST_PEER=runc (or crun) it is a containerd instead: what fails there may be the test's fault.
    """
    options = getattr(request, "param", {})
    peer = os.environ.get(PEER)
    if peer:
        yield from _serve(request, _or_skip(lambda: Containerd("wtest0", "10.189.0.0/16", runtime=peer)))
        return
    yield from _serve(request, _or_skip(lambda: Wherryd(**options)))


@pytest.fixture
def containerd(request: pytest.FixtureRequest) -> Iterator[Containerd]:
    """Give a private containerd with runc, its pause image and the busybox image: the peer to compare with."""
    options = {"name": "wpeer0", "subnet": "10.190.0.0/16"} | getattr(request, "param", {})
    yield from _serve(request, _or_skip(lambda: Containerd(**options)))


def _serve(request: pytest.FixtureRequest, daemon: D) -> Iterator[D]:
    errors: list[str] = []
    try:
        daemon.start()
        daemon.load({BUSYBOX: images.busybox_image()})
        yield daemon
        daemon.stop()
    except Exception as error:  # noqa: BLE001 - whatever it is, the daemon's traces go first
        errors.append(f"{type(error).__name__}: {error}")
    finally:
        log = daemon.process.log_tail(200)
        errors += [f"left by {daemon.name}: {thing}" for thing in daemon.scrub()]
        request.node.add_report_section("teardown", f"log of {daemon.name}", log)
    if errors:
        pytest.fail("\n".join([*errors, log]), pytrace=False)


@pytest.fixture
def pods(wherryd: Wherryd) -> PodMaker:
    """Make configurations for the private wherryd."""
    return PodMaker(logs=str(wherryd.logs))
