"""The source files, for tests about the sources themselves."""

from __future__ import annotations

import ast
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

ROOT = Path(__file__).resolve().parents[2]
PACKAGES = ("shim", "runtime", "cni")
"""What is installed; the rest only judges it."""


@dataclass(frozen=True, slots=True)
class Source:
    """One file: its path below the repository and what is in it."""

    path: str
    text: str

    @property
    def tree(self) -> ast.Module:
        """The parsed file."""
        return ast.parse(self.text, self.path)

    def imports(self) -> Iterator[str]:
        """Give the full names of all modules and names it imports at run time, wherever the statement stands."""
        for node in _outside_type_checking(self.tree):
            if isinstance(node, ast.Import):
                yield from (alias.name for alias in node.names)
            elif isinstance(node, ast.ImportFrom) and node.module:
                yield from (f"{node.module}.{alias.name}" for alias in node.names)

    def calls(self) -> Iterator[str]:
        """Give the dotted names of everything it calls."""
        for node in ast.walk(self.tree):
            if isinstance(node, ast.Call):
                yield ast.unparse(node.func)


def _outside_type_checking(node: ast.AST) -> Iterator[ast.AST]:
    if isinstance(node, ast.If) and ast.unparse(node.test).endswith("TYPE_CHECKING"):
        for child in node.orelse:
            yield from _outside_type_checking(child)
        return
    yield node
    for child in ast.iter_child_nodes(node):
        yield from _outside_type_checking(child)


@cache
def sources(*folders: str) -> tuple[Source, ...]:
    """Give every Python file below these folders, without generated ones."""
    found = []
    for folder in folders:
        for path in sorted((ROOT / folder).rglob("*.py")):
            name = str(path.relative_to(ROOT))
            if not name.startswith("shim/gen/"):
                found.append(Source(name, path.read_text(encoding="utf-8")))
    return tuple(found)
