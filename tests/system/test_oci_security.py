"""Attacks that found a runtime open, tried on this one (the numbers are those of the advisories)."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from runtime import sealed
from runtime.kernel import pidfd
from tests.support.wait import wait_for
from tests.system.test_oci_namespaces import in_user_namespace
from tests.system.test_oci_root import bind

if TYPE_CHECKING:
    from tests.system.oci_node import Oci

pytestmark = pytest.mark.system

ROOT = Path(__file__).parents[2]


def test_without_pivot_no_bare_procfs_is_left_below(oci: Oci) -> None:
    """A wholly visible procfs in the mount namespace would let a user namespace inside mount another, with nothing masked."""
    if oci.runtime == "crun":
        pytest.skip("crun leaves one")
    oci.config["linux"]["maskedPaths"] = ["/proc/kcore"]
    oci.config["linux"]["readonlyPaths"] = ["/proc/sys"]
    oci.config["process"]["capabilities"] = {
        kind: ["CAP_SETFCAP", "CAP_SYS_ADMIN"] for kind in ("bounding", "effective", "permitted")
    }
    oci.write("unshare", "-mrpf", "sh", "-c", "mount -t proc none /proc && echo mounted")
    done = oci.call("run", "--no-pivot", oci.new_id())
    assert done.returncode != 0
    assert "mounted" not in done.stdout
    assert "mount:" in done.stderr


def created(node: Oci) -> tuple[str, int]:
    """Give a container whose init waits at the gate, and that init."""
    node.write("sleep", "100")
    name = node.new_id()
    assert node.call("create", name, stdout=-3, stderr=-3).returncode == 0
    return name, int(node.state(name)["pid"])


def test_the_waiting_init_runs_from_a_sealed_image(ours: Oci) -> None:
    """CVE-2019-5736: /proc/self/exe of what runs in the container is never a file of the host that can be written."""
    _, pid = created(ours)
    link = os.readlink(f"/proc/{pid}/exe")
    assert link.startswith("/memfd:") or not os.path.samestat(
        os.stat(f"/proc/{pid}/exe"), os.stat(os.path.realpath("/proc/self/exe"))
    )
    with pytest.raises(OSError, match=r"busy|not permitted|Read-only"):
        os.close(os.open(f"/proc/{pid}/exe", os.O_RDWR))


def test_the_waiting_init_has_nothing_mapped_of_the_executable(ours: Oci) -> None:
    """CVE-2019-5736: /proc/PID/map_files, too, leads to no file of the host that a runtime is started from."""
    _, pid = created(ours)
    with open(f"/proc/{pid}/maps", encoding="utf-8") as maps:
        assert os.path.realpath("/proc/self/exe") not in maps.read().split()


SEALS = """
import posix, sys
sys.path.insert(0, sys.argv[1])
from runtime.sealed import seal
seal()
text = open("/proc/self/maps").read()
print(posix.readlink("/proc/self/exe"), posix.getpid())
print(*sorted(sys._xoptions))
print(*(line.split()[-1] for line in text.splitlines()), sep="|")
try:
    print(posix.open("/proc/self/exe", posix.O_RDWR))
except OSError as error:
    print(error.strerror)
import ctypes, json  # libraries can still be loaded
[bytearray(1000) for _ in range(100_000)]  # and memory be had
"""


@pytest.mark.parametrize("interpreter", sorted({sys.executable, "/usr/bin/python3"}))  # a frame around libpython, and the whole
@pytest.mark.parametrize("refused", [False, True])
def test_where_the_image_cannot_be_exchanged_the_interpreter_starts_again(interpreter: str, refused: bool) -> None:
    """Without the capability the kernel refuses to change the executable of a process that runs."""
    dropped = ["setpriv", "--bounding-set", "-sys_admin,-checkpoint_restore"]
    command = [interpreter, "-I", "-S", "-c", SEALS, str(ROOT)]
    with subprocess.Popen([*(dropped if refused else []), *command], stdout=subprocess.PIPE, text=True) as process:
        said, _ = process.communicate(timeout=60)
    image, options, files, written = said.splitlines()
    host = os.path.realpath(interpreter)
    assert process.returncode == 0
    assert image.split()[0] != host
    assert image.split()[-1] == str(process.pid)
    assert host not in files.split("|")
    assert written in ("Text file busy", "Operation not permitted", "Read-only file system")
    assert options == ("wherry-sealed" if refused else "")


def test_an_executable_whose_name_is_another_files_by_now_is_copied(tmp_path: Path) -> None:
    """A package may be upgraded between the start and the seal: the new file's code must not come below the old one's data."""
    other = tmp_path / "python"
    shutil.copy2(os.path.realpath("/usr/bin/python3"), other)
    status = other.stat()
    os.close(sealed._overlay(str(other), status))
    os.utime(other)
    with pytest.raises(OSError, match="another file"):
        sealed._overlay(str(other), status)


def test_a_program_that_executes_the_runtime_finds_nothing_to_write(ours: Oci) -> None:
    """CVE-2019-5736 again: a script whose interpreter is /proc/self/exe runs the runtime's own image."""
    (ours.rootfs / "bin/trap").write_text("#!/proc/self/exe\n")
    (ours.rootfs / "bin/trap").chmod(0o755)
    before = os.stat(os.path.realpath("/proc/self/exe"))
    ours.run("/bin/trap")
    after = os.stat(os.path.realpath("/proc/self/exe"))
    assert (before.st_ino, before.st_mtime_ns) == (after.st_ino, after.st_mtime_ns)


