"""The command line of `wherry`: what it refuses, and how it says so."""

from __future__ import annotations

import click
import pytest
from click.testing import CliRunner

from shim.client import forward, streams
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


def test_a_session_has_no_timeout() -> None:
    code, output = _invoke("exec", "-t", "--timeout", "3", "a", "sh")
    assert code == 2
    assert "--timeout cannot be given with -i or -t" in output


@pytest.mark.parametrize(
    ("word", "mapping"), [("80", (80, 80)), ("8080:80", (8080, 80)), (":80", (0, 80)), ("65535:1", (65535, 1))]
)
def test_port_mappings(word: str, mapping: tuple[int, int]) -> None:
    parsed = forward.parse(word)
    assert (parsed.local, parsed.remote) == mapping


@pytest.mark.parametrize("word", ["", "a", "80:", "0", "65536", "70000:80", "-1:80", "1:2:3"])
def test_wrong_port_mappings(word: str) -> None:
    with pytest.raises(click.BadParameter):
        forward.parse(word)


def test_detach_keys() -> None:
    keys = streams._Keys(wanted=True)
    assert keys.take(b"abc") == (b"abc", False)
    assert keys.take(b"d\x10") == (b"d", False)
    assert keys.take(b"e") == (b"\x10e", False)
    assert keys.take(b"f\x10") == (b"f", False)
    assert keys.take(b"\x11g") == (b"", True)
    assert streams._Keys(wanted=False).take(streams.DETACH) == (streams.DETACH, False)


def test_address_from_the_environment() -> None:
    for variable in ("WHERRY_ADDRESS", "CONTAINER_RUNTIME_ENDPOINT"):
        result = CliRunner().invoke(main, ["ps"], env={variable: "unix:///nonexistent/other"})
        assert "unix:///nonexistent/other" in result.output
