"""The command line of `wherry`: what it refuses, and how it says so."""

from __future__ import annotations

import pytest
from click.testing import CliRunner

from shim.client.main import main


def _invoke(*words: str) -> tuple[int, str]:
    result = CliRunner().invoke(main, ["--address", "/nonexistent/socket", *words])
    assert result.exception is None or isinstance(result.exception, SystemExit), result.exception
    return result.exit_code, result.output


@pytest.mark.parametrize(
    "words", [["ps"], ["pods", "-o", "json"], ["run", "busybox"], ["pull", "busybox"], ["exec", "a", "b"], ["info"]]
)
def test_no_daemon(words: list[str]) -> None:
    code, output = _invoke(*words)
    assert code == 1
    assert output.startswith("wherry: cannot reach unix:///nonexistent/socket")
    assert output.count("\n") == 1


def test_version_without_a_daemon_tells_its_own() -> None:
    code, output = _invoke("version")
    assert code == 1
    assert output.startswith("this command   0.")


@pytest.mark.parametrize(
    "words",
    [
        ["run"],
        ["run", "-p", "x", "busybox"],
        ["run", "--rm", "-d", "busybox"],
        ["run", "--network", "host", "-p", "1:2", "busybox"],
        ["run", "-m", "much", "busybox"],
        ["run", "-v", "/nonexistent:/x", "busybox"],
        ["exec", "a"],
        ["rm"],
        ["rm", "--all", "x"],
        ["logs", "--since", "yesterday", "x"],
        ["unknown"],
    ],
)
def test_wrong_command_lines(words: list[str]) -> None:
    assert _invoke(*words)[0] == 2


@pytest.mark.parametrize("words", [["run", "-it", "busybox"], ["exec", "-t", "a", "sh"]])
def test_sessions_are_refused_plainly(words: list[str]) -> None:
    code, output = _invoke(*words)
    assert code == 1
    assert "interactive session" in output


def test_address_from_the_environment() -> None:
    for variable in ("WHERRY_ADDRESS", "CONTAINER_RUNTIME_ENDPOINT"):
        result = CliRunner().invoke(main, ["ps"], env={variable: "unix:///nonexistent/other"})
        assert "unix:///nonexistent/other" in result.output
