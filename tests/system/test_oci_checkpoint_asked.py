"""What flags ask criu for that no kernel at hand can do: lazy pages, memory in steps, labels of other hosts' containers.

A criu that only takes notes stands in. What a real criu does with its other options is judged in conformance/oci.
"""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from runtime.checkpoint.message import DUMP, OPTIONS, PRE_DUMP, RESTORE
from tests.support import deaf_criu
from tests.support.criu import need_criu

if TYPE_CHECKING:
    import subprocess

    from tests.system.oci_node import Oci

pytestmark = pytest.mark.system


class Asked:
    """A container, and the criu that takes notes."""

    def __init__(self, oci: Oci) -> None:
        self.oci = oci
        self.images = oci.bundle / "images"
        self.notes = oci.bundle / "notes"
        self.criu = oci.bundle / "criu"
        self.criu.write_text(f'#!/bin/sh\nexec {sys.executable} {Path(deaf_criu.__file__)} "$@"\n')
        self.criu.chmod(0o755)

    def call(self, *words: str, **options: Any) -> subprocess.CompletedProcess[str]:
        environment = os.environ | {"CRIU_NOTES": str(self.notes)}
        return self.oci.call("--criu", str(self.criu), *words, env=environment, **options)

    def noted(self) -> tuple[int, dict[str, Any]]:
        found = json.loads(self.notes.read_text())
        names = {str(number): name for name, number in OPTIONS.items()}
        return found["kind"], {names[number]: value for number, value in found["options"].items()}

    def dump(self, name: str, *flags: str, **options: Any) -> tuple[int, dict[str, Any]]:
        done = self.call("checkpoint", "--image-path", str(self.images), "--leave-running", *flags, name, **options)
        assert done.returncode == 0, done.stderr
        assert self.oci.state(name)["status"] == "running"
        return self.noted()

    def restore(self, *flags: str) -> tuple[int, dict[str, Any]]:
        self.images.mkdir(exist_ok=True)
        (self.images / "inventory.img").touch()
        done = self.call("restore", "--detach", "--image-path", str(self.images), *flags, self.oci.new_id())
        assert done.returncode == 1
        assert not list(self.oci.root.glob("*"))
        return self.noted()


@pytest.fixture
def asked(ours: Oci) -> Asked:
    return Asked(ours)


def test_checkpoint(asked: Asked) -> None:
    name = asked.oci.start("sleep", "100")
    kind, plain = asked.dump(name)
    assert kind == DUMP
    assert not {"parent_img", "ps", "track_mem"} & plain.keys()
    assert not any(plain[word] for word in ("lazy_pages", "tcp_skip_in_flight", "link_remap", "auto_dedup", "shell_job"))
    kind, before = asked.dump(name, "--pre-dump")
    assert (kind, before["track_mem"]) == (PRE_DUMP, 1)
    (asked.images / "../earlier").resolve().mkdir()
    kind, after = asked.dump(name, "--parent-path", "../earlier", "--auto-dedup")
    assert (kind, after["parent_img"], after["track_mem"], after["auto_dedup"]) == (DUMP, "../earlier", 1, 1)
    _, job = asked.dump(name, "--shell-job", "--empty-ns", "network")
    assert (job["shell_job"], job["empty_ns"]) == (1, 0x40000000)


def test_status_fd_is_told_when_pages_can_be_asked_for(asked: Asked) -> None:
    name = asked.oci.start("sleep", "100")
    reader, writer = os.pipe()
    flags = ("--lazy-pages", "--page-server", "127.0.0.1:4711", "--status-fd", str(writer))
    _, found = asked.dump(name, *flags, pass_fds=(writer,))
    os.close(writer)
    assert found["lazy_pages"] == 1
    assert "127.0.0.1" in found["ps"]
    assert os.read(reader, 10) == b"\0"
    os.close(reader)


def test_restore(asked: Asked) -> None:
    asked.oci.write("sleep", "100")
    kind, plain = asked.restore()
    assert kind == RESTORE
    assert not {"lsm_profile", "lsm_mount_context"} & plain.keys()
    assert not any(plain[word] for word in ("lazy_pages", "auto_dedup", "shell_job", "tcp_established", "ext_unix_sk"))
    labels = ("--lsm-profile", "apparmor:boat", "--lsm-mount-context", "system_u:object_r:boat_t:s0")
    _, found = asked.restore(*labels, "--lazy-pages", "--shell-job", "--auto-dedup")
    assert (found["lsm_profile"], found["lsm_mount_context"]) == ("apparmor:boat", "system_u:object_r:boat_t:s0")
    assert (found["lazy_pages"], found["shell_job"], found["auto_dedup"]) == (1, 1, 1)
    _, found = asked.restore("--tcp-established", "--ext-unix-sk", "--file-locks", "--manage-cgroups-mode", "ignore")
    assert (found["tcp_established"], found["ext_unix_sk"], found["file_locks"]) == (1, 1, 1)
    assert found["manage_cgroups_mode"] == 0


@pytest.mark.parametrize("flags", [("--pre-dump",), ("--parent-path", "../earlier")])
def test_what_this_kernel_cannot_do_is_one_line_that_names_it(ours: Oci, flags: tuple[str, ...]) -> None:
    criu, images = need_criu(), ours.bundle / "images"
    (ours.bundle / "earlier").mkdir()
    images.mkdir()
    name = ours.start("sleep", "100")
    done = ours.call("--criu", criu, "checkpoint", "--image-path", str(images), *flags, name)
    if done.returncode == 0:
        pytest.skip("this kernel can")
    assert len(done.stderr.splitlines()) == 1, done.stderr
    assert "missing features: [MemTrack]" in done.stderr
    assert ours.state(name)["status"] == "running"
    assert os.listdir(images) == []


def test_lazy_pages_need_a_kernel_that_serves_them(ours: Oci) -> None:
    criu, images = need_criu(), ours.bundle / "images"
    images.mkdir()
    (images / "inventory.img").touch()
    ours.write("sleep", "100")
    done = ours.call("--criu", criu, "restore", "--detach", "--lazy-pages", "--image-path", str(images), ours.new_id())
    assert done.returncode == 1
    assert "restore" in done.stderr or "LazyPages" in done.stderr
    assert not list(ours.root.glob("*"))


def test_a_status_fd_that_cannot_be_written_to_is_refused(ours: Oci) -> None:
    name = ours.start("sleep", "100")
    reader, writer = os.pipe()
    for number, words in ((reader, "not writable"), (1000, "bad file descriptor")):
        done = ours.call("checkpoint", "--status-fd", str(number), name, pass_fds=(reader,))
        assert done.returncode == 1
        assert words in done.stderr
    os.close(reader)
    os.close(writer)
