"""ps, pods, images: what is there."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click
import grpc

from shim.client import find
from shim.client.context import connected, output_option, quiet_option
from shim.client.output import age, as_dict, print_json, print_table, short, size
from shim.gen.runtime.v1 import api_pb2

if TYPE_CHECKING:
    from shim.client.connection import Connection


@click.command()
@click.option("-a", "--all", "everything", is_flag=True, help="Also those that do not run.")
@click.option("-p", "--pod", default="", help="Only those of this pod.")
@quiet_option
@output_option
@connected
def ps(connection: Connection, everything: bool, pod: str, quiet: bool, output: str) -> None:
    """List containers."""
    wanted = find.find(connection, pod).pod.id if pod else ""
    found = find.containers(connection, pod=wanted, running=not everything)
    if quiet:
        _print_ids([container.id for container in found])
    elif output == "json":
        print_json([as_dict(container) for container in found])
    else:
        names = {item.id: item.metadata.name for item in find.pods(connection)}
        rows = [
            (
                short(container.id),
                container.metadata.name,
                names.get(container.pod_sandbox_id, short(container.pod_sandbox_id)),
                _image_name(container),
                _container_state(connection, container),
                age(container.created_at),
            )
            for container in found
        ]
        print_table(("CONTAINER", "NAME", "POD", "IMAGE", "STATE", "CREATED"), rows)


def _image_name(container: api_pb2.Container) -> str:
    name = container.image.user_specified_image or container.image.image or container.image_ref
    return short(name) if name.startswith("sha256:") else name


def _container_state(connection: Connection, container: api_pb2.Container) -> str:
    """Name the state; with the exit code for one that has exited and is not removed meanwhile."""
    name = api_pb2.ContainerState.Name(container.state).removeprefix("CONTAINER_").lower()
    if container.state != api_pb2.CONTAINER_EXITED:
        return name
    try:
        request = api_pb2.ContainerStatusRequest(container_id=container.id)
        status = connection.runtime.ContainerStatus(request).status
    except grpc.RpcError:
        return name
    return f"{name} ({status.exit_code})"


@click.command()
@click.option("-l", "--label", "labels", multiple=True, metavar="KEY=VALUE", help="Only pods with this label; repeatable.")
@quiet_option
@output_option
@connected
def pods(connection: Connection, labels: tuple[str, ...], quiet: bool, output: str) -> None:
    """List pods."""
    wanted = dict(label.partition("=")[::2] for label in labels)
    found = [pod for pod in find.pods(connection) if wanted.items() <= dict(pod.labels).items()]
    if quiet:
        _print_ids([pod.id for pod in found])
    elif output == "json":
        print_json([as_dict(pod) for pod in found])
    else:
        rows = [
            (
                short(pod.id),
                pod.metadata.name,
                pod.metadata.namespace,
                api_pb2.PodSandboxState.Name(pod.state).removeprefix("SANDBOX_").lower(),
                _address(connection, pod),
                age(pod.created_at),
            )
            for pod in found
        ]
        print_table(("POD", "NAME", "NAMESPACE", "STATE", "IP", "CREATED"), rows)


def _address(connection: Connection, pod: api_pb2.PodSandbox) -> str:
    """Give the pod's first IP; empty on the host network, or when it is gone meanwhile."""
    try:
        status = connection.runtime.PodSandboxStatus(api_pb2.PodSandboxStatusRequest(pod_sandbox_id=pod.id)).status
    except grpc.RpcError:
        return ""
    return str(status.network.ip)


@click.command()
@quiet_option
@output_option
@connected
def images(connection: Connection, quiet: bool, output: str) -> None:
    """List images."""
    found = connection.images.ListImages(api_pb2.ListImagesRequest()).images
    if quiet:
        _print_ids([image.id for image in found])
    elif output == "json":
        print_json([as_dict(image) for image in found])
    else:
        rows = [
            (*_split(name), short(image.id), size(image.size), "pinned" if image.pinned else "")
            for image in found
            for name in (image.repo_tags or image.repo_digests or ["<none>"])
        ]
        print_table(("IMAGE", "TAG", "ID", "SIZE", ""), sorted(rows))


def _split(name: str) -> tuple[str, str]:
    """Split a reference into repository and tag; a digest counts as no tag."""
    if "@" in name:
        return name.partition("@")[0], "<none>"
    repository, colon, tag = name.rpartition(":")
    if not colon or "/" in tag:
        return name, "<none>"
    return repository, tag


def _print_ids(ids: list[str]) -> None:
    for identifier in ids:
        click.echo(identifier)
