"""What every subcommand gets: the connection and the chosen output format."""

from __future__ import annotations

from dataclasses import dataclass
from functools import update_wrapper
from typing import TYPE_CHECKING, Any, TypeVar

import click

from shim.client.connection import Connection, plain_errors

if TYPE_CHECKING:
    from collections.abc import Callable

F = TypeVar("F", bound="Callable[..., Any]")


@dataclass(frozen=True, slots=True, kw_only=True)
class Context:
    """The endpoint to speak to."""

    address: str


def connected(command: Callable[..., None]) -> Callable[..., None]:
    """Give a command a Connection as its first argument, and let its gRPC errors be told in plain words."""

    def wrapper(*args: Any, **kwargs: Any) -> None:
        context: Context = click.get_current_context().find_root().obj
        connection = Connection(context.address)
        try:
            with plain_errors(connection.address):
                command(connection, *args, **kwargs)
        finally:
            connection.close()

    return update_wrapper(wrapper, command)


def output_option(command: F) -> F:
    """Add -o/--output: a table or JSON."""
    choices = click.Choice(["table", "json"])
    return click.option("-o", "--output", type=choices, default="table", help="How to print: a table or JSON.")(command)


def quiet_option(command: F) -> F:
    """Add -q/--quiet: full ids only."""
    return click.option("-q", "--quiet", is_flag=True, help="Print full ids only, one a line.")(command)
