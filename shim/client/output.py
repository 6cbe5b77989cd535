"""What people see: tables, JSON, short ids, ages and sizes."""

from __future__ import annotations

import json
import sys
import time
from typing import TYPE_CHECKING, Any

import click
from google.protobuf.json_format import MessageToDict
from rich.console import Console
from rich.table import Table

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from google.protobuf.message import Message

SHORT = 12
"""Digits of an id in tables."""
_UNITS = ((60, "second"), (60, "minute"), (24, "hour"), (7, "day"), (52, "week"), (1 << 30, "year"))


def short(identifier: str) -> str:
    """Give the first digits of an id, without the "sha256:" of an image's."""
    return identifier.removeprefix("sha256:")[:SHORT]


def age(nanoseconds: int) -> str:
    """Say how long ago a time (nanoseconds since the epoch) was; empty for 0."""
    if nanoseconds <= 0:
        return ""
    amount = max(0, time.time_ns() - nanoseconds) // 1_000_000_000
    for size, unit in _UNITS:
        if amount < size:
            return f"{amount} {unit}{'' if amount == 1 else 's'} ago"
        amount //= size
    return "long ago"


def size(count: int) -> str:
    """Write a number of bytes with a decimal unit."""
    value = float(count)
    for unit in ("B", "kB", "MB", "GB"):
        if value < 1000:
            return f"{value:.0f} {unit}" if unit == "B" or value >= 100 else f"{value:.1f} {unit}"
        value /= 1000
    return f"{value:.1f} TB"


def as_dict(message: Message) -> dict[str, Any]:
    """Give a message as plain values, with the field names of the .proto file."""
    decoded: dict[str, Any] = MessageToDict(message, preserving_proto_field_name=True)
    return decoded


def print_json(value: object) -> None:
    """Print plain values as JSON."""
    click.echo(json.dumps(value, indent=2, ensure_ascii=False))


def print_table(headers: Sequence[str], rows: Iterable[Sequence[str]]) -> None:
    """Print a table: fitted to a terminal, full and easily cut into columns when piped."""
    filled = [list(row) for row in rows]
    if not sys.stdout.isatty():
        _print_columns(headers, filled)
        return
    table = Table(box=None, pad_edge=False, padding=(0, 3, 0, 0), header_style="bold")
    for header in headers:
        table.add_column(header, overflow="ellipsis", no_wrap=True)
    for row in filled:
        table.add_row(*row)
    Console(highlight=False, markup=False).print(table)


def _print_columns(headers: Sequence[str], rows: list[list[str]]) -> None:
    widths = [max(len(row[column]) for row in [list(headers), *rows]) for column in range(len(headers))]
    for row in [list(headers), *rows]:
        cells = (cell.ljust(width) for cell, width in zip(row, widths, strict=True))
        click.echo("   ".join(cells).rstrip())
