"""System call filters."""

from __future__ import annotations

import json
import os
import re
import socket
from typing import TYPE_CHECKING, Any

import pytest

from conformance.oci.support import host
from conformance.oci.support.notify import Agent, answer_one
from conformance.oci.support.probe import status

if TYPE_CHECKING:
    from collections.abc import Iterator

    from conformance.oci.support.case import Case

pytestmark = pytest.mark.rule("config-linux.md#seccomp")
SAID = {
    1: "Operation not permitted",
    13: "Permission denied",
    38: "Function not implemented",
    28: "No space left",
    110: "timed out",
}

_WORDS = (
    "access arch_prctl brk capget capset chdir clone clone3 close close_range dup dup2 dup3 epoll_create1 epoll_ctl "
    "epoll_pwait execve execveat exit exit_group faccessat faccessat2 fchdir fchown fcntl fstat fstatfs futex getcwd "
    "getdents64 getegid geteuid getgid getpgrp getpid getppid getrandom getrlimit getsockopt gettid getuid ioctl keyctl "
    "lseek lstat madvise mmap mount_setattr mprotect mremap munmap nanosleep newfstatat open openat openat2 pipe pipe2 poll "
    "ppoll prctl pread64 prlimit64 pwrite64 read readlink readlinkat recvmsg restart_syscall rseq rt_sigaction "
    "rt_sigpending rt_sigprocmask rt_sigreturn sched_getaffinity sched_yield seccomp sendmsg sendto set_robust_list "
    "set_tid_address setgid setgroups sethostname setpgid setresgid setresuid setsid setuid sigaltstack signalfd4 stat "
    "statfs statx sysinfo tgkill timerfd_create tkill umask uname unlink unlinkat wait4 waitid write writev "
)
SHELL_CALLS = tuple(_WORDS.split())
"""What a static shell, and what a runtime does after it has loaded a filter, call; mkdir is not among it."""


def filtered(case: Case, *rules: dict[str, Any], **top: Any) -> dict[str, Any]:
    """Set a filter that allows all but the rules."""
    profile: dict[str, Any] = {"defaultAction": "SCMP_ACT_ALLOW", "syscalls": list(rules)} | top
    case.linux["seccomp"] = profile
    return profile


def rule(*names: str, action: str = "SCMP_ACT_ERRNO", **more: Any) -> dict[str, Any]:
    """Give a rule for some system calls."""
    return {"names": list(names), "action": action} | more


MKDIR = ("mkdir", "mkdirat")
TRY = "mkdir /made 2>&1 || :; test -d /made && echo MADE; :"


def test_filter_is_on(case: Case) -> None:
    """The process runs with a filter."""
    filtered(case, rule(*MKDIR))
    assert status(case.shell("cat /proc/self/status"))["Seccomp"] == "2"


def test_no_filter(case: Case) -> None:
    """Without seccomp there is no filter."""
    own = status(host.read("/proc/self/status"))["Seccomp"]
    assert status(case.shell("cat /proc/self/status"))["Seccomp"] == own


def test_errno_default(case: Case) -> None:
    """SCMP_ACT_ERRNO gives EPERM."""
    filtered(case, rule(*MKDIR))
    said = case.shell(TRY)
    assert SAID[1] in said
    assert "MADE" not in said


@pytest.mark.parametrize("errno", [13, 38, 28, 110])
def test_errno(case: Case, errno: int) -> None:
    """errnoRet is the error that is given."""
    filtered(case, rule(*MKDIR, errnoRet=errno))
    assert SAID[errno] in case.shell(TRY)


def test_errno_zero(case: Case) -> None:
    """An errnoRet of 0 makes the call succeed without doing anything."""
    filtered(case, rule(*MKDIR, errnoRet=0))
    assert case.shell("mkdir /made && test ! -d /made && echo pretended") == "pretended"


def test_allow(case: Case) -> None:
    """SCMP_ACT_ALLOW allows."""
    filtered(case, rule(*MKDIR, action="SCMP_ACT_ALLOW"))
    assert "MADE" in case.shell(TRY)


def test_log(case: Case) -> None:
    """SCMP_ACT_LOG allows."""
    filtered(case, rule(*MKDIR, action="SCMP_ACT_LOG"))
    assert "MADE" in case.shell(TRY)


