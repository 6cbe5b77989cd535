"""Registries that cut, stall, corrupt and fail; callers that go away; a daemon that is killed: bounded, and nothing is left."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from aiohttp import web

from shim.errors import FailedPrecondition, Unavailable
from tests.support import images
from tests.support.imagestore import image_store, remains
from tests.support.registry import free_port
from tests.support.wait import wait_for

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

pytestmark = pytest.mark.system

BIG = os.urandom(4_000_000)
IMAGE = images.TestImage(layers=(images.files_layer({"big": BIG}, ""), images.files_layer({"small": "1"})))
LAYER = images.digest_of(IMAGE.layers[0].blob)
ROOT = Path(__file__).parents[2]


class FaultyRegistry:
    """Serves one image; `fault` decides what becomes of each request for the big layer."""

    def __init__(self, image: images.TestImage) -> None:
        self.blobs = image.blobs()
        self.manifest = image.manifest
        self.fault: Any = None
        self.requests: list[str] = []
        self.ranges: list[str] = []
        self.host = ""

    async def start(self) -> None:
        app = web.Application()
        app.router.add_get("/v2/app/manifests/{name}", self._manifest)
        app.router.add_get("/v2/app/blobs/{digest}", self._blob)
        self._runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.1)
        await self._runner.setup()
        port = free_port()
        await web.TCPSite(self._runner, "127.0.0.1", port).start()
        self.host = f"127.0.0.1:{port}"

    async def stop(self) -> None:
        await self._runner.cleanup()

    async def _manifest(self, _request: web.Request) -> web.Response:
        self.requests.append("manifest")
        return web.Response(body=self.manifest, headers={"Content-Type": images.OCI["manifest"]})

    async def _blob(self, request: web.Request) -> web.StreamResponse:
        digest = request.match_info["digest"]
        self.requests.append(digest)
        if digest == LAYER:
            self.ranges.append(request.headers.get("Range", ""))
            if self.fault is not None:
                return await self.fault(request, len(self.ranges))
        return await self.send(request, self.blobs[digest])

    async def send(
        self, request: web.Request, data: bytes, *, upto: int | None = None, ranges: bool = True
    ) -> web.StreamResponse:
        """Send a blob from where it is asked for; `upto`: cut the connection after so many bytes."""
        start = int(request.headers.get("Range", "bytes=0-")[6:-1]) if ranges else 0
        response = web.StreamResponse(status=206 if start else 200)
        response.content_length = len(data) - start
        if start:
            response.headers["Content-Range"] = f"bytes {start}-{len(data) - 1}/{len(data)}"
        await response.prepare(request)
        end = len(data) if upto is None else min(len(data), start + upto)
        for place in range(start, end, 65536):
            await response.write(data[place : min(end, place + 65536)])
        if end < len(data):
            assert request.transport is not None
            request.transport.close()
        return response


@pytest.fixture
async def faulty() -> AsyncIterator[FaultyRegistry]:
    server = FaultyRegistry(IMAGE)
    await server.start()
    yield server
    await server.stop()


async def test_resumes_where_it_was_cut(tmp_path: Path, faulty: FaultyRegistry) -> None:
    async def cut(request: web.Request, _count: int) -> web.StreamResponse:
        return await faulty.send(request, faulty.blobs[LAYER], upto=1_500_000)

    faulty.fault = cut
    async with image_store(tmp_path) as store:
        assert await store.pull(f"{faulty.host}/app:1", None) == IMAGE.id
        assert len(faulty.ranges) >= 3
        assert faulty.ranges[0] == ""
        assert all(given.startswith("bytes=") and given != "bytes=0-" for given in faulty.ranges[1:])
        with open(f"{store.layer_paths(IMAGE.id)[1]}/big", "rb") as file:
            assert file.read() == BIG


async def test_a_server_without_ranges(tmp_path: Path, faulty: FaultyRegistry) -> None:
    async def cut(request: web.Request, count: int) -> web.StreamResponse:
        return await faulty.send(request, faulty.blobs[LAYER], upto=1_500_000 if count == 1 else None, ranges=False)

    faulty.fault = cut
    async with image_store(tmp_path) as store:
        assert await store.pull(f"{faulty.host}/app:1", None) == IMAGE.id


async def test_always_cut_at_once(tmp_path: Path, faulty: FaultyRegistry) -> None:
    async def cut(request: web.Request, _count: int) -> web.StreamResponse:
        return await faulty.send(request, faulty.blobs[LAYER], upto=10)

    faulty.fault = cut
    async with image_store(tmp_path) as store:
        with pytest.raises(Unavailable, match=r"^RegistryUnavailable: "):
            await store.pull(f"{faulty.host}/app:1", None)
        assert len(faulty.ranges) == 4
    assert remains(tmp_path) == []


async def test_stalls(tmp_path: Path, faulty: FaultyRegistry) -> None:
    async def stall(request: web.Request, _count: int) -> web.StreamResponse:
        response = web.StreamResponse()
        response.content_length = len(faulty.blobs[LAYER])
        await response.prepare(request)
        await response.write(b"x" * 1000)
        await asyncio.sleep(60)
        return response

    faulty.fault = stall
    async with image_store(tmp_path, retries=1, stall_timeout=0.3) as store:
        begun = time.monotonic()
        with pytest.raises(Unavailable, match=r"^RegistryUnavailable: .*no bytes came"):
            await store.pull(f"{faulty.host}/app:1", None)
        assert time.monotonic() - begun < 5
    assert remains(tmp_path) == []


async def test_failing_then_well(tmp_path: Path, faulty: FaultyRegistry) -> None:
    async def fail(request: web.Request, count: int) -> web.StreamResponse:
        return web.Response(status=500 if count == 1 else 429) if count < 3 else await faulty.send(request, faulty.blobs[LAYER])

    faulty.fault = fail
    async with image_store(tmp_path) as store:
        assert await store.pull(f"{faulty.host}/app:1", None) == IMAGE.id


async def test_always_failing(tmp_path: Path, faulty: FaultyRegistry) -> None:
    async def fail(_request: web.Request, _count: int) -> web.StreamResponse:
        return web.json_response({"errors": [{"code": "UNKNOWN", "message": "disk on fire"}]}, status=500)

    faulty.fault = fail
    async with image_store(tmp_path) as store:
        with pytest.raises(Unavailable, match=r"^RegistryUnavailable: .*disk on fire"):
            await store.pull(f"{faulty.host}/app:1", None)
    assert remains(tmp_path) == []


@pytest.mark.parametrize("keep", [False, True])
async def test_corrupt(tmp_path: Path, faulty: FaultyRegistry, keep: bool) -> None:
    data = bytearray(faulty.blobs[LAYER])
    data[2_000_000] ^= 1

    async def corrupt(request: web.Request, _count: int) -> web.StreamResponse:
        return await faulty.send(request, bytes(data))

    faulty.fault = corrupt
    async with image_store(tmp_path, keep_compressed_blobs=keep) as store:
        with pytest.raises(FailedPrecondition, match="changed or damaged on its way"):
            await store.pull(f"{faulty.host}/app:1", None)
    assert remains(tmp_path) == []


async def test_longer_than_promised(tmp_path: Path, faulty: FaultyRegistry) -> None:
    async def longer(request: web.Request, _count: int) -> web.StreamResponse:
        return await faulty.send(request, faulty.blobs[LAYER] + b"more")

    faulty.fault = longer
    async with image_store(tmp_path) as store:
        with pytest.raises(FailedPrecondition, match="is longer than"):
            await store.pull(f"{faulty.host}/app:1", None)
    assert remains(tmp_path) == []


async def test_kept_blobs(tmp_path: Path, faulty: FaultyRegistry) -> None:
    async with image_store(tmp_path, keep_compressed_blobs=True) as store:
        await store.pull(f"{faulty.host}/app:1", None)
        assert store.content.read(LAYER) == faulty.blobs[LAYER]
        await store.remove(IMAGE.id)
    assert remains(tmp_path) == []


@pytest.mark.parametrize("kind", ["docker-archive", "oci-archive"])
async def test_save_takes_kept_blobs(tmp_path: Path, faulty: FaultyRegistry, kind: str) -> None:
    """What cannot be made again out of the unpacked files is still there in the blob."""
    async with image_store(tmp_path / "a", keep_compressed_blobs=True) as store:
        await store.pull(f"{faulty.host}/app:1", None)
        os.unlink(f"{store.layer_paths(IMAGE.id)[1]}/big")
        await store.save([IMAGE.id], str(tmp_path / "saved"), kind)
    async with image_store(tmp_path / "b") as store:
        await store.load(str(tmp_path / "saved"))
        assert Path(store.layer_paths(IMAGE.id)[1], "big").read_bytes() == BIG


async def test_trickles(tmp_path: Path, faulty: FaultyRegistry) -> None:
    """A server that sends a few bytes now and then never stalls and never ends: the pace bounds it."""

    async def trickle(request: web.Request, _count: int) -> web.StreamResponse:
        response = web.StreamResponse()
        response.content_length = len(faulty.blobs[LAYER])
        await response.prepare(request)
        for place in range(1000):
            await response.write(faulty.blobs[LAYER][place : place + 1])
            await asyncio.sleep(0.05)
        return response

    faulty.fault = trickle
    begun = time.monotonic()
    async with image_store(tmp_path, slow_timeout=0.3, retries=2) as store:
        with pytest.raises(Unavailable, match=r"RegistryUnavailable: .* bytes came in 0\.3 s"):
            await store.pull(f"{faulty.host}/app:1", None)
    assert time.monotonic() - begun < 10
    assert remains(tmp_path) == []


@pytest.mark.parametrize("damaged", [LAYER, images.digest_of(IMAGE.config_blob)])
async def test_a_corrupt_mirror_is_passed_over(tmp_path: Path, faulty: FaultyRegistry, damaged: str) -> None:
    mirror = FaultyRegistry(IMAGE)
    blob = mirror.blobs[damaged]
    mirror.blobs[damaged] = blob[:-9000] + bytes(8) + blob[-8992:] if damaged == LAYER else blob[:-2] + b" }"
    await mirror.start()
    certs = tmp_path / "certs.d" / "registry.example"
    certs.mkdir(parents=True)
    (certs / "hosts.toml").write_text(f'server = "http://{faulty.host}"\n[host."http://{mirror.host}"]\n')
    try:
        async with image_store(tmp_path / "a", registry_config_dirs=(str(tmp_path / "certs.d"),)) as store:
            assert await store.pull("registry.example/app:1", None) == IMAGE.id
            assert damaged in mirror.requests
            assert Path(store.layer_paths(IMAGE.id)[1], "big").read_bytes() == BIG
            faulty.blobs[damaged] = mirror.blobs[damaged]
            await store.remove(IMAGE.id)
            with pytest.raises(FailedPrecondition, match="digest"):
                await store.pull("registry.example/app:1", None)
    finally:
        await mirror.stop()
    assert remains(tmp_path / "a") == []


async def _stuck(faulty: FaultyRegistry, reached: asyncio.Event) -> None:
    async def hang(request: web.Request, _count: int) -> web.StreamResponse:
        response = web.StreamResponse()
        response.content_length = len(faulty.blobs[LAYER])
        await response.prepare(request)
        await response.write(faulty.blobs[LAYER][:2_000_000])
        reached.set()
        await asyncio.sleep(60)
        return response

    faulty.fault = hang


async def test_cancelled_in_the_middle(tmp_path: Path, faulty: FaultyRegistry) -> None:
    reached = asyncio.Event()
    await _stuck(faulty, reached)
    async with image_store(tmp_path, stall_timeout=30.0) as store:
        pulls = [asyncio.create_task(store.pull(f"{faulty.host}/app:1", None)) for _ in range(3)]
        await asyncio.wait_for(reached.wait(), 10)
        for pull in pulls:
            pull.cancel()
        begun = time.monotonic()
        assert all(
            isinstance(result, asyncio.CancelledError) for result in await asyncio.gather(*pulls, return_exceptions=True)
        )
        assert time.monotonic() - begun < 5
        assert remains(tmp_path) == []  # when the call returns, not later


async def test_one_of_two_callers_leaves(tmp_path: Path, faulty: FaultyRegistry) -> None:
    reached, go = asyncio.Event(), asyncio.Event()

    async def wait(request: web.Request, _count: int) -> web.StreamResponse:
        reached.set()
        await go.wait()
        return await faulty.send(request, faulty.blobs[LAYER])

    faulty.fault = wait
    async with image_store(tmp_path, stall_timeout=30.0) as store:
        leaver, stayer = (asyncio.create_task(store.pull(f"{faulty.host}/app:1", None)) for _ in range(2))
        await asyncio.wait_for(reached.wait(), 10)
        leaver.cancel()
        with pytest.raises(asyncio.CancelledError):
            await leaver
        go.set()
        assert await stayer == IMAGE.id
        assert faulty.requests.count("manifest") == 1


PROGRAM = """
import asyncio, sys
sys.path.insert(0, {root!r})
from pathlib import Path
from tests.support.imagestore import image_store
async def main():
    async with image_store(Path(sys.argv[1]), stall_timeout=60.0) as store:
        await store.pull(sys.argv[2], None)
asyncio.run(main())
"""


async def test_killed_in_the_middle(tmp_path: Path, faulty: FaultyRegistry) -> None:
    """Kill -9 of the daemon while it unpacks: the next start leaves nothing, and the image can be pulled."""
    reached = asyncio.Event()
    await _stuck(faulty, reached)
    child = subprocess.Popen([sys.executable, "-c", PROGRAM.format(root=str(ROOT)), str(tmp_path), f"{faulty.host}/app:1"])
    try:
        await asyncio.wait_for(reached.wait(), 20)
        layers = tmp_path / "layers"
        await asyncio.to_thread(wait_for, lambda: any(layers.glob("partial-*/big")), "the layer to begin")
    finally:
        child.send_signal(signal.SIGKILL)
        child.wait(10)
    assert remains(tmp_path) != []
    faulty.fault = None
    async with image_store(tmp_path) as store:
        assert remains(tmp_path) == []
        assert await store.pull(f"{faulty.host}/app:1", None) == IMAGE.id
