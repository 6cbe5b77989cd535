"""The plugins under judgement, a node for each test, and what is said about a failure."""

from __future__ import annotations

import os
import shutil
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from conformance.cni.support import world
from conformance.cni.support.node import Node
from conformance.cni.support.plugins import Plugins, identify
from conformance.support import verdicts

if TYPE_CHECKING:
    from collections.abc import Generator

SPECIFICATION = "https://github.com/containernetworking/cni/blob/spec-v1.1.0/"
TABLE = Path(__file__).with_name("deviations.toml")
TOOLS = {"ip": "iproute2", "tc": "iproute2", "nft": "nftables", "mount": "mount"}
plugins_key = pytest.StashKey[Plugins]()


def pytest_addoption(parser: pytest.Parser) -> None:
    """Name the folder."""
    group = parser.getgroup("CNI plugins")
    default = os.environ.get("CNI_PATH", "/opt/cni/bin")
    group.addoption("--plugin-dir", default=default, help="the folder of plugins to judge (default: CNI_PATH or /opt/cni/bin)")


def pytest_configure(config: pytest.Config) -> None:
    """Leave the machine's network before anything is collected, and find the plugins: deviations depend on their version."""
    verdicts.configure(config)
    missing = sorted({package for tool, package in TOOLS.items() if shutil.which(tool) is None})
    if missing:
        raise pytest.UsageError(f"the judge needs {', '.join(missing)}")
    try:
        config.stash[plugins_key] = identify(config.getoption("--plugin-dir"))
        world.enter()
    except (ValueError, OSError) as error:
        raise pytest.UsageError(str(error)) from error


def pytest_report_header(config: pytest.Config) -> str:
    """Say who is judged and where."""
    plugins = config.stash[plugins_key]
    return (
        f"judged: CNI plugins of {plugins.name} ({plugins.folder}), CNI {plugins.spoken[-1]}; host: Linux {os.uname().release}"
    )


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Expect the known deviations to fail."""
    verdicts.expect(items, config.stash[plugins_key], TABLE)


@pytest.hookimpl(wrapper=True)
def pytest_pyfunc_call(pyfuncitem: pytest.Function) -> Generator[None, object, object]:
    """Judge what is left behind as part of the test."""
    return (yield from verdicts.judge_leaks(pyfuncitem, "node", "DEL (SPEC.md#del)"))


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item, call: pytest.CallInfo[None]
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Put the rule and the section of the specification under a failure."""
    report = yield
    return verdicts.cite(item, call, report, SPECIFICATION)


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Name the deviations that are none any more."""
    verdicts.name_outdated(terminalreporter, TABLE)


@pytest.fixture(scope="session")
def plugins(pytestconfig: pytest.Config) -> Plugins:
    """Give the plugins under judgement."""
    return pytestconfig.stash[plugins_key]


@pytest.fixture
def node(plugins: Plugins, tmp_path: Path) -> Node:
    """Give a node; it is closed, and what is left on it judged, as part of the test."""
    return Node(plugins, tmp_path)