@pytest.mark.parametrize("action", ["SCMP_ACT_KILL", "SCMP_ACT_KILL_THREAD", "SCMP_ACT_KILL_PROCESS", "SCMP_ACT_TRAP"])
def test_kill(case: Case, action: str) -> None:
    """The killing actions end the process with SIGSYS."""
    filtered(case, rule(*MKDIR, action=action))
    assert "MADE" not in case.shell("mkdir /made || code=$?; test -d /made && echo MADE; test $code = 159")


def test_trace_without_tracer(case: Case) -> None:
    """SCMP_ACT_TRACE without a tracer gives ENOSYS."""
    filtered(case, rule(*MKDIR, action="SCMP_ACT_TRACE", errnoRet=5))
    assert SAID[38] in case.shell(TRY)


def test_default_errno(case: Case) -> None:
    """The default action may refuse; defaultErrnoRet is its error; what is listed is allowed."""
    filtered(case, rule(*SHELL_CALLS, action="SCMP_ACT_ALLOW"), defaultAction="SCMP_ACT_ERRNO", defaultErrnoRet=28)
    said = case.shell(TRY)
    assert SAID[28] in said
    assert "MADE" not in said


def test_several_rules(case: Case) -> None:
    """Several rules hold at once."""
    filtered(case, rule(*MKDIR, errnoRet=13), rule("rmdir", "unlinkat", errnoRet=28))
    said = case.shell("mkdir /made 2>&1 || :; rmdir /mnt 2>&1 || :")
    assert SAID[13] in said
    assert SAID[28] in said


def test_unknown_call(case: Case) -> None:
    """A system call that the library does not know is passed over: profiles are shared by kernels and architectures."""
    filtered(case, rule("no_such_system_call", *MKDIR))
    assert SAID[1] in case.shell(TRY)


@pytest.mark.parametrize(
    ("op", "value", "two", "refused"),
    [
        ("SCMP_CMP_EQ", 10, 0, {10}),
        ("SCMP_CMP_NE", 10, 0, {15, 12}),
        ("SCMP_CMP_LT", 12, 0, {10}),
        ("SCMP_CMP_LE", 12, 0, {10, 12}),
        ("SCMP_CMP_GT", 12, 0, {15}),
        ("SCMP_CMP_GE", 12, 0, {12, 15}),
        ("SCMP_CMP_MASKED_EQ", 0b0101, 0b0101, {15}),
    ],
)
def test_argument(case: Case, op: str, value: int, two: int, refused: set[int]) -> None:
    """A rule may compare an argument: here the second of kill(2)."""
    argument = {"index": 1, "value": value, "op": op} | ({"valueTwo": two} if two else {})
    filtered(case, rule("kill", args=[argument]))
    said = case.shell("trap : 10 12 15; for s in 10 12 15; do kill -$s $$ 2>/dev/null && echo ok $s || echo no $s; done")
    assert {int(line.split(" ")[1]) for line in said.splitlines() if line.startswith("no")} == refused


def test_two_arguments(case: Case) -> None:
    """All comparisons of a rule must hold."""
    both = [{"index": 0, "value": 1, "op": "SCMP_CMP_EQ"}, {"index": 1, "value": 12, "op": "SCMP_CMP_EQ"}]
    filtered(case, rule("kill", args=both))
    said = case.shell("trap : 10 12; kill -10 1 && echo ten; kill -12 1 2>/dev/null || echo refused")
    assert said.splitlines() == ["ten", "refused"]


