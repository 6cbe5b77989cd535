"""The status object of the error stream."""

from __future__ import annotations

import json

import pytest

from shim.streaming import status


def test_success_and_failure_as_clients_read_them() -> None:
    assert json.loads(status.encode(status.of_exit(0), 4)) == {"metadata": {}, "status": "Success"}
    failure = json.loads(status.encode(status.of_exit(137), 5))
    assert failure["status"] == "Failure"
    assert failure["reason"] == "NonZeroExitCode"
    assert failure["details"]["causes"] == [{"reason": "ExitCode", "message": "137"}]


def test_before_version_4_it_is_text() -> None:
    assert status.encode(status.of_exit(0), 3) == b""
    assert b"exit status 3" in status.encode(status.of_exit(3), 1)
    assert status.encode(status.of_error("no such file"), 2) == b"Internal error occurred: no such file"


@pytest.mark.parametrize("code", [0, 1, 3, 137, 255])
def test_the_way_back(code: int) -> None:
    assert status.exit_code(status.encode(status.of_exit(code), 4)) == (code, "")


def test_the_way_back_of_what_is_no_exit() -> None:
    assert status.exit_code(status.encode(status.of_error("oops"), 4)) == (1, "Internal error occurred: oops")
    assert status.exit_code(b"plain words") == (1, "plain words")
    assert status.exit_code(b"") == (0, "")
    for odd in (b"[]", b'{"status":"Failure","reason":"NonZeroExitCode"}', b"{}", b"\xff"):
        assert status.exit_code(odd)[0] == 1
