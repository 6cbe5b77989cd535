"""inspect, version, info: everything the daemon knows."""

from __future__ import annotations

import json
from importlib.metadata import version as package_version
from typing import TYPE_CHECKING, Any

import click
import grpc

from shim.client import find
from shim.client.connection import UnservedError, unserved
from shim.client.context import connected, output_option
from shim.client.errors import NotFoundError
from shim.client.output import age, as_dict, print_json, size
from shim.gen.runtime.v1 import api_pb2
from shim.gen.wherry.v1 import wherry_pb2

if TYPE_CHECKING:
    from shim.client.connection import Connection


@click.command()
@click.argument("names", nargs=-1, required=True, metavar="POD|CONTAINER|IMAGE...")
@connected
def inspect(connection: Connection, names: tuple[str, ...]) -> None:
    """Print everything known of pods, containers or images, as JSON.

    For a name that a pod and a container share, both are printed.
    """
    print_json([found for name in names for found in _inspect(connection, name)])


def _inspect(connection: Connection, name: str) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = []
    try:
        target = find.find(connection, name)
    except NotFoundError:
        response = connection.images.ImageStatus(api_pb2.ImageStatusRequest(image=api_pb2.ImageSpec(image=name), verbose=True))
        if not response.HasField("image"):
            raise NotFoundError(f"no pod, container or image has the name or id {name!r}") from None
        return [_merged("image", as_dict(response.image), response.info)]
    if target.container is None:
        status = connection.runtime.PodSandboxStatus(
            api_pb2.PodSandboxStatusRequest(pod_sandbox_id=target.pod.id, verbose=True)
        )
        found.append(_merged("pod", as_dict(status.status), status.info))
        containers = [item for item in find.containers(connection, pod=target.pod.id) if item.metadata.name == name]
    else:
        containers = [target.container]
    for container in containers:
        answer = connection.runtime.ContainerStatus(api_pb2.ContainerStatusRequest(container_id=container.id, verbose=True))
        found.append(_merged("container", as_dict(answer.status), answer.info))
    return found


def _merged(kind: str, status: dict[str, Any], info: Any) -> dict[str, Any]:
    """Put the verbose information, which is JSON inside strings, below "info"."""
    return {"kind": kind} | status | ({"info": {key: _decoded(value) for key, value in info.items()}} if info else {})


def _decoded(value: str) -> Any:
    try:
        return json.loads(value)
    except ValueError:
        return value


@click.command()
@output_option
@connected
def version(connection: Connection, output: str) -> None:
    """Print the versions of this command and of the daemon."""
    shown = {"this command": package_version("wherry")}
    try:
        answer = connection.runtime.Version(api_pb2.VersionRequest(), timeout=5)
    except grpc.RpcError:
        _print_pairs(shown, output)
        raise
    shown |= {answer.runtime_name or "daemon": answer.runtime_version, "CRI": answer.runtime_api_version}
    _print_pairs(shown, output)


@click.command()
@output_option
@connected
def info(connection: Connection, output: str) -> None:
    """Print what the daemon is, how it is, and how much it holds."""
    answer = connection.runtime.Status(api_pb2.StatusRequest())
    shown: dict[str, Any] = {"address": connection.address}
    for condition in answer.status.conditions:
        state = "yes" if condition.status else f"no: {condition.reason} {condition.message}".rstrip()
        shown[condition.type] = state
    shown["handlers"] = ", ".join(sorted(handler.name or "(default)" for handler in answer.runtime_handlers))
    try:
        with unserved():
            shown |= _own_info(connection.wherry.Info(wherry_pb2.InfoRequest()), output)
    except UnservedError:
        shown["pods"] = str(len(find.pods(connection)))
        shown["containers"] = str(len(find.containers(connection)))
    _print_pairs(shown, output)


def _own_info(answer: wherry_pb2.InfoResponse, output: str) -> dict[str, Any]:
    if output == "json":
        return as_dict(answer)
    return {
        "version": answer.version,
        "pid": f"{answer.pid}, started {age(answer.started_at)}",
        "root": answer.root,
        "state": answer.state,
        "Python": answer.python_version,
        "kernel": answer.kernel_version,
        "cgroups": answer.cgroup_layout,
        "pods": str(answer.pods),
        "containers": f"{answer.containers}, {answer.containers_running} running",
        "images": f"{answer.images}, {size(answer.image_bytes)}",
    }


def _print_pairs(pairs: dict[str, Any], output: str) -> None:
    if output == "json":
        print_json(pairs)
        return
    width = max(len(key) for key in pairs)
    for key, value in pairs.items():
        click.echo(f"{key.ljust(width)}   {value}")