@pytest.mark.parametrize(
    "wrong",
    [
        {"defaultAction": "SCMP_ACT_NOSUCH"},
        {},
        {"defaultAction": "SCMP_ACT_ALLOW", "syscalls": [{"names": ["mkdir"], "action": "SCMP_ACT_NOSUCH"}]},
        {"defaultAction": "SCMP_ACT_ALLOW", "architectures": ["SCMP_ARCH_ABACUS"]},
        {"defaultAction": "SCMP_ACT_ALLOW", "flags": ["SECCOMP_FILTER_FLAG_NOSUCH"]},
        {
            "defaultAction": "SCMP_ACT_ALLOW",
            "syscalls": [
                {"names": ["kill"], "action": "SCMP_ACT_ERRNO", "args": [{"index": 0, "value": 1, "op": "SCMP_CMP_ALMOST"}]}
            ],
        },
        {
            "defaultAction": "SCMP_ACT_ALLOW",
            "syscalls": [
                {"names": ["kill"], "action": "SCMP_ACT_ERRNO", "args": [{"index": 9, "value": 1, "op": "SCMP_CMP_EQ"}]}
            ],
        },
        {"defaultAction": "SCMP_ACT_ALLOW", "listenerMetadata": "without a listener"},
        {"defaultAction": "SCMP_ACT_KILL", "defaultErrnoRet": 5},
        {"defaultAction": "SCMP_ACT_ALLOW", "syscalls": [{"names": ["mkdir"], "action": "SCMP_ACT_KILL", "errnoRet": 5}]},
    ],
    ids=["default", "no-default", "action", "architecture", "flag", "operator", "index", "metadata", "default-errno", "errno"],
)
def test_invalid(case: Case, wrong: dict[str, Any]) -> None:
    """What has no meaning is an error."""
    case.linux["seccomp"] = wrong
    case.run_refused("true", want="the filter has no meaning")


@pytest.mark.parametrize("words", [["SCMP_ARCH_X86_64"], ["SCMP_ARCH_X86_64", "SCMP_ARCH_X86", "SCMP_ARCH_X32"]])
def test_architectures(case: Case, words: list[str]) -> None:
    """The filter holds for the architectures of the list."""
    host.need(os.uname().machine == "x86_64", "an x86_64 kernel")
    filtered(case, rule(*MKDIR), architectures=words)
    assert SAID[1] in case.shell(TRY)


@pytest.mark.parametrize(
    "flags", [[], ["SECCOMP_FILTER_FLAG_LOG"], ["SECCOMP_FILTER_FLAG_SPEC_ALLOW"], ["SECCOMP_FILTER_FLAG_TSYNC"]]
)
def test_flags(case: Case, flags: list[str]) -> None:
    """The flags of seccomp(2) are accepted."""
    filtered(case, rule(*MKDIR), flags=flags)
    assert SAID[1] in case.shell(TRY)


@pytest.mark.parametrize("privileges", [True, False], ids=["no-new-privileges", "new-privileges"])
def test_privileges(case: Case, privileges: bool) -> None:
    """The filter is loaded with and without noNewPrivileges, for root and for a user."""
    filtered(case, rule(*MKDIR))
    case.process["noNewPrivileges"] = privileges
    case.process["user"] = {"uid": 1000, "gid": 1000}
    os.chmod(case.rootfs, 0o777)
    said = case.shell(TRY)
    assert SAID[1] in said
    assert "MADE" not in said


def test_exec(case: Case) -> None:
    """A process of `exec` is under the filter."""
    filtered(case, rule(*MKDIR))
    case.sleeper()
    assert SAID[1] in case.execute(TRY)


def test_runtime_is_not_filtered(case: Case) -> None:
    """The filter is for the program: what the runtime does before is not under it."""
    filtered(case, rule("mount", "pivot_root", "umount2", "sethostname", "unshare", "setns", "chroot", "mknod", "mknodat"))
    assert case.shell("echo yes") == "yes"


# the notifying action


@pytest.fixture
def agent(case: Case) -> Iterator[Agent]:
    """Listen for filters that ask."""
    host.need(host.kernel() >= (5, 6), "seccomp notifications, Linux 5.6")
    made = Agent(case.bundle / "agent")
    yield made
    made.close()


def asking(case: Case, agent: Agent, **top: Any) -> None:
    """Set a filter that asks about mkdir."""
    filtered(case, rule(*MKDIR, action="SCMP_ACT_NOTIFY"), listenerPath=str(agent.path), **top)


