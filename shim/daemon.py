"""wherryd: the CRI server's process, from its command line to its end.

`main` is called by shim.bootstrap, which has started the spawner before grpc was imported. The daemon never forks. It
exits when the spawner dies, so that the service manager restarts both; monitors and containers go on in every case.
"""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import gc
import grp
import os
import signal
import socket
import sys
from typing import TYPE_CHECKING

import structlog

from runtime.kernel.heap import trim, unmap_code, use_one_arena
from shim import log as logs
from shim.container.apparmor import load_at_start
from shim.container.attach import start_attach
from shim.container.exec import start_exec
from shim.container.exits import on_event
from shim.container.spec.detect import detect_host
from shim.errors import FailedPrecondition, InvalidArgument, WherryError
from shim.options import Options, parse, print_only
from shim.pod.binaries import ask_binaries
from shim.pod.features import look_at_layers
from shim.pod.lost import pod_lost
from shim.pod.monitors import Monitors
from shim.pod.network import PodNetwork, parse_cidrs
from shim.pod.node import Node
from shim.pod.port_forward import connect
from shim.pod.recover import read_boot_id, recover
from shim.spread import make_spread
from shim.store import meta
from shim.store.containers import ContainerStore
from shim.store.database import Database
from shim.store.pods import PodStore
from shim.streaming.server import StreamingServer

if TYPE_CHECKING:
    from shim.config import Config
    from shim.container.attach import Attachment
    from shim.container.exec import ExecProcess
    from shim.spawner.client import SpawnerClient
    from shim.streaming.requests import AttachStream, ExecStream

log = structlog.get_logger()

DRAIN_SECONDS = 20.0
"""Time that running calls have, at the end, to finish or to undo themselves."""


def main(argv: list[str], spawner_socket: socket.socket, spawner_pid: int) -> int:
    """Serve until a signal, or print what was asked for; give the exit status."""
    try:
        options = parse(argv)
    except InvalidArgument as error:
        sys.stderr.write(f"wherryd: {error}\n")
        return 2
    status = print_only(options)
    if status is not None:
        return status
    logs.set_up(options.config.log)
    use_one_arena()
    try:
        return asyncio.run(serve(options, spawner_socket, spawner_pid))
    except (WherryError, OSError) as error:
        log.critical("wherryd cannot serve", error=str(error))
        return 1


async def serve(options: Options, spawner_socket: socket.socket, spawner_pid: int) -> int:
    """Start everything, serve, and stop in reverse order."""
    from shim.rpc.server import listen, make_server  # noqa: PLC0415 - grpc is imported last: errors above come quickly
    from shim.spawner.client import SpawnerClient  # noqa: PLC0415 - the same

    config = options.config
    async with contextlib.AsyncExitStack() as stack:
        stack.callback(os.close, lock(config.root, 0o700))  # set-uid programs of images are no user's of this host
        stack.callback(os.close, lock(config.state, 0o711))  # the way to the socket, which may be a group's
        for name in ("pods", "oci"):
            os.makedirs(f"{config.state}/{name}", 0o700, exist_ok=True)
        for folder in (f"{config.root}/pods", f"{config.root}/containers", config.cni_cache_dir):
            make_spread(folder)
        spawner = SpawnerClient(spawner_socket)
        node = await make_node(config, spawner, stack)
        stack.push_async_callback(node.images.stop)
        for problem in await node.images.start():
            log.warning("image store", problem=problem)
        node.events.recovering = True
        await recover(node)
        node.events.recovered()
        await ask_binaries(node)
        await look_at_layers(node)
        await load_at_start(node)
        stack.push_async_callback(node.nri.close)
        await node.nri.start()
        server = make_server(node)
        listen(server, config.socket_path, group_id(config.group))
        await server.start()
        stack.push_async_callback(server.stop, 5.0)
        stack.callback(node.events.close)
        stack.push_async_callback(node.flights.drain, DRAIN_SECONDS)
        gc.collect()
        trim()
        unmap_code()
        gc.freeze()
        log.info("serving", address=config.socket_path, pid=os.getpid(), spawner=spawner_pid, pods=len(node.pods))
        notify("READY=1\nSTATUS=serving")
        status = await until_told(spawner)
        notify("STOPPING=1")
    log.info("stopped")
    return status


