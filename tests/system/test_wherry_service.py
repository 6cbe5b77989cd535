"""wherry.v1 through the daemon: save, tag, prune, a pull with its progress; and clients that leave in the middle of a pull."""

from __future__ import annotations

import io
import json
import os
import socket
import tarfile
import threading
from contextlib import suppress
from typing import TYPE_CHECKING

import grpc
import pytest

from shim.gen.runtime.v1 import api_pb2
from shim.gen.wherry.v1 import wherry_pb2
from tests.support import images
from tests.support.daemon import BUSYBOX
from tests.support.wait import wait_for

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.support.cri import PodMaker
    from tests.support.daemon import Wherryd
    from tests.support.registry import Registry

pytestmark = pytest.mark.system


def names(wherryd: Wherryd) -> dict[str, list[str]]:
    listed = wherryd.cri.images.ListImages(api_pb2.ListImagesRequest()).images
    return {image.id: sorted(image.repo_tags) for image in listed}


def unfinished(wherryd: Wherryd) -> list[str]:
    partial = [str(path) for path in (wherryd.root / "content" / "partial").iterdir()]
    return partial + [str(path) for path in (wherryd.root / "layers").glob("partial-*")]


def test_tag_and_save(wherryd: Wherryd) -> None:
    service = wherryd.cri.wherry
    busybox = images.busybox_image()
    service.Tag(wherry_pb2.TagRequest(source="busybox", target="example.com/mine:2"))
    assert names(wherryd)[busybox.id] == [BUSYBOX, "example.com/mine:2"]
    request = wherry_pb2.SaveRequest(references=["example.com/mine:2"])
    data = b"".join(message.data for message in service.Save(request, timeout=60))
    with tarfile.open(fileobj=io.BytesIO(data)) as archive:
        (entry,) = json.load(archive.extractfile("manifest.json"))  # type: ignore[arg-type]  # it is a file
    assert entry["RepoTags"] == ["example.com/mine:2"]
    target = wherryd.folder / "saved.tar"
    saved = wherry_pb2.SaveRequest(references=["busybox"], path=str(target), format=wherry_pb2.OCI_ARCHIVE)
    list(service.Save(saved, timeout=60))
    wherryd.cri.remove_image("busybox")
    assert names(wherryd) == {}
    service.Load(iter([wherry_pb2.LoadRequest(path=str(target))]), timeout=60)
    assert names(wherryd) == {busybox.id: [BUSYBOX]}


@pytest.mark.parametrize(
    ("request_", "code"),
    [
        (wherry_pb2.SaveRequest(), grpc.StatusCode.INVALID_ARGUMENT),
        (wherry_pb2.SaveRequest(references=["nobody/has:this"]), grpc.StatusCode.NOT_FOUND),
        (wherry_pb2.SaveRequest(references=["nobody/has:this"], path="/tmp/wherry-tx"), grpc.StatusCode.NOT_FOUND),
        (wherry_pb2.SaveRequest(references=["busybox"], path="relative"), grpc.StatusCode.INVALID_ARGUMENT),
        (wherry_pb2.SaveRequest(references=["busybox"], path="/etc/passwd"), grpc.StatusCode.ALREADY_EXISTS),
        (wherry_pb2.SaveRequest(references=["busybox"], path="/nowhere/x"), grpc.StatusCode.NOT_FOUND),
    ],
)
def test_refused_saves(wherryd: Wherryd, request_: wherry_pb2.SaveRequest, code: grpc.StatusCode) -> None:
    with pytest.raises(grpc.RpcError) as caught:
        list(wherryd.cri.wherry.Save(request_, timeout=20))
    assert caught.value.code() is code, caught.value.details()
    assert not os.path.exists("/tmp/wherry-tx")


def test_prune(wherryd: Wherryd, pods: PodMaker) -> None:
    loose = images.TestImage(layers=(images.files_layer({"a": "x" * 100_000}),))
    tagged = images.TestImage(layers=(images.files_layer({"b": "y"}),))
    wherryd.load({"!": loose, "localhost/tagged:1": tagged})
    config = pods.pod()
    pod = wherryd.cri.run_pod(config)
    wherryd.cri.create(pod, pods.container(BUSYBOX, ["true"]), config)
    answer = wherryd.cri.wherry.Prune(wherry_pb2.PruneRequest(), timeout=30)
    assert list(answer.image_ids) == [loose.id]
    assert answer.freed_bytes >= 100_000
    assert list(wherryd.cri.wherry.Prune(wherry_pb2.PruneRequest(all=True), timeout=30).image_ids) == [tagged.id]
    assert list(names(wherryd)) == [images.busybox_image().id]  # a container uses it


