"""The program: its arguments, environment, working directory and terminal, and what else belongs to a Linux process."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import pytest

from conformance.oci.support import host
from conformance.oci.support.probe import script, sections, status

if TYPE_CHECKING:
    from collections.abc import Callable

    from conformance.oci.support.case import Case

pytestmark = pytest.mark.rule("config.md#process")


def test_args(case: Case) -> None:
    """The arguments arrive as they are: empty ones, spaces, quotes, newlines and letters beyond ASCII."""
    words = ["", "a b", "'\"", "new\nline", "näme", "$HOME", "*"]
    assert case.output("sh", "-c", 'for w; do printf "%s|" "$w"; done', "x", *words) == "".join(f"{word}|" for word in words)


def test_name_is_looked_up_in_path(case: Case) -> None:
    """A name without a slash is looked up in the PATH of process.env."""
    (case.rootfs / "tools").mkdir()
    os.symlink("/bin/busybox", case.rootfs / "tools/uname")
    os.unlink(case.rootfs / "bin/uname")
    case.process["env"] = ["PATH=/nowhere:/tools"]
    assert case.output("uname") == "Linux\n"


def test_absolute_program(case: Case) -> None:
    """A program may be named by its path."""
    assert case.output("/bin/echo", "yes") == "yes\n"


def test_program_relative_to_cwd(case: Case) -> None:
    """A name with a slash is relative to the working directory."""
    case.process["cwd"] = "/bin"
    assert case.output("./echo", "yes") == "yes\n"


def test_args_empty(case: Case) -> None:
    """At least one argument is required."""
    case.process["args"] = []
    case.write()
    assert case.call("run", case.id).returncode != 0


@pytest.mark.parametrize("code", [0, 3, 127, 255])
def test_exit_code_of_run(case: Case, code: int) -> None:
    """`run` ends with the program's exit code."""
    assert case.run("sh", "-c", f"exit {code}").returncode == code


def test_exit_code_of_a_signal(case: Case) -> None:
    """`run` of a program that a signal killed ends with 128 + its number."""
    case.drop_namespace("pid")  # the first process of a pid namespace is immune to its own signals
    assert case.run("sh", "-c", "kill -9 $$").returncode == 137


def test_env(case: Case) -> None:
    """The environment is that of the document, in any form; nothing of the caller's comes with it."""
    case.process["env"] = ["PATH=/bin", "EMPTY=", "SPACE=a b", "EQUALS=a=b", "UTF=ä", "LINE=a\nb"]
    said = case.output("sh", "-c", 'echo "$EMPTY|$SPACE|$EQUALS|$UTF|$LINE|$JUDGE"', env=os.environ | {"JUDGE": "leaked"})
    assert said == "|a b|a=b|ä|a\nb|\n"


def test_env_is_all(case: Case) -> None:
    """Beside the document's variables there is HOME at most."""
    case.process["env"] = ["PATH=/bin", "ONE=1"]
    names = {line.partition("=")[0] for line in case.output("env").splitlines()}
    assert names - {"HOME"} == {"PATH", "ONE"}


def test_env_last_one_wins(case: Case) -> None:
    """Of a variable that is given twice the program's shell sees the last."""
    case.process["env"] = ["PATH=/bin", "TWICE=first", "TWICE=second"]
    assert case.shell("echo $TWICE") == "second"


def test_cwd(case: Case) -> None:
    """The program begins in process.cwd."""
    case.process["cwd"] = "/etc"
    assert case.output("pwd") == "/etc\n"


@pytest.mark.parametrize("cwd", ["relative", "./x", ""])
def test_cwd_relative(case: Case, cwd: str) -> None:
    """A working directory that is no absolute path is an error."""
    case.process["cwd"] = cwd
    case.run_refused("true", want="cwd must be absolute")


def test_cwd_is_a_file(case: Case) -> None:
    """A working directory that is a file is an error."""
    case.process["cwd"] = "/etc/passwd"
    case.run_refused("true", want="cwd is a file")


def test_cwd_through_a_link(case: Case) -> None:
    """A working directory may be a link; it is resolved inside the root."""
    os.symlink("/etc", case.rootfs / "link")
    case.process["cwd"] = "/link"
    assert case.shell("readlink /proc/self/cwd") == "/etc"


def test_cwd_in_a_mount(case: Case) -> None:
    """A working directory may be in a mount of the document."""
    case.mount("/work", "tmpfs", kind="tmpfs")
    case.process["cwd"] = "/work"
    assert case.shell("readlink /proc/self/cwd") == "/work"


def test_console_size_without_terminal(case: Case) -> None:
    """consoleSize is ignored without a terminal."""
    case.process["consoleSize"] = {"height": 10, "width": 20}
    assert case.shell("tty || :") == "not a tty"


def test_no_new_privileges(case: Case) -> None:
    """noNewPrivileges is set when asked for."""
    assert status(case.shell("cat /proc/self/status"))["NoNewPrivs"] == "1"


@pytest.mark.parametrize("value", [False, None], ids=["false", "absent"])
def test_new_privileges(case: Case, value: bool | None) -> None:
    """noNewPrivileges is not set unless asked for."""
    del case.process["noNewPrivileges"]
    if value is not None:
        case.process["noNewPrivileges"] = value
    assert status(case.shell("cat /proc/self/status"))["NoNewPrivs"] == "0"


