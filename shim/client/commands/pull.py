"""pull: with a bar for each layer on a terminal, with plain lines elsewhere, and without either on other daemons."""

from __future__ import annotations

import os
import sys
from typing import TYPE_CHECKING

import click
from rich.console import Console
from rich.progress import BarColumn, DownloadColumn, Progress, TaskID, TextColumn, TransferSpeedColumn

from shim.client.connection import UnservedError, unserved
from shim.client.context import connected
from shim.client.output import short
from shim.gen.runtime.v1 import api_pb2
from shim.gen.wherry.v1 import wherry_pb2

if TYPE_CHECKING:
    from collections.abc import Callable

    from shim.client.connection import Connection

WORDS = {
    wherry_pb2.WAITING: "waiting",
    wherry_pb2.DOWNLOADING: "downloading",
    wherry_pb2.UNPACKING: "unpacking",
    wherry_pb2.DONE: "done",
    wherry_pb2.EXISTS: "is here",
}
PASSWORD_VARIABLE = "WHERRY_PASSWORD"  # noqa: S105 - the name of a variable, not a password


@click.command()
@click.option(
    "-u", "--user", default="", help=f"Name at the registry; the password comes from {PASSWORD_VARIABLE} or a prompt."
)
@click.option("-q", "--quiet", is_flag=True, help="Print the image's id only.")
@click.argument("name", metavar="IMAGE")
@connected
def pull(connection: Connection, user: str, quiet: bool, name: str) -> None:
    """Pull an image from its registry and print its id."""
    password = _password(user) if user else ""
    click.echo(pull_image(connection, name, credentials=(user, password), quiet=quiet))


def _password(user: str) -> str:
    found = os.environ.get(PASSWORD_VARIABLE)
    return found if found is not None else str(click.prompt(f"Password of {user}", hide_input=True, err=True))


def pull_image(connection: Connection, name: str, *, credentials: tuple[str, str] = ("", ""), quiet: bool = False) -> str:
    """Pull an image, show how far it is on stderr, and give its id."""
    user, password = credentials
    try:
        with unserved():
            request = wherry_pb2.PullProgressRequest(reference=name, username=user, password=password)
            return _follow(connection, request, quiet=quiet)
    except UnservedError:
        auth = api_pb2.AuthConfig(username=user, password=password) if user else None
        plain = api_pb2.PullImageRequest(image=api_pb2.ImageSpec(image=name), auth=auth)
        return str(connection.images.PullImage(plain).image_ref)


def _follow(connection: Connection, request: wherry_pb2.PullProgressRequest, *, quiet: bool) -> str:
    stream = connection.wherry.PullProgress(request)
    image = ""
    if quiet or not sys.stderr.isatty():
        show = _ignore if quiet else _Lines().show
        for message in stream:
            _each(message, show)
            image = message.image_id or image
        return image
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        DownloadColumn(),
        TransferSpeedColumn(),
        TextColumn("{task.fields[phase]}"),
    )
    with Progress(*columns, console=_stderr()) as progress:
        bars = _Bars(progress)
        for message in stream:
            _each(message, bars.show)
            image = message.image_id or image
    return image


def _stderr() -> Console:
    return Console(stderr=True)


def _each(message: wherry_pb2.PullProgressResponse, show: Callable[[wherry_pb2.LayerProgress], None]) -> None:
    for layer in message.layers:
        show(layer)


def _ignore(layer: wherry_pb2.LayerProgress) -> None:
    """Show nothing of `layer`."""


class _Lines:
    """One line when a layer enters another phase."""

    def __init__(self) -> None:
        self._phases: dict[str, int] = {}

    def show(self, layer: wherry_pb2.LayerProgress) -> None:
        """Print a line, unless this phase has been told."""
        if self._phases.get(layer.digest) != layer.phase:
            self._phases[layer.digest] = layer.phase
            click.echo(f"{short(layer.digest)}: {WORDS[layer.phase]}", err=True)


class _Bars:
    """One bar a layer."""

    def __init__(self, progress: Progress) -> None:
        self._progress = progress
        self._bars: dict[str, TaskID] = {}

    def show(self, layer: wherry_pb2.LayerProgress) -> None:
        """Move the layer's bar, or add it."""
        if layer.digest not in self._bars:
            self._bars[layer.digest] = self._progress.add_task(short(layer.digest), phase="")
        complete = layer.phase in {wherry_pb2.DONE, wherry_pb2.EXISTS}
        total = layer.total or None
        current = layer.total if complete else layer.current
        self._progress.update(self._bars[layer.digest], completed=current, total=total, phase=WORDS[layer.phase])
