"""How the demo looks: steps as they happen, a table of their times at the end."""

from __future__ import annotations

import time
from contextlib import contextmanager
from typing import TYPE_CHECKING

from rich.console import Console
from rich.table import Table

if TYPE_CHECKING:
    from collections.abc import Iterator


class CheckError(Exception):
    """Something that must hold does not."""


class Show:
    """Prints steps, what they show and what was checked; keeps their times."""

    def __init__(self) -> None:
        self.console = Console(highlight=False)
        self.checks = 0
        self._steps: list[tuple[str, float, bool]] = []

    @contextmanager
    def step(self, title: str) -> Iterator[None]:
        """Time what happens inside and print its title."""
        self.console.print(f"[bold cyan]▸ {title}[/]")
        started = time.perf_counter()
        done = False
        try:
            yield
            done = True
        finally:
            self._steps.append((title, time.perf_counter() - started, done))

    def say(self, text: str) -> None:
        """Print something that the step found."""
        for line in text.rstrip().splitlines():
            self.console.print(f"    {line}", markup=False)

    def check(self, fact: str, *, holds: bool, found: object = "") -> None:
        """Print a fact that must hold; raise CheckError when it does not."""
        if not holds:
            raise CheckError(f"{fact}: this does not hold{f' (found {found})' if found != '' else ''}")
        self.checks += 1
        self.console.print(f"    [green]✓[/] {fact}")

    def times(self) -> None:
        """Print the table of times."""
        table = Table(title="How long each step took", title_justify="left", box=None, pad_edge=False)
        table.add_column("step")
        table.add_column("ms", justify="right")
        for title, seconds, done in self._steps:
            table.add_row(title if done else f"[red]{title} (failed)[/]", f"{seconds * 1000:.1f}")
        table.add_row("[bold]all together[/]", f"[bold]{sum(seconds for _, seconds, _ in self._steps) * 1000:.1f}[/]")
        self.console.print()
        self.console.print(table)
