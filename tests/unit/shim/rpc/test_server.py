import asyncio

import grpc
import pytest

from shim.errors import FailedPrecondition, NotFound, WherryError
from shim.gen.runtime.v1 import api_pb2, api_pb2_grpc
from shim.rpc.image_service import ImageService
from shim.rpc.interceptor import MESSAGE_LIMIT, status_of
from shim.rpc.runtime_service import RuntimeService
from shim.rpc.server import listen, make_server, snake_case
from tests.unit.shim.fakes import container_config, pod_config


@pytest.fixture
async def client(world, tmp_path):
    node, trace = world
    node.images.filesystem_usage = lambda: None
    server = make_server(node)
    path = str(tmp_path / "s")
    listen(server, path, -1)
    await server.start()
    async with grpc.aio.insecure_channel(f"unix://{path}") as channel:
        yield node, trace, api_pb2_grpc.RuntimeServiceStub(channel), api_pb2_grpc.ImageServiceStub(channel), path
    await server.stop(None)


async def undone(node):
    async with asyncio.timeout(5):
        await asyncio.gather(*(flight.task for flight in node.flights._flights.values()), return_exceptions=True)
    assert len(node.pods) == 0


async def failure(call):
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await call
    return caught.value.code(), caught.value.details()


async def test_the_socket_is_for_root_and_the_group(client):
    import os

    assert os.stat(client[4]).st_mode & 0o777 == 0o660


async def test_a_pod_over_the_wire(client):
    node, _trace, runtime, _images, _path = client
    config = pod_config(labels={"a": "b"})
    pod = (await runtime.RunPodSandbox(api_pb2.RunPodSandboxRequest(config=config))).pod_sandbox_id
    request = api_pb2.CreateContainerRequest(pod_sandbox_id=pod, config=container_config(), sandbox_config=config)
    container = (await runtime.CreateContainer(request)).container_id
    await runtime.StartContainer(api_pb2.StartContainerRequest(container_id=container))
    (item,) = (await runtime.ListContainers(api_pb2.ListContainersRequest())).containers
    assert (item.id, item.state, item.image_ref) == (container, api_pb2.CONTAINER_RUNNING, node.images.record.id)
    answer = await runtime.PodSandboxStatus(api_pb2.PodSandboxStatusRequest(pod_sandbox_id=pod[:8], verbose=True))
    assert [one.id for one in answer.containers_statuses] == [container]
    assert '"cniResult":{"ips":[]}' in answer.info["info"]
    answer = await runtime.ExecSync(api_pb2.ExecSyncRequest(container_id=container, cmd=["ls"], timeout=5))
    assert (answer.exit_code, answer.stdout) == (3, b"o" * 10)
    await runtime.RemovePodSandbox(api_pb2.RemovePodSandboxRequest(pod_sandbox_id=pod))
    assert list((await runtime.ListPodSandbox(api_pb2.ListPodSandboxRequest())).items) == []


async def test_errors_become_statuses(client):
    node, trace, runtime, _images, _path = client
    request = api_pb2.ContainerStatusRequest(container_id="f" * 64)
    assert await failure(runtime.ContainerStatus(request)) == (
        grpc.StatusCode.NOT_FOUND,
        f"container '{'f' * 64}' does not exist",
    )
    trace.fail["setup"] = ZeroDivisionError("oops")
    code, details = await failure(runtime.RunPodSandbox(api_pb2.RunPodSandboxRequest(config=pod_config())))
    assert (code, details) == (grpc.StatusCode.INTERNAL, "unexpected ZeroDivisionError: oops")
    node.events.close()
    with pytest.raises(grpc.aio.AioRpcError, match="wherryd is stopping"):
        async for _ in runtime.GetContainerEvents(api_pb2.GetEventsRequest()):
            pass


async def test_a_cancelled_rpc_is_undone(client):
    node, trace, runtime, _images, _path = client
    trace.block.add("cni add")
    call = runtime.RunPodSandbox(api_pb2.RunPodSandboxRequest(config=pod_config()))
    await trace.reached.wait()
    call.cancel()
    await undone(node)
    assert trace[-3:] == ["cni delete", "teardown", "monitor.stop"]


async def test_a_passed_deadline_is_undone(client):
    node, trace, runtime, _images, _path = client
    trace.block.add("cni add")
    code, _ = await failure(runtime.RunPodSandbox(api_pb2.RunPodSandboxRequest(config=pod_config()), timeout=0.2))
    assert code is grpc.StatusCode.DEADLINE_EXCEEDED
    await undone(node)


async def test_images_over_the_wire(client):
    node, trace, _runtime, images, _path = client
    spec = api_pb2.ImageSpec(image="busybox")
    found = (await images.ImageStatus(api_pb2.ImageStatusRequest(image=spec, verbose=True))).image
    assert (found.id, found.size, found.uid.value) == (node.images.record.id, 7, 0)
    missing = api_pb2.ImageSpec(image="nothing")
    assert not (await images.ImageStatus(api_pb2.ImageStatusRequest(image=missing))).HasField("image")
    wanted = api_pb2.ListImagesRequest(filter=api_pb2.ImageFilter(image=missing))
    assert list((await images.ListImages(wanted)).images) == []
    assert len((await images.ListImages(api_pb2.ListImagesRequest())).images) == 1
    await images.RemoveImage(api_pb2.RemoveImageRequest(image=missing))
    assert trace == []
    await images.RemoveImage(api_pb2.RemoveImageRequest(image=spec))
    assert trace == [f"remove {node.images.record.id}"]
    code, _ = await failure(images.ImageStatus(api_pb2.ImageStatusRequest()))
    assert code is grpc.StatusCode.INVALID_ARGUMENT


async def test_status_over_the_wire(client):
    _node, _trace, runtime, _images, _path = client
    status = await runtime.Status(api_pb2.StatusRequest(verbose=True))
    assert {one.type for one in status.status.conditions} == {"RuntimeReady", "NetworkReady"}
    features = {handler.name: handler.features.recursive_read_only_mounts for handler in status.runtime_handlers}
    assert features == {"": True, "wherry": True, "runc": False}


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (NotFound("x"), grpc.StatusCode.NOT_FOUND),
        (FailedPrecondition("x"), grpc.StatusCode.FAILED_PRECONDITION),
        (WherryError("x"), grpc.StatusCode.UNKNOWN),
        (OSError(28, "no space left on device"), grpc.StatusCode.RESOURCE_EXHAUSTED),
        (OSError(5, "i/o error"), grpc.StatusCode.INTERNAL),
        (KeyError("x"), grpc.StatusCode.INTERNAL),
    ],
)
def test_codes(error, code):
    assert status_of(error, 0)[0] is code


def test_a_full_disk_says_what_to_do():
    assert status_of(OSError(28, "No space left on device"), 0)[1].endswith("make room where root, state and logs lie")


def test_a_long_message_is_cut():
    assert len(status_of(NotFound("x" * 100_000), 0)[1]) < MESSAGE_LIMIT + 10


def test_names_of_methods():
    assert snake_case("RunPodSandbox") == "run_pod_sandbox"
    assert snake_case("ImageFsInfo") == "image_fs_info"


@pytest.mark.parametrize("service", [RuntimeService, ImageService])
def test_every_rpc_is_served(service):
    methods = api_pb2.DESCRIPTOR.services_by_name[service.__name__].methods
    assert [method.name for method in methods if not hasattr(service, snake_case(method.name))] == []
