"""The default AppArmor profile: its text, and the job that loads it, with a parser that only tells what it got."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

import pytest

from shim.container import apparmor_job
from shim.container.apparmor_profile import profile_text
from shim.errors import FailedPrecondition

if TYPE_CHECKING:
    from pathlib import Path


def test_the_profile_names_itself_where_its_own_are_meant() -> None:
    text = profile_text("mine")
    assert text.startswith("profile mine flags=(attach_disconnected,mediate_deleted) {\n")
    assert re.findall(r"^  (\w+).* peer=mine,$", text, re.MULTILINE) == ["signal", "ptrace"]
    assert "@" not in text
    assert "include" not in text
    assert profile_text("mine", abi="<abi/3.0>").startswith("abi <abi/3.0>,\n\nprofile mine ")


def globs(text: str) -> list[re.Pattern[str]]:
    """Give what the profile forbids to write, as regular expressions (apparmor.d(5), globbing)."""
    found = []
    for rule in re.findall(r"deny (/\S+) [rklx]*w[rklx]*,", text):
        pattern = re.sub(r"\{([^}]*)\}", lambda match: f"({match[1].replace(',', '|')})", rule)
        pattern = pattern.replace("**", "\0").replace("*", "[^/]*").replace("\0", ".*")
        found.append(re.compile(pattern))
    return found


HOSTS = (
    "/proc/kcore", "/proc/sysrq-trigger", "/proc/mtrr", "/proc/timer_list", "/proc/acpi/alarm", "/proc/scsi/scsi",
    "/proc/bus/x/1", "/proc/irq/1/smp_affinity", "/proc/sys/vm/swappiness", "/proc/sys/fs/suid_dumpable",
    "/proc/sys/kernel/core_pattern",
    "/proc/sys/kernel/modprobe", "/proc/sys/kernel/sysrq", "/proc/sys/kernel/sched_rt_runtime_us", "/proc/sys/kernel/panic",
    "/proc/sys/kernel/seccomp/actions_logged", "/proc/sys/kernel/hotplug", "/proc/sys/kernel/softlockup_panic",
    "/proc/sys/user/max_user_namespaces", "/proc/sys/abi/x", "/proc/sys/debug/x", "/proc/sys/dev/cdrom/x",
    "/sys/kernel/uevent_helper", "/sys/firmware/efi/x", "/sys/power/state", "/sys/fs/bpf/x", "/sys/fs/selinux/enforce",
    "/sys/fs/fuse/connections/1/abort", "/sys/module/x/parameters/y", "/sys/block/sda/x", "/sys/fs/ext4/sda/x",
)  # fmt: skip
OWN = (
    "/proc/1/oom_score_adj", "/proc/42/task/43/comm", "/proc/sys/net/ipv4/ip_forward", "/proc/sys/kernel/shmmax",
    "/proc/sys/kernel/shm_rmid_forced", "/proc/sys/kernel/sem", "/proc/sys/kernel/msgmax", "/sys/fs/cgroup/x/memory.max",
    "/proc/9/attr/x", "/etc/passwd", "/dev/null", "/data/proc/sys/vm/x", "/data/sys/kernel/x",
)  # fmt: skip


def test_what_no_namespace_divides_is_not_written() -> None:
    rules = globs(profile_text("mine"))
    assert [path for path in HOSTS if not any(rule.fullmatch(path) for rule in rules)] == []
    assert [path for path in OWN if any(rule.fullmatch(path) for rule in rules)] == []


def parser(folder: Path, script: str, monkeypatch: pytest.MonkeyPatch) -> None:
    program = folder / "apparmor_parser"
    program.write_text(f"#!/bin/sh\n{script}\n")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{folder}:/usr/bin:/bin")


def load(name: str) -> None:
    apparmor_job.run({"name": name}, [], lambda _progress: None)


def test_the_job_gives_the_text_to_the_parser(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    parser(tmp_path, f'echo "$@" > {tmp_path}/words; cat > {tmp_path}/text', monkeypatch)
    load("mine")
    assert (tmp_path / "words").read_text().split()[0] == "--replace"
    assert "profile mine flags" in (tmp_path / "text").read_text()


def test_what_the_parser_says_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    parser(tmp_path, "echo one >&2; echo two; exit 3", monkeypatch)
    with pytest.raises(FailedPrecondition, match="profile mine cannot be loaded: apparmor_parser ended with 3: one; two"):
        load("mine")


def test_a_node_without_the_parser_is_told_what_to_install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setattr(apparmor_job, "_SYSTEM_PATH", "")
    with pytest.raises(FailedPrecondition, match=r"this node has no apparmor_parser; install it"):
        load("mine")
