"""The tables of attacks name tests that are there, each attack once: who asks about an advisory finds what tries it."""

from __future__ import annotations

import ast
import tomllib
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[2]
TABLES = sorted((ROOT / "tests" / "system").glob("attacks_*.toml"))


def attacks(table: Path) -> list[dict[str, Any]]:
    """Give a table's entries: `names` of advisories, `what` it is, `tests` as FILE::FUNCTION from the top of the checkout."""
    found = tomllib.loads(table.read_text(encoding="utf-8"))["attack"]
    assert isinstance(found, list)
    return found


def functions(file: str) -> set[str]:
    tree = ast.parse((ROOT / file).read_text(encoding="utf-8"))
    return {node.name for node in ast.walk(tree) if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)}


def test_there_are_tables() -> None:
    assert TABLES


@pytest.mark.parametrize("table", TABLES, ids=lambda table: table.stem)
def test_every_attack_has_tests_that_exist(table: Path) -> None:
    for attack in attacks(table):
        assert set(attack) == {"names", "what", "tests"}, attack
        assert attack["names"], attack
        assert attack["what"], attack
        assert attack["tests"], attack
        for test in attack["tests"]:
            file, _, name = test.partition("::")
            assert name.startswith("test_"), test
            assert name in functions(file), test


@pytest.mark.parametrize("table", TABLES, ids=lambda table: table.stem)
def test_every_attack_is_named_once(table: Path) -> None:
    count = Counter(name for attack in attacks(table) for name in attack["names"])
    assert [name for name, times in count.items() if times > 1] == []
