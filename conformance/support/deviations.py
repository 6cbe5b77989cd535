"""Known deviations: which judgement a product of some version does not pass, and why. Each suite has a deviations.toml."""

from __future__ import annotations

import fnmatch
import operator
import re
import tomllib
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from pathlib import Path

COMPARE = {"<": operator.lt, "<=": operator.le, ">": operator.gt, ">=": operator.ge, "==": operator.eq}


class Judged(Protocol):
    """What is under judgement: whose it is, and which version."""

    @property
    def name(self) -> str:
        """The product, as the table calls it."""

    @property
    def version(self) -> tuple[int, ...]:
        """The numbers of its version."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Deviation:
    """One line of the table."""

    runtime: str
    versions: str
    test: str
    reason: str
    sometimes: bool

    def concerns(self, judged: Judged) -> bool:
        """Tell whether this version is meant. Versions are comma-separated comparisons, all of which hold."""
        return judged.name == self.runtime and all(
            _holds(judged.version, part.strip()) for part in self.versions.split(",") if part.strip()
        )

    def names(self, test: str) -> bool:
        """Tell whether this test (`file::function[parameter]`) is meant; * stands for anything, brackets for themselves."""
        return fnmatch.fnmatchcase(test, self.test.replace("[", "[[]"))


def _holds(version: tuple[int, ...], comparison: str) -> bool:
    found = re.fullmatch(r"(<=|>=|==|<|>)\s*(\d+(?:\.\d+)*)", comparison)
    if found is None:
        raise ValueError(f"{comparison!r} is no comparison of versions, such as >=1.1")
    wanted = tuple(int(word) for word in found[2].split("."))
    width = max(len(version), len(wanted))
    pad = [part + (0,) * (width - len(part)) for part in (version, wanted)]
    return bool(COMPARE[found[1]](*pad))


def load(table: Path) -> list[Deviation]:
    """Read a table: for each product and range of versions, the tests and why. ValueError names a bad entry."""
    document = tomllib.loads(table.read_text(encoding="utf-8"))
    found = []
    for entry in document.get("deviation", []):
        missing = {"runtime", "tests", "reason"} - entry.keys()
        if missing or not entry["reason"].strip():
            raise ValueError(
                f"{table.name}: an entry of {entry.get('runtime')} lacks {', '.join(sorted(missing)) or 'a reason'}"
            )
        found += [
            Deviation(
                runtime=entry["runtime"],
                versions=entry.get("versions", ""),
                test=test,
                reason=entry["reason"],
                sometimes=entry.get("sometimes", False),
            )
            for test in entry["tests"]
        ]
    return found


def known(judged: Judged, test: str, table: list[Deviation]) -> Deviation | None:
    """Give the entry that says why this version does not pass this test, or None."""
    return next((entry for entry in table if entry.concerns(judged) and entry.names(test)), None)
