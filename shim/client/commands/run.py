"""run: a container in a pod of its own, from a name to an exit code."""

from __future__ import annotations

import os
import secrets
import sys
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import click

from shim.client import find, logfile, settings
from shim.client.commands.lifecycle import GRACE, remove_target, stop_target
from shim.client.commands.logs import is_running, write
from shim.client.commands.pull import pull_image
from shim.client.commands.session import attach_to, exit_code
from shim.client.context import connected
from shim.client.errors import ClientError
from shim.gen.runtime.v1 import api_pb2

if TYPE_CHECKING:
    from collections.abc import Callable

    from shim.client.connection import Connection

LOG_ROOT = "/var/log/wherry"
"""Where logs go unless --log-dir says otherwise: one directory a pod."""
NAMESPACE = "default"


@dataclass(frozen=True, slots=True, kw_only=True)
class Order:
    """What shall run: the two configurations and the image as it was named."""

    pod: api_pb2.PodSandboxConfig
    container: api_pb2.ContainerConfig
    handler: str
    logs: str


def _options(command: Callable[..., None]) -> Callable[..., None]:
    """Add the options of `run` that describe the container, in the order of its help."""
    for option in reversed(
        (
            click.option("--name", default="", help="Name of container and pod; made up if left out."),
            click.option("-e", "--env", multiple=True, metavar="NAME[=VALUE]", help="Set a variable; repeatable."),
            click.option("-v", "--volume", multiple=True, metavar="SOURCE:TARGET[:ro]", help="Mount a host path; repeatable."),
            click.option("-p", "--publish", multiple=True, metavar="[IP:]PORT:PORT[/udp]", help="Publish a port; repeatable."),
            click.option("-l", "--label", multiple=True, metavar="KEY=VALUE", help="Label container and pod; repeatable."),
            click.option("--network", type=click.Choice(["pod", "host"]), default="pod", show_default=True),
            click.option("-u", "--user", default="", metavar="USER[:GID]", help="Name or number; the image's if left out."),
            click.option("-w", "--workdir", default="", help="Working directory; the image's if left out."),
            click.option("--entrypoint", default="", help="Program instead of the image's entrypoint."),
            click.option("--hostname", default="", help="Host name; the pod's name if left out."),
            click.option("-m", "--memory", default="", metavar="SIZE", help="Memory limit: 64m, 1g."),
            click.option("--cpus", type=click.FloatRange(min=0), default=0, help="CPU limit: 0.5, 2."),
            click.option("--privileged", is_flag=True, help="All devices and capabilities, no seccomp."),
            click.option("--read-only", is_flag=True, help="Mount the root read-only."),
            click.option("--handler", default="", help="Runtime handler (the OCI runtime); the default one if left out."),
            click.option("--log-dir", default=LOG_ROOT, show_default=True, help="Directory below which logs go."),
        )
    ):
        command = option(command)
    return command


@click.command(context_settings={"allow_interspersed_args": False})
@click.option("-d", "--detach", is_flag=True, help="Print the container's id and leave it running.")
@click.option("--rm", "remove", is_flag=True, help="Remove container and pod when it has ended.")
@click.option("-i", "--interactive", is_flag=True, help="Connect standard input.")
@click.option("-t", "--tty", is_flag=True, help="Use a terminal; Ctrl-P Ctrl-Q detaches from it.")
@click.option("--pull", "policy", type=click.Choice(["missing", "always", "never"]), default="missing", show_default=True)
@_options
@click.argument("image")
@click.argument("command", nargs=-1)
@connected
def run(connection: Connection, **words: Any) -> None:
    """Run IMAGE, with COMMAND instead of its own, in a pod of its own.

    The image is pulled when it is not here. Without --detach the log is shown until the process ends, and `wherry run` ends
    with its exit code; an interrupt (Ctrl-C) stops it.
    """
    if words["remove"] and words["detach"]:
        raise click.UsageError("--rm waits for the end, --detach does not: give one of them")
    order = _order(words)
    _provide(connection, words["image"], words["policy"])
    target, container = _create(connection, order)
    if words["detach"]:
        _start(connection, target, container)
        click.echo(container)
        return
    code = _attend(connection, target, container, words)
    if code is None:
        click.echo(f"detached; {order.pod.metadata.name} goes on", err=True)
        return
    if words["remove"]:
        remove_target(connection, target)
    sys.exit(code)


def _order(words: dict[str, Any]) -> Order:
    name = words["name"] or f"{_plain(words['image'])}-{secrets.token_hex(3)}"
    uid = secrets.token_hex(16)
    logs = os.path.join(os.path.abspath(words["log_dir"]), f"{NAMESPACE}_{name}_{uid}")
    labels = settings.pairs(words["label"], "--label")
    return Order(
        pod=_pod(words, name, (uid, logs), labels),
        container=_container(words, name, labels),
        handler=words["handler"],
        logs=logs,
    )


def _plain(image: str) -> str:
    """Make a name that fits a host name of the last part of a reference."""
    last = image.partition("@")[0].rpartition("/")[2].partition(":")[0].lower()
    return "".join(sign if sign.isalnum() else "-" for sign in last).strip("-")[:40] or "container"


def _network(words: dict[str, Any]) -> api_pb2.NamespaceMode:
    return api_pb2.NODE if words["network"] == "host" else api_pb2.POD


