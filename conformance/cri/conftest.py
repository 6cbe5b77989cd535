"""Options and fixtures of the suite."""

from __future__ import annotations

import json
import os
import shutil
import tempfile
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

import grpc
import pytest

from conformance.cri.deviations import deviation
from conformance.cri.seen import Seen
from conformance.cri.subject import Pod, Subject, cgroups
from shim.gen.runtime.v1 import api_pb2
from tests.support.cri import Cri
from tests.support.images import busybox_image, files_layer
from tests.support.registry import Registry
from tests.support.tools import MissingToolError

if TYPE_CHECKING:
    from collections.abc import Iterator

SUBJECT = pytest.StashKey[Subject]()


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add the suite's options."""
    group = parser.getgroup("cri", "CRI conformance")
    group.addoption("--endpoint", default="", metavar="URL", help="runtime endpoint, such as unix:///run/wherry/wherry.sock")
    group.addoption("--image-endpoint", default="", metavar="URL", help="image endpoint, when it is another")
    group.addoption("--image", default="", metavar="REF", help="image with a busybox that is there or can be pulled")
    group.addoption(
        "--cgroup-parent", default="/conformance-cri", metavar="PATH", help="cgroup of the pods, as kubelet names it"
    )
    group.addoption("--cdi-dir", default="/var/run/cdi", metavar="PATH", help="directory that the runtime reads CDI files from")
    group.addoption("--fields", default="", metavar="FILE", help="write which field which test was the first to meet, as JSON")
    group.addoption("--handler", default="", metavar="NAME", help="runtime handler of the pods")


def pytest_configure(config: pytest.Config) -> None:
    """Connect, so that the peer is known when its deviations are looked up."""
    address = config.getoption("--endpoint")
    if not address:
        return
    seen = Seen()
    cri = Cri(address, seen)
    image_address = config.getoption("--image-endpoint")
    try:
        version = cri.runtime.Version(api_pb2.VersionRequest(), timeout=10, wait_for_ready=True)
    except grpc.RpcError as error:
        raise pytest.UsageError(f"{address} does not answer Version: {error.code().name} {error.details()}") from error
    config.stash[SUBJECT] = Subject(
        cri=cri,
        images=Cri(image_address, seen) if image_address else cri,
        image=config.getoption("--image"),
        logs=Path(tempfile.mkdtemp(prefix="wherry-t")),
        handler=config.getoption("--handler"),
        cgroup_parent=config.getoption("--cgroup-parent"),
        cdi_dir=Path(config.getoption("--cdi-dir")),
        seen=seen,
        name=version.runtime_name,
        version=version.runtime_version.lstrip("v"),
    )


def pytest_unconfigure(config: pytest.Config) -> None:
    """Leave nothing."""
    subject = config.stash.get(SUBJECT, None)
    if subject is None:
        return
    subject.sweep()
    if config.getoption("--fields"):
        Path(config.getoption("--fields")).write_text(json.dumps(subject.seen.fields, indent=1), encoding="utf-8")
    if subject.registry is not None:
        subject.registry.stop()
    shutil.rmtree(subject.logs, ignore_errors=True)
    for folder in cgroups(subject.cgroup_parent):
        with suppress(OSError):
            os.rmdir(folder)
    subject.cri.close()


def pytest_report_header(config: pytest.Config) -> str:
    """Say who is judged."""
    subject = config.stash.get(SUBJECT, None)
    return f"endpoint: {subject.name} {subject.version}" if subject else "endpoint: none; give --endpoint"


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Mark what the peer is known to do otherwise: it must fail, or the table is wrong."""
    subject = config.stash.get(SUBJECT, None)
    if subject is None:
        raise pytest.UsageError("which endpoint? give --endpoint unix:///path")
    for item in items:
        found = deviation(subject.name, subject.version, f"{Path(item.path).stem.removeprefix('test_')}::{item.name}")
        if found is not None:
            item.add_marker(pytest.mark.xfail(reason=found.reason, strict=found.always, run=found.run))


@pytest.fixture(scope="session")
def endpoint(pytestconfig: pytest.Config) -> Subject:
    """Give the endpoint with an image; without --image a registry of our own serves one."""
    subject = pytestconfig.stash[SUBJECT]
    if not subject.image:
        try:
            subject.registry = Registry(subject.logs / "registry").start()
        except MissingToolError as error:
            pytest.fail(f"{error}; or name an image with --image", pytrace=False)
        folder = files_layer({"data/sub/file": "of the image\n", "data/other": "beside\n"})
        subject.image = subject.registry.push("conformance/busybox", "1", busybox_image(extra=(folder,)))
    present = subject.images.images.ImageStatus(
        api_pb2.ImageStatusRequest(image=api_pb2.ImageSpec(image=subject.image)), timeout=10
    )
    if not present.image.id:
        subject.images.pull(subject.image)
    return subject


@pytest.fixture(autouse=True)
def subject(endpoint: Subject) -> Iterator[Subject]:
    """Give the endpoint; the test's pods are gone afterwards."""
    shared = list(endpoint.made)
    endpoint.made.clear()
    yield endpoint
    endpoint.clean()
    endpoint.made.extend(shared)


@pytest.fixture
def registry(subject: Subject) -> Registry:
    """Give the suite's registry."""
    if subject.registry is None:
        pytest.skip("needs the suite's own registry: leave --image out")
    return subject.registry


@pytest.fixture
def pod(subject: Subject) -> Pod:
    """Give a pod of the test's own, in the node's network."""
    return subject.run()


@pytest.fixture(scope="session")
def shared_pod(endpoint: Subject) -> Iterator[Pod]:
    """Give a pod that all tests share: for containers that disturb nobody."""
    pod = endpoint.run()
    endpoint.made.remove(pod.id)
    yield pod
    endpoint.cri.remove_pod(pod.id)


@pytest.fixture(scope="session")
def sleeper(shared_pod: Pod) -> str:
    """Give a running container that all tests share: they may look and execute."""
    return shared_pod.run(name="sleeper")