def test_set_user_id_is_disarmed(case: Case) -> None:
    """With noNewPrivileges a set-user-ID program gives nothing."""
    os.unlink(case.rootfs / "bin/id")
    (case.rootfs / "bin/id").write_bytes((case.rootfs / "bin/busybox").read_bytes())
    os.chmod(case.rootfs / "bin/id", 0o4755)
    case.process["user"] = {"uid": 1000, "gid": 1000}
    assert case.output("/bin/id", "-u") == "1000\n"


@pytest.mark.rule("config.md#linux-process")
@pytest.mark.parametrize("value", [500, 1000, 0])
def test_oom_score_adj(case: Case, value: int) -> None:
    """oomScoreAdj is set as given."""
    own = int(host.read("/proc/self/oom_score_adj"))
    host.need(value >= own or host.has_capability("CAP_SYS_RESOURCE"), "CAP_SYS_RESOURCE, to lower oom_score_adj")
    case.process["oomScoreAdj"] = value
    assert case.shell("cat /proc/self/oom_score_adj") == str(value)


@pytest.mark.rule("config.md#linux-process")
def test_oom_score_adj_untouched(case: Case) -> None:
    """Without oomScoreAdj the value stays what the runtime was started with."""
    wanted = min(int(host.read("/proc/self/oom_score_adj")) + 100, 1000)
    said = case.output("cat", "/proc/self/oom_score_adj", preexec_fn=lambda: _set_own_score(wanted))
    assert said.strip() == str(wanted)


def _set_own_score(value: int) -> None:
    with open("/proc/self/oom_score_adj", "w", encoding="ascii") as file:
        file.write(str(value))


@pytest.mark.rule("config.md#linux-process")
@pytest.mark.parametrize("value", [1001, -1001, 100000])
def test_oom_score_adj_out_of_range(case: Case, value: int) -> None:
    """An oomScoreAdj that the kernel has not is an error."""
    case.process["oomScoreAdj"] = value
    case.run_refused("true", want=f"oomScoreAdj {value} does not exist")


@pytest.mark.rule("config.md#linux-process")
def test_apparmor_profile(case: Case) -> None:
    """An AppArmor profile confines the process; where there is no AppArmor, asking for one is no silent success."""
    case.process["apparmorProfile"] = "judge-no-such-profile"
    case.run_refused("true", want="the profile cannot be applied")


@pytest.mark.rule("config.md#linux-process")
def test_apparmor_unconfined(case: Case) -> None:
    """The profile `unconfined` confines nothing."""
    host.need(host.has_apparmor(), "AppArmor is off")
    case.process["apparmorProfile"] = "unconfined"
    assert "unconfined" in case.shell("cat /proc/self/attr/current")


@pytest.mark.rule("config.md#linux-process")
def test_selinux_label(case: Case) -> None:
    """An SELinux label is set; where there is no SELinux, asking for one is no silent success."""
    case.process["selinuxLabel"] = "system_u:system_r:container_t:s0"
    if host.has_selinux():
        assert "container_t" in case.shell("cat /proc/self/attr/current")
    else:
        case.run_refused("true", want="there is no SELinux")


@pytest.fixture(scope="module")
def plain(shared: Callable[[], Case]) -> dict[str, str]:
    """Look at a plain process once."""
    parts = {
        "signals": "cat /proc/self/status",
        "cgroup": "cat /proc/self/cgroup",
        "session": "cut -d' ' -f6 /proc/1/stat; cut -d' ' -f5 /proc/1/stat",
        "cmdline": "tr '\\0' ' ' < /proc/1/cmdline",
        "exe": "readlink /proc/1/exe",
        "keys": "cat /proc/keys",
        "parent": "cut -d' ' -f4 /proc/1/stat",
        "environ": "tr '\\0' '\\n' < /proc/1/environ",
        "name": "cat /proc/1/comm",
    }
    return sections(shared().shell(script(**parts)))


def test_first_process(plain: dict[str, str]) -> None:
    """In a new pid namespace the program is process 1 and its parent is outside."""
    assert plain["parent"] == "0"
    assert plain["cmdline"].startswith("sh -ec")


def test_executable_is_the_program(plain: dict[str, str]) -> None:
    """Process 1 runs the program's file, not the runtime's."""
    assert plain["exe"] == "/bin/busybox"
    assert plain["name"] == "sh"


def test_own_session(plain: dict[str, str]) -> None:
    """The process leads a session and a process group of its own, whose ids it can see."""
    assert plain["session"].split() == ["1", "1"]


@pytest.mark.parametrize("kind", ["SigBlk", "SigIgn", "SigPnd", "ShdPnd"])
def test_signals_are_as_at_birth(plain: dict[str, str], kind: str) -> None:
    """No signal is blocked, ignored or pending that the runtime itself had left so."""
    found = int(status(plain["signals"])[kind], 16)
    inherited = int(status(host.read("/proc/self/status"))[kind], 16)
    assert found & ~inherited & ~(1 << 12 | 1 << 24) == 0, f"{kind} is {found:x}"  # SIGPIPE, SIGXFSZ: python's own


def test_no_tracer(plain: dict[str, str]) -> None:
    """Nobody traces the process."""
    assert status(plain["signals"])["TracerPid"] == "0"
