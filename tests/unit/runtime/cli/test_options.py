"""The command line is read as Go's flag package reads it."""

from __future__ import annotations

import pytest

from runtime.cli.options import declare, parse
from runtime.cli.table import COMMANDS, GLOBAL_OPTIONS
from runtime.errors import UsageFault

OPTIONS = declare(COMMANDS["exec"][5])
RUN = declare(COMMANDS["run"][5])


@pytest.mark.parametrize("words", [["-b", "X"], ["--b", "X"], ["-bundle", "X"], ["--bundle", "X"], ["-b=X"], ["--bundle=X"]])
def test_every_form_of_a_value(words: list[str]) -> None:
    values = parse(RUN, [*words, "id"], interleaved=True)
    assert values.text("bundle") == "X"
    assert values.arguments == ["id"]


@pytest.mark.parametrize(
    ("word", "given"), [("-d", True), ("--detach=true", True), ("--detach=0", False), ("-detach=F", False)]
)
def test_flags(word: str, given: bool) -> None:
    assert parse(RUN, [word], interleaved=True).flag("detach") is given


def test_repeated_option_collects_others_take_the_last() -> None:
    values = parse(OPTIONS, ["-e", "A=1", "--env=B=2", "--cwd", "/a", "--cwd", "/b", "id"], interleaved=False)
    assert values.texts("env") == ("A=1", "B=2")
    assert values.text("cwd") == "/b"


def test_options_after_the_command_belong_to_it() -> None:
    values = parse(OPTIONS, ["-t", "id", "ls", "-t", "--", "-x"], interleaved=False)
    assert values.arguments == ["id", "ls", "-t", "--", "-x"]


def test_options_may_follow_the_id_where_runc_lets_them() -> None:
    values = parse(declare(COMMANDS["delete"][5]), ["id", "--force"], interleaved=True)
    assert values.flag("force")


def test_two_dashes_end_options() -> None:
    assert parse(RUN, ["--", "-d"], interleaved=True).arguments == ["-d"]


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--nosuch"], "flag provided but not defined: -nosuch"),
        (["--bundle"], "flag needs an argument: -bundle"),
        (["--detach=maybe"], 'invalid boolean value "maybe" for -detach'),
    ],
)
def test_faults(words: list[str], message: str) -> None:
    with pytest.raises(UsageFault) as caught:
        parse(RUN, words, interleaved=True)
    assert str(caught.value) == message


def test_numbers() -> None:
    assert parse(RUN, ["--preserve-fds", "3"], interleaved=True).number("preserve-fds") == 3
    with pytest.raises(UsageFault, match="must be a number"):
        parse(RUN, ["--preserve-fds", "3x"], interleaved=True).number("preserve-fds")


CALLERS = {  # what podman, conmon, containerd, CRI-O and Docker pass
    "": ["root", "log", "log-format", "systemd-cgroup", "debug", "rootless", "criu", "help", "version"],
    "create": ["bundle", "console-socket", "pid-file", "pidfd-socket", "no-pivot", "no-new-keyring", "preserve-fds"],
    "run": ["bundle", "b", "console-socket", "detach", "d", "pid-file", "no-pivot", "no-new-keyring", "keep", "no-subreaper"],
    "exec": ["console-socket", "cwd", "env", "e", "tty", "t", "user", "u", "additional-gids", "g", "process", "p", "detach",
             "d", "pid-file", "process-label", "apparmor", "no-new-privs", "cap", "c", "preserve-fds", "cgroup",
             "ignore-paused"],
    "checkpoint": ["image-path", "work-path", "parent-path", "leave-running", "tcp-established", "tcp-skip-in-flight",
                   "link-remap", "ext-unix-sk", "shell-job", "lazy-pages", "status-fd", "page-server", "file-locks",
                   "pre-dump", "manage-cgroups-mode", "empty-ns", "auto-dedup"],
    "restore": ["console-socket", "image-path", "work-path", "tcp-established", "ext-unix-sk", "shell-job", "file-locks",
                "manage-cgroups-mode", "bundle", "b", "detach", "d", "pid-file", "no-subreaper", "no-pivot", "empty-ns",
                "auto-dedup", "lazy-pages", "lsm-profile", "lsm-mount-context"],
    "kill": ["all", "a"],
    "delete": ["force", "f"],
    "list": ["format", "f", "quiet", "q"],
    "ps": ["format", "f"],
    "spec": ["bundle", "b", "rootless"],
    "update": ["resources", "r", "memory", "cpu-share", "pids-limit", "cpuset-cpus"],
}  # fmt: skip


@pytest.mark.parametrize("command", CALLERS)
def test_every_option_callers_use_is_known(command: str) -> None:
    declared = declare(COMMANDS[command][5] if command else GLOBAL_OPTIONS)
    assert [name for name in CALLERS[command] if name not in declared] == []
