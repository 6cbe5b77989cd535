"""load, save, tag, rmi, prune: looking after images. All but rmi need wherryd: CRI has nothing like them."""

from __future__ import annotations

import os
import sys
from typing import TYPE_CHECKING, BinaryIO

import click

from shim.client.context import connected
from shim.client.errors import ClientError, NotFoundError
from shim.client.output import short, size
from shim.gen.runtime.v1 import api_pb2
from shim.gen.wherry.v1 import wherry_pb2

if TYPE_CHECKING:
    from collections.abc import Iterator

    from shim.client.connection import Connection

CHUNK = 1024 * 1024
"""Bytes of an archive in one message."""
FORMATS = {"docker-archive": wherry_pb2.DOCKER_ARCHIVE, "oci-archive": wherry_pb2.OCI_ARCHIVE}


@click.command()
@click.option("-i", "--input", "archive", type=click.File("rb"), default="-", help="File to read; standard input if left out.")
@connected
def load(connection: Connection, archive: BinaryIO) -> None:
    """Load images from an OCI or docker archive."""
    if archive.isatty():
        raise click.UsageError("give an archive with --input, or on standard input")
    response = connection.wherry.Load(wherry_pb2.LoadRequest(data=chunk) for chunk in _chunks(archive))
    for image in response.images:
        click.echo("\n".join(image.references) or image.image_id)


def _chunks(archive: BinaryIO) -> Iterator[bytes]:
    empty = True
    while chunk := archive.read(CHUNK):
        empty = False
        yield chunk
    if empty:
        yield b""


@click.command()
@click.option("-O", "--output", default="-", metavar="FILE", help="File to write; standard output if left out.")
@click.option("--format", "kind", type=click.Choice(list(FORMATS)), default="docker-archive", show_default=True)
@click.argument("names", nargs=-1, required=True, metavar="IMAGE...")
@connected
def save(connection: Connection, output: str, kind: str, names: tuple[str, ...]) -> None:
    """Save images with all their layers into one archive."""
    if output == "-" and sys.stdout.isatty():
        raise click.UsageError("give a file with --output: an archive does not belong on a terminal")
    request = wherry_pb2.SaveRequest(references=names, format=FORMATS[kind])
    stream = connection.wherry.Save(request)
    if output == "-":
        _write(stream, sys.stdout.buffer)
        return
    partial = f"{output}.partial"
    try:
        with open(partial, "wb") as target:
            _write(stream, target)
        os.replace(partial, output)
    except OSError as error:
        raise ClientError(f"cannot write {output}: {error.strerror}") from error
    finally:
        if os.path.exists(partial):
            os.unlink(partial)


def _write(stream: Iterator[wherry_pb2.SaveResponse], target: BinaryIO) -> None:
    target.writelines(message.data for message in stream)
    target.flush()


@click.command()
@click.argument("source")
@click.argument("target")
@connected
def tag(connection: Connection, source: str, target: str) -> None:
    """Give the image SOURCE one more name, TARGET."""
    connection.wherry.Tag(wherry_pb2.TagRequest(source=source, target=target))


@click.command("rmi")
@click.argument("names", nargs=-1, required=True, metavar="IMAGE...")
@connected
def remove_image(connection: Connection, names: tuple[str, ...]) -> None:
    """Remove images, each with all of its names."""
    for name in names:
        spec = api_pb2.ImageSpec(image=name)
        if not connection.images.ImageStatus(api_pb2.ImageStatusRequest(image=spec)).HasField("image"):
            raise NotFoundError(f"no image has the name or id {name!r}")
        connection.images.RemoveImage(api_pb2.RemoveImageRequest(image=spec))
        click.echo(name)


@click.command()
@click.option("-a", "--all", "everything", is_flag=True, help="Also images that have a tag.")
@connected
def prune(connection: Connection, everything: bool) -> None:
    """Remove images that no container uses and that have no tag."""
    response = connection.wherry.Prune(wherry_pb2.PruneRequest(all=everything))
    for image in response.image_ids:
        click.echo(short(image))
    click.echo(f"freed {size(response.freed_bytes)}", err=True)
