"""port-forward: what listens in a pod, reached from here."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from shim.client import find, forward
from shim.client.context import connected
from shim.gen.runtime.v1 import api_pb2

if TYPE_CHECKING:
    from shim.client.connection import Connection


@click.command("port-forward")
@click.option("--listen", "address", default="127.0.0.1", show_default=True, metavar="ADDRESS", help="Local address.")
@click.argument("name", metavar="POD|CONTAINER")
@click.argument("ports", nargs=-1, required=True, metavar="[LOCAL:]PORT...")
@connected
def port_forward(connection: Connection, address: str, name: str, ports: tuple[str, ...]) -> None:
    """Listen on local ports and forward each connection to a PORT on the loopback of a pod, until interrupted.

    `:PORT` takes any free local port and says which.
    """
    mappings = [forward.parse(word) for word in ports]
    pod = find.find(connection, name).pod
    request = api_pb2.PortForwardRequest(pod_sandbox_id=pod.id, port=[mapping.remote for mapping in mappings])
    forward.run(str(connection.runtime.PortForward(request).url), mappings, address)