def test_notify_state(case: Case, agent: Agent) -> None:
    """The listener gets one document with the container's state, and the filter's descriptor."""
    case.config["annotations"] = {"org.example": "told"}
    asking(case, agent, listenerMetadata="opaque")
    case.sleeper()
    document, descriptors = agent.receive()
    for descriptor in descriptors:
        os.close(descriptor)
    assert document["fds"] == ["seccompFd"]
    assert len(descriptors) == 1
    assert document["pid"] == case.pid()
    assert document["metadata"] == "opaque"
    assert re.match(r"\d+\.\d+\.\d+", document["ociVersion"])
    assert document["state"]["id"] == case.id
    assert document["state"]["bundle"] == str(case.bundle)
    assert document["state"]["annotations"] == {"org.example": "told"}
    assert document["state"]["status"] in {"creating", "created", "running"}


def test_notify_at_create(case: Case, agent: Agent) -> None:
    """The listener is sent when the container is created, so that its agent is there before the program starts."""
    asking(case, agent)
    case.create("sh", "-c", "mkdir /made; echo done")
    document, descriptors = agent.receive()
    assert document["pid"] == case.pid()
    assert document["state"]["status"] in {"creating", "created"}
    assert case.status() == "created"
    case.ok("start", case.id)
    answer_one(descriptors[0], 28)
    os.close(descriptors[0])
    case.until_printed("done")


@pytest.mark.parametrize("call", ["accept4", "mmap"])
def test_notify_beside_a_forbidden_call(case: Case, agent: Agent, call: str) -> None:
    """A call the program may not make does not keep a container with a listener from being started."""
    asking(case, agent)
    case.linux["seccomp"]["syscalls"].append(rule(call))
    case.start("true")
    case.until("stopped")


@pytest.mark.parametrize("errno", [28, 110])
def test_notify_answer(case: Case, agent: Agent, errno: int) -> None:
    """What the agent answers is what the call gives."""
    asking(case, agent)
    case.start("sh", "-c", "sleep 0.2; mkdir /made; echo done")
    _, descriptors = agent.receive()
    answer_one(descriptors[0], errno)
    os.close(descriptors[0])
    case.until_printed("done")
    assert SAID[errno] in case.err.read_text()
    assert not (case.rootfs / "made").exists()


def test_notify_exec(case: Case, agent: Agent) -> None:
    """A process of `exec` has a filter, and a document, of its own."""
    asking(case, agent)
    case.sleeper()
    _, first = agent.receive()
    process = case.popen("exec", case.id, "sh", "-c", "mkdir /made; echo done")
    document, second = agent.receive()
    answer_one(second[0], 28)
    said, wrong = process.communicate(timeout=10)
    for descriptor in first + second:
        os.close(descriptor)
    assert said == "done\n"
    assert SAID[28] in wrong
    assert document["state"]["status"] == "running"


@pytest.mark.parametrize("path", [None, "absent", "@abstract"])
def test_notify_nobody_listens(case: Case, path: str | None) -> None:
    """Without a listener, or with a path where nobody listens, a notifying filter is an error."""
    filtered(case, rule(*MKDIR, action="SCMP_ACT_NOTIFY"))
    if path:
        case.linux["seccomp"]["listenerPath"] = path if path.startswith("@") else str(case.bundle / path)
    case.run_refused("true", want="nobody listens")


def test_notify_listener_without_need(case: Case) -> None:
    """Where nothing asks, the listener's path is not looked at."""
    filtered(case, rule(*MKDIR), listenerPath=str(case.bundle / "absent"))
    assert SAID[1] in case.shell(TRY)


def test_notify_for_write(case: Case) -> None:
    """A filter that asks about what the runtime needs to report is refused, or works; it does not hang."""
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(str(case.bundle / "agent"))
        server.listen()
        filtered(case, rule("write", action="SCMP_ACT_NOTIFY"), listenerPath=str(case.bundle / "agent"))
        done = case.try_create("true")
        assert done.returncode == 0 or done.stderr.strip()


def test_profile_is_json(case: Case) -> None:
    """Great unsigned numbers in a profile are not rounded."""
    argument = {"index": 0, "value": 2**64 - 1, "op": "SCMP_CMP_EQ"}
    filtered(case, rule("kill", args=[argument]))
    assert json.loads(json.dumps(case.linux["seccomp"]))["syscalls"][0]["args"][0]["value"] == 2**64 - 1
    assert case.shell("kill -0 $$ && echo allowed") == "allowed"
