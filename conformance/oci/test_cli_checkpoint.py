"""checkpoint and restore through criu: what goes on, what is refused, where the files are, what becomes of cgroups."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from conformance.oci.support import cgroups, criu, host
from conformance.oci.support.saving import COUNT

if TYPE_CHECKING:
    from conformance.oci.support.saving import Saving

CHECKPOINT = pytest.mark.rule("runc: checkpoint, restore")
WRONG = (
    ("--manage-cgroups-mode", "sometimes"),
    ("--page-server", "127.0.0.1"),
    ("--page-server", ":4711"),
    ("--page-server", "127.0.0.1:word"),
    ("--parent-path", "/absolute"),
    ("--parent-path", "missing"),
    ("--parent-path", "../config.json"),
)


@CHECKPOINT
def test_goes_on(saving: Saving) -> None:
    """A restored container goes on where it was: its memory, its file systems, its host name, its cgroup."""
    saving.start("echo begun >/tmp/mark; " + COUNT)
    saving.counts()
    saving.save()
    assert saving.case.call("state", saving.name).returncode != 0
    counted = saving.count()
    saving.restore("--pid-file", str(saving.case.bundle / "pid"))
    saving.counts()
    assert saving.count() > counted
    assert saving.case.execute("cat /tmp/mark; hostname") == "begun\njudge"
    assert host.read(str(saving.case.bundle / "pid")) == str(saving.case.pid(saving.name))
    assert cgroups.folder(saving.case.pid(saving.name), "pids").endswith(saving.name)


@CHECKPOINT
def test_other_folder(saving: Saving) -> None:
    """--bundle names the bundle, and images may be moved."""
    place = saving.case.bundle / "place"
    place.mkdir()
    saving.start()
    saving.counts()
    saving.save()
    saving.images.rename(place / "saved")
    bundle, flags = str(saving.case.bundle), ("--image-path", str(place / "saved"), "--work-path", str(place / "log"))
    quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL, "cwd": place, "env": criu.environment()}
    done = saving.case.call("restore", "--detach", "--bundle", bundle, *flags, saving.name, **quiet)
    assert done.returncode == 0, saving.log("restore", place / "log")
    saving.counts()
    assert saving.case.state(saving.name)["bundle"] == bundle
    assert (place / "log/restore.log").exists()


@CHECKPOINT
def test_again(saving: Saving) -> None:
    """A restored container can be saved and restored again."""
    saving.start()
    for _ in range(2):
        saving.counts()
        saving.save()
        saving.restore()
    saving.counts()


@CHECKPOINT
def test_leave_running(saving: Saving) -> None:
    """With --leave-running it runs on."""
    saving.start()
    saving.counts()
    saving.save("--leave-running")
    assert saving.case.status(saving.name) == "running"
    saving.counts()


@CHECKPOINT
def test_attended(saving: Saving) -> None:
    """`restore` without --detach stays, ends with the exit code of the program, and leaves nothing."""
    saving.start("while ! test -e /shared/go; do sleep 0.03; done; exit 7")
    saving.save()
    (saving.shared / "go").touch()
    assert saving.call("restore", stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL).returncode == 7
    saving.case.fails("state", saving.name)


@CHECKPOINT
def test_paused(saving: Saving) -> None:
    """A paused container can be saved."""
    host.need_controller("freezer")
    saving.start()
    saving.counts()
    saving.case.ok("pause", saving.name)
    saving.save()
    saving.restore()
    saving.counts()


@CHECKPOINT
@pytest.mark.parametrize("status", ["created", "stopped"])
def test_wrong_status(saving: Saving, status: str) -> None:
    """A container that does not run cannot be saved."""
    saving.name = saving.case.create("true")
    if status == "stopped":
        saving.case.ok("start", saving.name)
        saving.case.until("stopped")
    done = saving.call("checkpoint")
    assert done.returncode != 0
    assert done.stderr.strip()
    assert saving.case.status(saving.name) == status


@CHECKPOINT
def test_unknown(saving: Saving) -> None:
    """A container that does not exist cannot be saved, and without images none is restored."""
    saving.name = saving.case.new_id()
    saving.case.write("true")
    assert saving.call("checkpoint").returncode != 0
    assert saving.call("restore", "--detach").returncode != 0
    saving.case.fails("state", saving.name)


@CHECKPOINT
def test_restore_in_use(saving: Saving) -> None:
    """A container is not restored over one that is there."""
    saving.start()
    saving.counts()
    saving.save("--leave-running")
    assert saving.call("restore", "--detach").returncode != 0
    saving.counts()


@CHECKPOINT
def test_restore_of_broken_images(saving: Saving) -> None:
    """A restore that fails leaves nothing."""
    saving.start()
    saving.counts()
    saving.save()
    (saving.images / "core-1.img").write_bytes(b"broken")
    assert saving.call("restore", "--detach").returncode != 0
    saving.case.fails("state", saving.name)


@CHECKPOINT
def test_work_path(saving: Saving) -> None:
    """--work-path has criu's logs, and the images lie alone."""
    work = saving.case.bundle / "work"
    saving.start()
    saving.counts()
    saving.save("--work-path", str(work))
    saving.restore("--work-path", str(work))
    saving.counts()
    assert {"dump.log", "restore.log"} <= set(os.listdir(work))
    assert not [name for name in os.listdir(saving.images) if name.endswith(".log")]
    assert (saving.images / "inventory.img").exists()


