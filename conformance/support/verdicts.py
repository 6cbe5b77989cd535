"""How a suite speaks of its judgements: every test names its rule, a known deviation is expected, a failure cites the rule."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol, cast

import pytest

from conformance.support import deviations

if TYPE_CHECKING:
    from collections.abc import Generator
    from pathlib import Path

    from conformance.support.deviations import Judged

_sometimes = pytest.StashKey[bool]()


class Closing(Protocol):
    """What a test works with: something that takes back what was made, and says what could not be."""

    def close(self) -> list[str]:
        """Give what is left, a line each."""


def configure(config: pytest.Config) -> None:
    """Declare the mark by which a test names its rule."""
    config.addinivalue_line("markers", "rule(section): where the rule stands that a test judges by")


def expect(items: list[pytest.Item], judged: Judged, table: Path) -> None:
    """Expect the known deviations of `table` to fail; refuse a test that names no rule."""
    entries = deviations.load(table)
    for item in items:
        if item.get_closest_marker("rule") is None:
            raise pytest.UsageError(f"{item.nodeid} names no rule to judge by")
        entry = deviations.known(judged, f"{item.path.name}::{item.name}", entries)
        if entry:
            item.add_marker(pytest.mark.xfail(reason=f"known deviation: {entry.reason}", strict=False))
            item.stash[_sometimes] = entry.sometimes


def judge_leaks(item: pytest.Function, fixture: str, command: str) -> Generator[None, object, object]:
    """Judge what a test's `fixture` says on close() that `command` left, as part of the test: a leak can be a known deviation.

    For a wrapper of pytest_pyfunc_call, by `yield from`.
    """
    subject = cast("Closing | None", item.funcargs.get(fixture))
    try:
        answer = yield
    finally:
        left = subject.close() if subject else []
    if left:
        pytest.fail(f"left behind after {command}:\n  " + "\n  ".join(left), pytrace=False)
    return answer


def cite(item: pytest.Item, call: pytest.CallInfo[None], report: pytest.TestReport, specification: str) -> pytest.TestReport:
    """Put the rule, and its section below the address `specification`, under a failure."""
    if report.failed and call.when != "teardown":
        sections = [str(mark.args[0]) for mark in item.iter_markers("rule")]
        where = sections[0] if sections else "?"
        link = specification + where if ".md" in where else where
        rule = (getattr(getattr(item, "function", None), "__doc__", None) or item.name.replace("_", " ")).strip()
        report.sections.insert(0, ("rule", f"{rule}\n  {link}"))
    if item.stash.get(_sometimes, False) and report.passed and hasattr(report, "wasxfail"):
        del report.wasxfail  # it depends on timing: to pass is no news
    return report


def name_outdated(terminalreporter: pytest.TerminalReporter, table: Path) -> None:
    """Name the deviations that are none any more: their lines can be taken out of the table."""
    passed = terminalreporter.getreports("xpassed")
    if passed:
        terminalreporter.section(f"listed in {table.parent.name}/{table.name}, and passed")
        for report in passed:
            terminalreporter.write_line(report.nodeid)
