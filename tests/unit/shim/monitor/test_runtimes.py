"""How a runtime's refusals become exit codes, and how an exec inherits the container's process."""

from __future__ import annotations

import errno
import json
from typing import TYPE_CHECKING

import pytest

from shim.errors import FailedPrecondition
from shim.monitor.external import last_error
from shim.monitor.protocol import StartFailed
from shim.monitor.runtimes import failed_from_text, merged_process, of_exec, start_failed

if TYPE_CHECKING:
    from pathlib import Path


@pytest.mark.parametrize(
    ("number", "program", "code", "text"),
    [
        (errno.ENOENT, "nope", 127, 'exec: "nope": executable file not found in $PATH'),
        (errno.ENOENT, "/nope", 127, 'exec: "/nope": stat /nope: no such file or directory'),
        (errno.EACCES, "/etc/plain", 126, 'exec: "/etc/plain": permission denied'),
        (errno.ENOEXEC, "/x", 126, 'exec: "/x": exec format error'),
        (errno.ELOOP, "/x", 128, "too many levels"),
    ],
)
def test_errno_to_exit_code(number: int, program: str, code: int, text: str) -> None:
    error = start_failed(number, program)
    assert error.exit_code == code
    assert text in str(error)


@pytest.mark.parametrize(
    ("text", "code"),
    [
        ('unable to start container process: exec: "nope": executable file not found in $PATH', 127),
        ('exec: "/nope": stat /nope: no such file or directory: unknown', 127),
        ("executable file `nope` not found in $PATH: No such file or directory", 127),
        ('exec: "/etc/plain": permission denied', 126),
        ("open executable: Permission denied", 126),
        ("error mounting /x: no such file or directory", 128),
    ],
)
def test_words_of_other_runtimes_to_exit_code(text: str, code: int) -> None:
    assert failed_from_text(text).exit_code == code


@pytest.mark.parametrize(
    "error",
    [
        start_failed(errno.ENOENT, "bash"),
        failed_from_text('exec failed: unable to start container process: exec: "bash": executable file not found in $PATH'),
    ],
)
def test_a_shell_that_is_missing_is_told_in_the_words_clients_look_for(error: StartFailed) -> None:
    told = of_exec(error)
    words = 'exec failed: unable to start container process: exec: "bash": executable file not found in $PATH'
    assert str(told) == f"OCI runtime exec failed: {words}"
    assert isinstance(told, StartFailed)
    assert told.exit_code == 127


def test_another_error_of_an_exec_stays_what_it_is() -> None:
    error = FailedPrecondition("container x is paused")
    assert of_exec(error) is error


def test_an_exec_inherits_what_it_does_not_say(tmp_path: Path) -> None:
    own = {"args": ["a"], "terminal": True, "cwd": "/w", "env": ["A=1", "B=2"], "user": {"uid": 5}, "noNewPrivileges": True}
    (tmp_path / "config.json").write_text(json.dumps({"process": own}))
    merged = merged_process(str(tmp_path), {"args": ["b"], "env": ["B=3", "C=4=5"], "cwd": None})
    assert merged == {
        "args": ["b"], "cwd": "/w", "env": ["A=1", "B=3", "C=4=5"], "user": {"uid": 5}, "noNewPrivileges": True,
    }  # fmt: skip


RUNC = b'{"level":"warning","msg":"careful","time":"t"}\n{"level":"error","msg":"no such file","time":"t"}\n'
CRUN = b'{\n  "msg": "old",\n  "level": "error"\n}\n{\n  "msg": "no such file",\n  "level": "error",\n  "time": "t"\n}\n'


@pytest.mark.parametrize("log", [RUNC, CRUN, CRUN + b'{\n  "msg": "torn', b"\xff" + b"x" * 200_000 + b"\n" + RUNC, RUNC + CRUN])
def test_the_last_error_of_a_runtime_s_log_is_found(tmp_path: Path, log: bytes) -> None:
    path = tmp_path / "log.json"
    path.write_bytes(log)
    assert last_error(str(path)) == "no such file"


@pytest.mark.parametrize("log", [b"", b"plain words\n", b'{"level":"info","msg":"fine"}\n'])
def test_a_log_without_an_error_tells_none(tmp_path: Path, log: bytes) -> None:
    path = tmp_path / "log.json"
    path.write_bytes(log)
    assert last_error(str(path)) == last_error(str(tmp_path / "absent")) == ""
