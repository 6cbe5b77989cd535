"""A node without a kernel: real stores and handlers, pretended monitors, images and jobs."""

# ruff: noqa: ARG002 - the fakes have the signatures of what they stand for
from __future__ import annotations

import asyncio
import itertools
from types import SimpleNamespace

from shim.config import CgroupConfig, CniConfig, Config, HandlerConfig, RuntimeConfig
from shim.container.exits import on_event
from shim.container.spec.host import HostFacts
from shim.errors import NotFound
from shim.gen.runtime.v1 import api_pb2
from shim.image.record import ImageRecord, RootfsSpec
from shim.monitor.protocol import Exited, PodNamespaces
from shim.pod.network import PodNetwork
from shim.pod.node import Node
from shim.store.containers import ContainerStore
from shim.store.database import Database
from shim.store.pods import PodStore

IMAGE_ID = "sha256:" + "a" * 64


class Trace(list):
    """What was done, in order; `fail` names steps that raise, `block` steps that wait for `release`."""

    def __init__(self):
        super().__init__()
        self.fail = {}
        self.block = set()
        self.release = asyncio.Event()
        self.reached = asyncio.Event()

    async def step(self, name):
        self.append(name)
        if name in self.block:
            self.reached.set()
            await self.release.wait()
        if name in self.fail:
            raise self.fail[name]


class FakeMonitor:
    def __init__(self, trace, pod_id, monitors):
        self.trace = trace
        self.pod_id = pod_id
        self.monitors = monitors
        self.known = {}
        self.pids = itertools.count(100)
        self.obeys = True

    async def setup_pod(self, request):
        await self.trace.step("setup")
        self.request = request
        paths = {"network": request.net_pin} if request.net_pin else {}
        return PodNamespaces(paths=paths | ({"ipc": "/ns/ipc"} if request.ipc else {}), shm="/shm" if request.ipc else "")

    async def teardown_pod(self):
        await self.trace.step("teardown")
        self.known.clear()

    async def create(self, request):
        await self.trace.step("monitor.create")
        self.known[request.container_id] = request
        return next(self.pids)

    async def start(self, container_id):
        await self.trace.step("monitor.start")
        return 5_000

    async def kill(self, container_id, number, *, all_processes=False):
        await self.trace.step(f"kill {int(number)}{' all' if all_processes else ''}")
        if container_id not in self.known:
            raise NotFound("no such container")
        if self.obeys or number == 9:
            await self.exits(container_id, 128 + int(number))

    async def exits(self, container_id, code, *, oom=False):
        event = Exited(
            container_id=container_id, pid=100, exit_code=code, signal=max(code - 128, 0), oom_killed=oom, exited_at_ns=9_000
        )
        await self.monitors.on_event(self.pod_id, event)

    async def delete(self, container_id):
        await self.trace.step("monitor.delete")
        self.known.pop(container_id, None)

    async def containers(self):
        return []

    async def exec_sync(self, request):
        self.exec_request = request
        return SimpleNamespace(exit_code=3, stdout=b"o" * 10, stderr=b"e")

    async def reopen_log(self, container_id):
        await self.trace.step("reopen")


class FakeMonitors:
    def __init__(self, trace, state):
        self.trace = trace
        self.state = state
        self.clients = {}
        self.on_event = None

    def directory(self, pod_id):
        return f"{self.state}/pods/{pod_id}"

    def get(self, pod_id):
        return self.clients[pod_id]

    async def start(self, pod_id):
        await self.trace.step("monitor")
        return self.clients.setdefault(pod_id, FakeMonitor(self.trace, pod_id, self))

    async def ensure(self, pod_id):
        return self.clients.get(pod_id) or await self.start(pod_id)

    async def stop(self, pod_id):
        await self.trace.step("monitor.stop")
        self.clients.pop(pod_id, None)


