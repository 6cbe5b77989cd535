"""Known deviations: which judgement a runtime of some version does not pass, and why. The table is deviations.toml."""

from __future__ import annotations

import fnmatch
import operator
import re
import tomllib
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from conformance.oci.support.runtime import Runtime

TABLE = Path(__file__).resolve().parents[1] / "deviations.toml"
COMPARE = {"<": operator.lt, "<=": operator.le, ">": operator.gt, ">=": operator.ge, "==": operator.eq}


@dataclass(frozen=True, slots=True, kw_only=True)
class Deviation:
    """One line of the table."""

    runtime: str
    versions: str
    test: str
    reason: str
    sometimes: bool

    def concerns(self, runtime: Runtime) -> bool:
        """Tell whether this runtime's version is meant. Versions are comma-separated comparisons, all of which hold."""
        return runtime.name == self.runtime and all(
            _holds(runtime.version, part.strip()) for part in self.versions.split(",") if part.strip()
        )

    def names(self, test: str) -> bool:
        """Tell whether this test (`file::function[parameter]`) is meant; * stands for anything, brackets for themselves."""
        return fnmatch.fnmatchcase(test, self.test.replace("[", "[[]"))


def _holds(version: tuple[int, ...], comparison: str) -> bool:
    found = re.fullmatch(r"(<=|>=|==|<|>)\s*(\d+(?:\.\d+)*)", comparison)
    if found is None:
        raise ValueError(f"{TABLE.name}: {comparison!r} is no comparison of versions, such as >=1.1")
    wanted = tuple(int(word) for word in found[2].split("."))
    width = max(len(version), len(wanted))
    pad = [part + (0,) * (width - len(part)) for part in (version, wanted)]
    return bool(COMPARE[found[1]](*pad))


def load(table: Path = TABLE) -> list[Deviation]:
    """Read the table: for each runtime and range of versions, the tests and why. ValueError names a bad entry."""
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


def known(runtime: Runtime, test: str, table: list[Deviation]) -> Deviation | None:
    """Give the entry that says why this runtime does not pass this test, or None."""
    return next((entry for entry in table if entry.concerns(runtime) and entry.names(test)), None)