async def make_node(config: Config, spawner: SpawnerClient, stack: contextlib.AsyncExitStack) -> Node:
    """Make the parts; `stack` gets what has to be closed."""
    from shim.image.service import ImageStore  # noqa: PLC0415 - a large import

    database = Database.open(f"{config.root}/wherry.db")
    stack.callback(database.close)
    monitors = Monitors(config.state, spawner)
    stack.push_async_callback(monitors.close)
    network = PodNetwork(config, spawner)
    stack.callback(network.close)
    cidr = database.read(lambda connection: meta.get(connection, "pod_cidr"))
    if cidr:
        network.use_pod_cidr(parse_cidrs(cidr))
    node = Node(
        config=config,
        database=database,
        pods=PodStore(database),
        containers=ContainerStore(database),
        images=ImageStore(config.image, config.root, database, spawner),
        jobs=spawner,
        monitors=monitors,
        network=network,
        host=detect_host(),
        boot_id=read_boot_id(),
    )
    node.streaming = StreamingServer(config.streaming, Streamed(node))
    stack.push_async_callback(node.streaming.close)
    stack.callback(node.workers.close)
    stack.callback(node.stats.close)
    monitors.on_event = lambda pod_id, event: on_event(node, pod_id, event)
    monitors.on_lost = lambda pod_id: pod_lost(node, pod_id)
    await network.refresh()
    return node


class Streamed:
    """What the streaming server serves: the containers and pods of a node."""

    def __init__(self, node: Node) -> None:
        self._node = node

    async def start_exec(self, request: ExecStream) -> ExecProcess:
        """See shim.streaming.server.Backend."""
        return await start_exec(self._node, request)

    async def start_attach(self, request: AttachStream) -> Attachment:
        """See shim.streaming.server.Backend."""
        return await start_attach(self._node, request)

    async def connect(self, pod_id: str, port: int) -> socket.socket:
        """See shim.streaming.server.Backend."""
        return await connect(self._node, pod_id, port)


async def until_told(spawner: SpawnerClient) -> int:
    """Wait for a signal that ends the daemon, or for the spawner's death; give the exit status."""
    loop = asyncio.get_running_loop()
    told: asyncio.Future[int] = loop.create_future()

    def end(status: int) -> None:
        if not told.done():
            told.set_result(status)

    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, end, 0)
    loop.add_signal_handler(signal.SIGHUP, lambda: log.info("SIGHUP noted; restart wherryd to read the configuration again"))

    def orphaned(_future: object) -> None:
        log.critical("the spawner is gone; ending to be restarted")
        end(1)

    spawner.closed.add_done_callback(orphaned)
    return await told


def lock(directory: str, mode: int) -> int:
    """Make a directory ours and give the descriptor that holds its lock; raise FailedPrecondition when it is taken."""
    os.makedirs(directory, exist_ok=True)
    os.chmod(directory, mode)
    fd = os.open(f"{directory}/lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(fd)
        raise FailedPrecondition(f"another wherryd uses {directory}: stop it, or give --root and --state") from None
    return fd


def group_id(group: str) -> int:
    """Give the number of a group, -1 for none; raise InvalidArgument for one that does not exist."""
    if not group or group.isdigit():
        return int(group or -1)
    try:
        return grp.getgrnam(group).gr_gid
    except KeyError:
        raise InvalidArgument(f"group {group!r} of the socket does not exist") from None


def notify(state: str) -> None:
    """Tell the service manager (sd_notify(3)); nothing happens without one."""
    address = os.environ.get("NOTIFY_SOCKET", "")
    if not address:
        return
    with contextlib.suppress(OSError), socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as sock:
        sock.connect("\0" + address[1:] if address.startswith("@") else address)
        sock.sendall(state.encode())