class FakeImages:
    def __init__(self, trace, layer):
        self.trace = trace
        self.layer = layer
        config = SimpleNamespace(
            env=(),
            entrypoint=(),
            cmd=("/bin/sh",),
            working_dir="",
            user="",
            stop_signal="",
            labels={},
            volumes=(),
            exposed_ports=(),
        )
        self.record = ImageRecord(
            id=IMAGE_ID,
            repo_tags=("docker.io/library/busybox:latest",),
            repo_digests=("docker.io/library/busybox@sha256:" + "b" * 64,),
            size=7,
            config=config,
            pinned=False,
            created=0,
            chain_id="",
        )

    def resolve(self, name):
        if name in {"busybox", IMAGE_ID, *self.record.repo_tags}:
            return self.record
        raise NotFound(f"image {name!r} is not here")

    def config_json(self, image_id):
        assert image_id == IMAGE_ID
        return b'{"os": "linux", "rootfs": {"type": "layers", "diff_ids": []}}'

    def list(self):
        return [self.record]

    def layer_paths(self, _image_id):
        return (self.layer,)

    async def prepare_rootfs(self, container_id, image_id, directory, *, read_only=False):
        await self.trace.step("rootfs")
        return RootfsSpec(lower=(self.layer,), upper=f"{directory}/upper", work=f"{directory}/work")

    async def remove_rootfs(self, container_id):
        await self.trace.step("rootfs.remove")

    async def remove(self, image_id):
        await self.trace.step(f"remove {image_id}")


class FakeJobs:
    def __init__(self, trace):
        self.trace = trace
        self.params = []

    async def job(self, kind, params, *, timeout):
        self.params.append(params)
        await self.trace.step(f"{kind} {params.get('action', '')}".strip())
        if params.get("action") == "add":
            return {"network": "net", "ips": ["10.1.0.2", "fd00::2"], "result": {"ips": []}}
        return {}


def make_node(folder, **settings):
    trace = Trace()
    config = Config(
        root=str(folder / "root"),
        state=str(folder / "state"),
        cgroup=CgroupConfig(parent="/wherry-unit-test"),
        cni=CniConfig(default_network=True, netns_dir=str(folder / "netns"), conf_dir=str(folder / "net.d")),
        runtime=RuntimeConfig(handlers={"runc": HandlerConfig(path="/usr/sbin/runc")}),
        **settings,
    )
    for name in ("root", "state", "layer"):
        (folder / name).mkdir()
    database = Database.open(f"{config.root}/wherry.db")
    jobs = FakeJobs(trace)
    monitors = FakeMonitors(trace, config.state)
    network = PodNetwork(config, jobs)
    network._status_at = float("inf")  # STATUS has just been asked
    node = Node(
        config=config,
        database=database,
        pods=PodStore(database),
        containers=ContainerStore(database),
        images=FakeImages(trace, str(folder / "layer")),
        jobs=jobs,
        monitors=monitors,
        network=network,
        host=HostFacts(capabilities=("CAP_CHOWN",)),
        boot_id="this-boot",
    )
    monitors.on_event = lambda pod_id, event: on_event(node, pod_id, event)
    return node, trace


def pod_config(name="web", **fields):
    config = api_pb2.PodSandboxConfig(
        metadata=api_pb2.PodSandboxMetadata(name=name, uid="u1", namespace="default", attempt=0), hostname=name
    )
    config.linux.security_context.namespace_options.pid = api_pb2.CONTAINER
    config.MergeFrom(api_pb2.PodSandboxConfig(**fields))
    return config


def container_config(name="main", **fields):
    config = api_pb2.ContainerConfig(
        metadata=api_pb2.ContainerMetadata(name=name), image=api_pb2.ImageSpec(image="busybox"), command=["/bin/sleep", "1"]
    )
    config.linux.security_context.namespace_options.pid = api_pb2.CONTAINER
    config.MergeFrom(api_pb2.ContainerConfig(**fields))
    return config