def test_pull_with_progress(wherryd: Wherryd, registry: Registry) -> None:
    image = images.TestImage(layers=(images.random_layer(4), images.files_layer({"f": "x"})))
    registry.push("app", "1", image)
    messages = list(wherryd.cri.wherry.PullProgress(wherry_pb2.PullProgressRequest(reference=f"{registry.host}/app:1")))
    assert messages[-1].image_id == image.id
    kinds = wherry_pb2.LayerProgress.DESCRIPTOR.fields_by_name["phase"].enum_type.values_by_number
    phases: dict[str, list[str]] = {}
    for message in messages[:-1]:
        for layer in message.layers:
            phases.setdefault(layer.digest, []).append(kinds[layer.phase].name)
    assert set(phases) == {images.digest_of(layer.blob) for layer in image.layers}
    assert all(seen[0] == "WAITING" and seen[-1] == "DONE" for seen in phases.values())
    with pytest.raises(grpc.RpcError) as caught:
        list(wherryd.cri.wherry.PullProgress(wherry_pb2.PullProgressRequest(reference="not a name")))
    assert caught.value.code() is grpc.StatusCode.INVALID_ARGUMENT


@pytest.fixture
def stuck() -> Iterator[tuple[str, threading.Event]]:
    """Give a registry that stops in the middle of a layer: (host:port, set when it has)."""
    image = images.TestImage(layers=(images.random_layer(8, compression=""),))
    layer = image.layers[0].blob
    reached, done = threading.Event(), threading.Event()
    listener = socket.create_server(("127.0.0.1", 0))

    def serve(connection: socket.socket) -> None:
        with connection, connection.makefile("rb") as lines:
            while (line := lines.readline()).startswith(b"GET "):  # not a TLS client that tries
                path = line.split()[1].decode()
                while lines.readline().strip():
                    pass
                big = path.endswith(images.digest_of(layer))
                body = layer if big else image.manifest if "/manifests/" in path else image.config_blob
                kind = images.OCI["manifest"] if "/manifests/" in path else "application/octet-stream"
                head = f"HTTP/1.1 200 OK\r\nContent-Type: {kind}\r\nContent-Length: {len(body)}\r\n\r\n"
                connection.sendall(head.encode() + (body[: len(body) // 2] if big else body))
                if big:
                    reached.set()
                    done.wait(60)
                    return

    def accept() -> None:
        with suppress(OSError):
            while True:
                connection, _ = listener.accept()
                threads.append(threading.Thread(target=serve, args=(connection,)))
                threads[-1].start()

    threads = [threading.Thread(target=accept)]
    threads[0].start()
    yield f"127.0.0.1:{listener.getsockname()[1]}", reached
    done.set()
    listener.shutdown(socket.SHUT_RDWR)
    listener.close()
    for thread in threads:
        thread.join(10)


@pytest.mark.parametrize("how", ["cancel", "deadline", "progress", "disconnect"])
def test_a_client_that_leaves_in_the_middle_of_a_pull(wherryd: Wherryd, stuck: tuple[str, threading.Event], how: str) -> None:
    host, reached = stuck
    spec = api_pb2.PullImageRequest(image=api_pb2.ImageSpec(image=f"{host}/app:1"))
    if how == "progress":
        call = wherryd.cri.wherry.PullProgress(wherry_pb2.PullProgressRequest(reference=f"{host}/app:1"))
    else:
        call = wherryd.cri.images.PullImage.future(spec, timeout=2 if how == "deadline" else 60)
    assert reached.wait(20)
    wait_for(lambda: unfinished(wherryd), "the layer to begin")
    if how == "disconnect":
        wherryd.disconnect()
    elif how != "deadline":
        call.cancel()
    wait_for(lambda: unfinished(wherryd) == [], "the pull to be undone", seconds=5)
    assert len(names(wherryd)) == 1
    assert wherryd.cri.ready()
    wait_for(lambda: len(wherryd.helpers()) == 3, "no process but the daemon, its spawner and the nursery to be there")