def test_the_waiting_init_cannot_be_looked_into(ours: Oci) -> None:
    """CVE-2016-9962: not dumpable, so its /proc files belong to the host's root, whatever its ids are."""
    ours.config["process"]["user"] = {"uid": 1000, "gid": 1000}
    _, pid = created(ours)
    assert os.stat(f"/proc/{pid}/fd").st_uid == 0
    assert os.stat(f"/proc/{pid}/environ").st_uid == 0


def test_a_leaked_directory_is_no_way_out(ours: Oci) -> None:
    """CVE-2024-21626: a working directory through a descriptor of the runtime."""
    leaked = os.open("/", os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.set_inheritable(leaked, True)
        for number in (*range(3, 20), leaked):
            ours.config["process"]["cwd"] = f"/proc/self/fd/{number}"
            ours.write("sh", "-c", "pwd")
            done = ours.call("run", ours.new_id(), pass_fds=(leaked,))
            assert done.returncode != 0, f"descriptor {number}: {done.stdout}"
    finally:
        os.close(leaked)


def test_only_what_init_needs_is_open_at_the_gate(ours: Oci) -> None:
    leaked = os.open("/etc", os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.set_inheritable(leaked, True)
        ours.write("sleep", "100")
        name = ours.new_id()
        assert ours.call("create", name, stdout=-3, stderr=-3, pass_fds=(leaked,)).returncode == 0
    finally:
        os.close(leaked)
    pid = ours.state(name)["pid"]
    links = [os.readlink(f"/proc/{pid}/fd/{fd}") for fd in os.listdir(f"/proc/{pid}/fd")]
    rest = [link for link in links if link != "/dev/null"]
    assert all(link.startswith("socket:") or link.endswith("/task") for link in rest), rest
    assert len(rest) <= 2


def test_code_is_not_imported_from_the_container(ours: Oci) -> None:
    """A container that puts Python files where the host has them is not asked for them."""
    paths = {os.path.dirname(os.__file__), os.path.dirname(os.path.dirname(pidfd.__file__)), os.getcwd()}
    ours.config["root"]["readonly"] = False
    mark = 'open("/owned", "w").write("x")\n'
    for path in paths:
        folder = ours.rootfs / path.lstrip("/")
        for name in (
            "json/__init__.py",
            "traceback.py",
            "signal.py",
            "select.py",
            "linecache.py",
            "subprocess.py",
            "errors.py",
        ):
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            (folder / name).write_text(mark)
    name = ours.start("sleep", "100")
    ours.call("exec", name, "nope")
    ours.call("exec", "--user", "1000:1000", name, "true")
    ours.run("nope")
    assert not (ours.rootfs / "owned").exists()


def test_inheritable_capabilities_are_those_asked_for(ours: Oci) -> None:
    """CVE-2022-29162: no inheritable capability unless the document has it."""
    name = ours.start("sleep", "100")
    assert ours.ok("exec", name, "grep", "CapInh", "/proc/self/status").split()[1] == f"{0:016x}"


def test_a_container_cannot_outlive_its_cgroup(ours: Oci) -> None:
    """A forking container is killed whole."""
    name = ours.start("sh", "-c", "while :; do sleep 100 & sleep 0.01; done")
    wait_for(lambda: len(ours.ok("ps", name).splitlines()) > 5, "the container to fork")
    ours.ok("delete", "--force", name)


@pytest.mark.parametrize("kind", ["bind", "cgroup"])
def test_cgroups_of_a_container_in_the_host_s_cgroup_namespace(ours: Oci, kind: str) -> None:
    """CVE-2023-25809: root of a user namespace that sees the host's hierarchies cannot write to them."""
    in_user_namespace(ours)
    mount = {"destination": "/sys/fs/cgroup", "type": "cgroup", "source": "cgroup", "options": ["nosuid", "noexec", "ro"]}
    ours.config["mounts"].append(mount if kind == "cgroup" else bind("/sys/fs/cgroup", "/sys/fs/cgroup", "ro"))
    script = (
        "cd /sys/fs/cgroup; for d in . pids memory unified freezer; do mkdir $d/escape 2>/dev/null && echo made $d;"
        "echo $$ 2>/dev/null > $d/cgroup.procs && echo moved $d; done;"
        "mount -o remount,rw,bind . 2>/dev/null && echo remounted; true"
    )
    assert ours.shell(script) == ""


def test_more_id_maps_than_the_kernel_takes(ours: Oci) -> None:
    """CVE-2021-43784: a list whose length overflows some field is refused; what follows it is not read as something else."""
    in_user_namespace(ours)
    maps = [{"containerID": n, "hostID": 100000 + n, "size": 1} for n in range(70_000)]
    for field in ("uidMappings", "gidMappings"):
        kept = ours.config["linux"][field]
        ours.config["linux"][field] = maps
        done = ours.run("readlink", "/proc/self/ns/user")
        assert done.returncode == 1
        assert "Traceback" not in done.stderr
        assert "map" in done.stderr.lower()
        ours.config["linux"][field] = kept
