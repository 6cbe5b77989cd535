"""NRI's way into the daemon: the socket, what is noted without plugins, and what is not even imported."""

from __future__ import annotations

import asyncio
import os
import socket
import subprocess
import sys
from typing import TYPE_CHECKING, Any

import pytest

from shim.config import NriConfig
from tests.unit.shim.fakes import container_config, make_node, pod_config

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable
    from pathlib import Path

    from shim.pod.node import Node

UNWANTED = (
    "shim.nri.exchange",
    "shim.nri.link",
    "shim.gen.nri",
    "shim.gen.ttrpc",
    "shim.cdi.document",
    "shim.cdi.edits",
    "yaml",
)


def test_a_node_without_plugins_and_devices_imports_nothing_of_them() -> None:
    program = f"import sys, shim.daemon; print([name for name in {UNWANTED!r} if name in sys.modules])"
    run = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert run.stdout.strip() == "[]"


@pytest.fixture
async def node_with(tmp_path: Path) -> AsyncIterator[Callable[..., Node]]:
    """Make nodes with settings of NRI, and end their threads."""
    made: list[Node] = []

    def make(**settings: Any) -> Node:
        nri = NriConfig(plugin_dir=str(tmp_path / "p"), plugin_config_dir=str(tmp_path / "c"), **settings)
        made.append(make_node(tmp_path, nri=nri)[0])
        return made[-1]

    yield make
    for node in made:
        node.network.close()
        node.workers.close()
        node.database.close()


async def test_the_socket_is_ours_alone(tmp_path: Path, node_with: Callable[..., Node]) -> None:
    path = str(tmp_path / "deep" / "s")
    node = node_with(socket=path)
    os.mkdir(tmp_path / "deep")
    with socket.socket(socket.AF_UNIX) as stale:
        stale.bind(path)  # nobody listens: what a crash leaves behind
    await node.nri.start()
    assert os.stat(path).st_mode & 0o777 == 0o600
    assert node.nri.describe() == {"socket": path, "plugins": []}
    assert node.nri.active is None
    reader, writer = await asyncio.open_unix_connection(path)
    writer.write(b"no frame of ours")
    assert await reader.read() == b""
    writer.close()
    await node.nri.close()
    assert not os.path.exists(path)


async def test_a_socket_that_another_runtime_serves_is_left_alone(tmp_path: Path, node_with: Callable[..., Node]) -> None:
    path = str(tmp_path / "s")
    node = node_with(socket=path)
    with socket.socket(socket.AF_UNIX) as other:
        other.bind(path)
        other.listen()
        before = os.stat(path).st_ino
        await node.nri.start()
        assert node.nri.describe()["socket"] == ""
        await node.nri.close()
        assert os.stat(path).st_ino == before


async def test_a_socket_that_cannot_be_made_is_no_end(tmp_path: Path, node_with: Callable[..., Node]) -> None:
    (tmp_path / "file").touch()
    node = node_with(socket=f"{tmp_path}/file/s")
    await node.nri.start()
    await node.nri.close()


async def test_disabled(tmp_path: Path, node_with: Callable[..., Node]) -> None:
    node = node_with(socket=f"{tmp_path}/s", enable=False)
    await node.nri.start()
    assert not os.path.exists(f"{tmp_path}/s")
    await node.nri.close()


async def test_what_is_on_its_way_is_noted_without_plugins(node_with: Callable[..., Node]) -> None:
    from shim.container.create import create_container
    from shim.pod.run import run_pod_sandbox

    node = node_with(enable=False)
    seen = []
    real = node.nri.create_container

    async def create(pod, container, config):
        config = await real(pod, container, config)
        seen.append(list(node.nri.pending_containers))
        return config

    node.nri.create_container = create
    pod = await run_pod_sandbox(node, pod_config(), "")
    container = await create_container(node, pod, container_config())
    assert seen == [[container]]
    assert (node.nri.pending_pods, node.nri.pending_containers) == ({}, {})