def _namespaces(words: dict[str, Any]) -> api_pb2.NamespaceOption:
    return api_pb2.NamespaceOption(network=_network(words), pid=api_pb2.CONTAINER, ipc=api_pb2.POD)


def _pod(words: dict[str, Any], name: str, place: tuple[str, str], labels: dict[str, str]) -> api_pb2.PodSandboxConfig:
    uid, logs = place
    if words["publish"] and words["network"] == "host":
        raise click.UsageError("--publish has no meaning with --network host: the ports are the host's already")
    return api_pb2.PodSandboxConfig(
        metadata=api_pb2.PodSandboxMetadata(name=name, uid=uid, namespace=NAMESPACE),
        hostname="" if words["network"] == "host" else words["hostname"] or name,
        log_directory=logs,
        port_mappings=[settings.port(word) for word in words["publish"]],
        labels={find.RUN_LABEL: "true", **labels},
        annotations={find.LOGS_ANNOTATION: logs},
        linux=api_pb2.LinuxPodSandboxConfig(
            security_context=api_pb2.LinuxSandboxSecurityContext(
                namespace_options=_namespaces(words), privileged=words["privileged"]
            ),
        ),
    )


def _container(words: dict[str, Any], name: str, labels: dict[str, str]) -> api_pb2.ContainerConfig:
    security = api_pb2.LinuxContainerSecurityContext(
        namespace_options=_namespaces(words), privileged=words["privileged"], readonly_rootfs=words["read_only"]
    )
    if words["user"]:
        settings.apply_user(words["user"], security)
    entrypoint = [words["entrypoint"]] if words["entrypoint"] else []
    return api_pb2.ContainerConfig(
        metadata=api_pb2.ContainerMetadata(name=name),
        image=api_pb2.ImageSpec(image=words["image"], user_specified_image=words["image"]),
        command=entrypoint,
        args=words["command"],
        stdin=words["interactive"],
        stdin_once=words["interactive"] and not words["detach"],
        tty=words["tty"],
        working_dir=words["workdir"],
        envs=[settings.environment(word) for word in words["env"]],
        mounts=[settings.volume(word) for word in words["volume"]],
        labels=labels,
        log_path="0.log",
        linux=api_pb2.LinuxContainerConfig(
            resources=settings.resources(words["memory"], words["cpus"]), security_context=security
        ),
    )


def _provide(connection: Connection, image: str, policy: str) -> None:
    """See that the image is here."""
    request = api_pb2.ImageStatusRequest(image=api_pb2.ImageSpec(image=image))
    present = connection.images.ImageStatus(request).HasField("image")
    if policy == "never" and not present:
        raise ClientError(f"image {image} is not here, and --pull never forbids to fetch it")
    if policy == "always" or not present:
        pull_image(connection, image)


def _create(connection: Connection, order: Order) -> tuple[find.Target, str]:
    """Run the pod, create the container and give both; what was made goes again when a step fails."""
    os.makedirs(order.logs, exist_ok=True)
    request = api_pb2.RunPodSandboxRequest(config=order.pod, runtime_handler=order.handler)
    try:
        pod = str(connection.runtime.RunPodSandbox(request).pod_sandbox_id)
    except BaseException:
        os.rmdir(order.logs)
        raise
    described = api_pb2.PodSandbox(
        id=pod, metadata=order.pod.metadata, labels=order.pod.labels, annotations=order.pod.annotations
    )
    target = find.Target(pod=described)
    try:
        creation = api_pb2.CreateContainerRequest(pod_sandbox_id=pod, config=order.container, sandbox_config=order.pod)
        container = str(connection.runtime.CreateContainer(creation).container_id)
    except BaseException:
        remove_target(connection, target)
        raise
    return target, container


def _start(connection: Connection, target: find.Target, container: str) -> None:
    """Start the container; pod and container go again when that fails."""
    try:
        connection.runtime.StartContainer(api_pb2.StartContainerRequest(container_id=container))
    except BaseException:
        remove_target(connection, target)
        raise


def _attend(connection: Connection, target: find.Target, container: str, words: dict[str, Any]) -> int | None:
    """Start the container and stay with it to its end; give its exit code, None when the user has detached."""
    if not words["interactive"] and not words["tty"]:
        _start(connection, target, container)
        return _watch(connection, target, container)
    try:
        if not attach_to(connection, container, stdin=words["interactive"], tty=words["tty"], started=False):
            return None
    except KeyboardInterrupt:
        stop_target(connection, target, GRACE)
    except BaseException:
        if not _was_started(connection, container):
            remove_target(connection, target)
        raise
    return exit_code(connection, container)


def _was_started(connection: Connection, container: str) -> bool:
    request = api_pb2.ContainerStatusRequest(container_id=container)
    return bool(connection.runtime.ContainerStatus(request).status.started_at)


def _watch(connection: Connection, target: find.Target, container: str) -> int:
    """Show the log until the process has ended and give its exit code; an interrupt stops the pod."""
    status = connection.runtime.ContainerStatus(api_pb2.ContainerStatusRequest(container_id=container)).status
    try:
        write(logfile.follow(str(status.log_path), lambda: is_running(connection, container)))
    except KeyboardInterrupt:
        stop_target(connection, target, GRACE)
    status = connection.runtime.ContainerStatus(api_pb2.ContainerStatusRequest(container_id=container)).status
    return int(status.exit_code)