@CHECKPOINT
@pytest.mark.parametrize("mode", ["soft", "full", "ignore"])
def test_cgroups_mode(saving: Saving, mode: str) -> None:
    """--manage-cgroups-mode: processes are back in cgroups below unless criu ignores them; full brings limits back, too."""
    cgroups.need_file("pids", "pids.max", "pids.max")
    saving.case.resources(pids={"limit": 50})
    flags = ("--manage-cgroups-mode", mode)
    saving.start("(while :; do sleep 9; done) & " + COUNT)
    saving.counts()
    below = Path(cgroups.folder(saving.case.pid(saving.name), "pids")) / "below"
    below.mkdir()
    children = f"/proc/{saving.case.pid(saving.name)}/task/{saving.case.pid(saving.name)}/children"
    (below / "cgroup.procs").write_text(host.read(children).split()[0])
    saving.case.ok("update", "--pids-limit", "77", saving.name)
    saving.save(*flags)
    saving.restore(*flags)
    saving.counts()
    assert cgroups.value(saving.case, "pids", "pids.max", "pids.max") == ("77" if mode == "full" else "50")
    assert bool(host.read(str(below / "cgroup.procs"))) == (mode != "ignore")


@CHECKPOINT
def test_other_cgroup(saving: Saving) -> None:
    """Where criu ignores cgroups, the restored container is in that of the document, which may be another one now."""
    cgroups.need_file("pids", "pids.max", "pids.max")
    saving.start()
    saving.counts()
    saving.save("--manage-cgroups-mode", "ignore")
    other = saving.case.new_id()
    saving.case.write()
    saving.restore("--manage-cgroups-mode", "ignore")
    saving.counts()
    assert cgroups.folder(saving.case.pid(saving.name), "pids").endswith(other)


@CHECKPOINT
def test_nested_mounts(saving: Saving) -> None:
    """Mounts below mounts are back where they were, and a process can be executed."""
    (saving.case.bundle / "below").mkdir()
    (saving.case.bundle / "below/file").write_text("found\n")
    saving.case.mount("/tmp/one", saving.shared, "rbind")
    saving.case.mount("/tmp/one/two", saving.case.bundle / "below", "rbind", "ro")
    saving.start()
    saving.counts()
    before = saving.case.execute("cut -d' ' -f5 /proc/self/mountinfo | sort")
    saving.save()
    saving.restore()
    saving.counts()
    assert saving.case.execute("cut -d' ' -f5 /proc/self/mountinfo | sort") == before
    assert saving.case.execute("cat /tmp/one/two/file") == "found"
    assert saving.case.call("exec", saving.name, "touch", "/tmp/one/two/new").returncode != 0


@CHECKPOINT
def test_cgroups_mode_strict(saving: Saving) -> None:
    """In the mode strict no cgroup may be there; the runtime has made one, so the restore fails and leaves nothing."""
    saving.start()
    saving.counts()
    saving.save("--manage-cgroups-mode", "strict")
    assert saving.call("restore", "--detach", "--manage-cgroups-mode", "strict").returncode != 0
    saving.case.fails("state", saving.name)


@CHECKPOINT
def test_invalid(saving: Saving) -> None:
    """A mode nobody knows, a server without a port, a parent that is no folder beside the images: each is refused."""
    saving.start()
    saving.counts()
    for flag, wrong in WRONG:
        saving.refused(flag, wrong)
    saving.counts()


@CHECKPOINT
def test_pre_dump(saving: Saving) -> None:
    """A pre-dump saves memory only, and the container runs on; a checkpoint that builds on it takes what has changed."""
    host.need(_has_feature("mem_dirty_track"), "the kernel does not track changes of memory")
    parent, saving.images = saving.case.bundle / "parent", saving.case.bundle / "parent"
    saving.start()
    saving.counts()
    saving.save("--pre-dump")
    saving.counts()
    saving.images = saving.case.bundle / "images"
    saving.save("--parent-path", f"../{parent.name}")
    saving.restore()
    saving.counts()


@CHECKPOINT
def test_no_tracking(saving: Saving) -> None:
    """Where the kernel cannot track changes of memory, a pre-dump and what builds on one are refused."""
    host.need(not _has_feature("mem_dirty_track"), "the kernel tracks changes of memory")
    (saving.case.bundle / "parent").mkdir()
    saving.start()
    saving.counts()
    saving.refused("--pre-dump")
    saving.refused("--parent-path", "../parent")
    saving.counts()


def _has_feature(name: str) -> bool:
    done = subprocess.run([criu.program(), "check", "--feature", name], capture_output=True, check=False, timeout=60)
    return done.returncode == 0
