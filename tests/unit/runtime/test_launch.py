"""The link between processes, the gate, the state, undoing, forking: what needs no privilege."""

from __future__ import annotations

import errno
import os
import signal
import subprocess
import sys
import threading

import pytest

from runtime.errors import ExistsFault, NotFoundFault, ProtocolFault, RuntimeFault, StartFault, StateFault
from runtime.kernel import pidfd
from runtime.kernel.fork import fork, fork_into
from runtime.kernel.spawn import spawn, wait
from runtime.launch import gate, protocol
from runtime.launch.preload import forbid_imports
from runtime.launch.program import find_program
from runtime.launch.staging import Stage
from runtime.record import replace
from runtime.spec.lasting import Hook, Hooks
from runtime.state import CLOSED_GATE, GATE, ContainerState, alive, container_dir, load, load_all, reserve, save, write_file
from runtime.undo import Descriptors, Undo
from tests.system.oci_kills import MESSAGES


@pytest.fixture
def links():
    ours, theirs = protocol.make_links()
    yield ours, theirs
    ours.close()
    theirs.close()


def test_messages_keep_their_bytes(links):
    ours, theirs = links
    ours.send(protocol.CONFINED, b"\0\1\0")
    assert theirs.receive(protocol.CONFINED) == (protocol.CONFINED, b"\0\1\0")


def test_a_fault_comes_out_as_it_was(links):
    ours, theirs = links
    theirs.send_fault(StartFault("gone", errno=2, path="/bin/x", step="exec"))
    with pytest.raises(StartFault) as caught:
        ours.receive(protocol.READY)
    assert (caught.value.errno, caught.value.path, caught.value.step) == (2, "/bin/x", "exec")


def test_what_was_not_awaited_is_a_fault(links):
    ours, theirs = links
    theirs.send(protocol.READY)
    with pytest.raises(ProtocolFault):
        ours.receive(protocol.CHILD)


def test_last_words_are_heard_although_something_was_unread(links):
    ours, theirs = links
    ours.send(protocol.GO)
    theirs.send_fault(RuntimeFault("the reason"))
    theirs.close()
    with pytest.raises(RuntimeFault, match="the reason"):
        ours.receive(protocol.CONFINE)


def test_last_words_are_heard_when_speaking(links):
    ours, theirs = links
    theirs.send_fault(RuntimeFault("the reason"))
    theirs.close()
    with pytest.raises(RuntimeFault, match="the reason"):
        ours.send(protocol.GO)


def test_an_end_is_a_fault(links):
    ours, theirs = links
    theirs.close()
    with pytest.raises(ProtocolFault, match="ended"):
        ours.receive(protocol.READY)


def test_the_gate_waits_through_looks_and_opens_once(tmp_path):
    listener = gate.listen(str(tmp_path), CLOSED_GATE)
    os.rename(tmp_path / CLOSED_GATE, tmp_path / GATE)
    opened = []

    def init():
        link = gate.wait(listener)
        opened.append(True)
        listener.close()
        link.close()

    thread = threading.Thread(target=init)
    thread.start()
    assert gate.is_waiting(str(tmp_path))
    assert not opened
    gate.open_gate(str(tmp_path), "c")
    thread.join(10)
    assert opened
    assert not gate.is_waiting(str(tmp_path))
    with pytest.raises(StateFault):
        gate.open_gate(str(tmp_path), "c")


def test_the_gate_tells_why_not(tmp_path):
    listener = gate.listen(str(tmp_path), GATE)

    def init():
        link = gate.wait(listener)
        link.send_fault(StartFault("exec format error", errno=8))
        link.close()
        listener.close()

    thread = threading.Thread(target=init)
    thread.start()
    with pytest.raises(StartFault, match="format"):
        gate.open_gate(str(tmp_path), "c")
    thread.join(10)


def test_a_gate_with_a_long_name(tmp_path):
    folder = tmp_path / ("x" * 120)
    folder.mkdir()
    gate.listen(str(folder), GATE).close()
    assert (folder / GATE).exists()


STATE = ContainerState(
    oci_version="1.2.0",
    id="box",
    bundle="/b",
    rootfs="/b/r",
    created="now",
    annotations=(("a", "b"),),
    namespaces=("pid",),
    cgroup=(),
    hooks=Hooks(poststop=(Hook(path="/h", args=("h",), env=("A=B",), timeout=3),)),
)


def test_the_state_is_kept(tmp_path):
    root = str(tmp_path / "state")
    reserve(root, "box")
    save(root, STATE)
    assert load(root, "box") == replace(STATE, status="stopped")
    own = pidfd.stat(os.getpid())
    assert own is not None
    save(root, replace(STATE, pid=os.getpid(), start_time=own[1]))
    assert load(root, "box").status == "running"
    save(root, replace(STATE, pid=os.getpid(), start_time=own[1] + 1))
    assert load(root, "box").status == "stopped", "another process has the number now"
    assert [state.id for state in load_all(root)] == ["box"]


def test_an_ended_process_whose_session_lives_on_is_gone():
    leader = subprocess.Popen(
        ["/bin/sh", "-c", "sleep 60 >/dev/null & echo $!"], start_new_session=True, stdout=subprocess.PIPE, text=True
    )
    left = int(leader.communicate()[0])
    try:
        assert pidfd.open_number(leader.pid) is None  # EINVAL on Linux 6.1
        assert pidfd.open_process(leader.pid, 1) is None
        assert not alive(leader.pid, 1)
    finally:
        os.kill(left, signal.SIGKILL)


def test_an_id_is_taken_once_and_unknown_ones_are_told(tmp_path):
    reserve(str(tmp_path), "box")
    with pytest.raises(ExistsFault):
        reserve(str(tmp_path), "box")
    with pytest.raises(NotFoundFault):
        load(str(tmp_path), "other")
    for name in ("", ".", "..", "a/b", "a b", "é"):
        with pytest.raises(StateFault):
            container_dir(str(tmp_path), name)


def test_a_folder_without_a_record_is_a_stopped_container(tmp_path):
    reserve(str(tmp_path), "box")
    assert load(str(tmp_path), "box").status == "stopped"


def test_every_step_is_undone_last_first():
    done = []
    undo = Undo()
    undo.push("first", lambda: done.append(1))
    undo.push("second", lambda: 1 / 0)
    undo.push("third", lambda: done.append(3))
    assert undo.run() == ["second: division by zero"]
    assert done == [3, 1]
    undo.push("kept", lambda: done.append(4))
    undo.commit()
    assert undo.run() == []
    assert done == [3, 1]


def test_descriptors_are_closed_together():
    kept = Descriptors()
    fd = kept.keep(os.open("/", os.O_PATH))
    kept.keep(-1)
    kept.close()
    with pytest.raises(OSError, match="descriptor"):
        os.fstat(fd)


def test_a_process_with_threads_does_not_fork():
    stop = threading.Event()
    thread = threading.Thread(target=stop.wait)
    thread.start()
    try:
        for attempt in (fork, lambda: fork_into(-1)):
            with pytest.raises(RuntimeError, match="2 threads"):
                attempt()
    finally:
        stop.set()
        thread.join()


def test_spawn_gives_only_the_standard_streams(tmp_path):
    out = os.open(tmp_path / "out", os.O_RDWR | os.O_CREAT)
    leaked = os.open("/", os.O_RDONLY)
    os.set_inheritable(leaked, True)
    null = os.open("/dev/null", os.O_RDWR)
    script = 'for fd in /proc/self/fd/*; do readlink $fd; done; echo $GIVEN; trap "" PIPE; kill -0 $$; exit 5'
    pid = spawn(["/bin/sh", "-c", script], {"GIVEN": "yes", "PATH": "/bin:/usr/bin"}, (null, out, out))
    assert wait(pid) == 5
    text = (tmp_path / "out").read_text()
    for fd in (out, leaked, null):
        os.close(fd)
    assert "yes" in text
    assert "/\n" not in text


def test_spawn_of_nothing(tmp_path):
    out = os.open(tmp_path / "out", os.O_RDWR | os.O_CREAT)
    pid = spawn(["/no/such/program"], {}, (out, out, out))
    assert wait(pid) == 127
    os.close(out)
    assert "/no/such/program" in (tmp_path / "out").read_text()


def test_no_module_is_found_once_imports_are_forbidden():
    reader, writer = os.pipe()
    pid = fork()
    if pid == 0:
        try:
            forbid_imports()
            sys.modules.pop("colorsys", None)
            __import__("colorsys")  # any module that is not loaded
            os.write(writer, b"imported")
        except ImportError:
            os.write(writer, b"refused")
        finally:
            os._exit(0)
    os.waitpid(pid, 0)
    assert os.read(reader, 100) == b"refused"
    os.close(reader)
    os.close(writer)


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("nope", 'exec: "nope": executable file not found in $PATH'),
        ("/no/pe", 'exec: "/no/pe": stat /no/pe: no such file or directory'),
        ("/", 'exec: "/": is a directory: permission denied'),
        ("/etc/passwd", 'exec: "/etc/passwd": permission denied'),
    ],
)
def test_missing_programs_are_worded_as_users_know_it(name, text):
    with pytest.raises(StartFault) as caught:
        find_program(name, "/bin:/usr/bin")
    assert caught.value.message == text


def test_programs_are_found_on_the_path(tmp_path):
    (tmp_path / "tool").write_text("")
    assert find_program("sh", f"{tmp_path}:/bin") == "/bin/sh"
    with pytest.raises(StartFault, match="permission denied"):
        find_program("tool", str(tmp_path))
    (tmp_path / "tool").chmod(0o755)
    assert find_program("tool", f"/bin:{tmp_path}") == str(tmp_path / "tool")


def fill_disk(monkeypatch, room):
    """Let os.write take `room` more bytes: what there is room for first, and an error only the next time (write(2))."""
    write = os.write
    left = [room]

    def full(fd, data):
        part = bytes(data[: left[0]])
        if not part:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        left[0] -= len(part)
        return write(fd, part)

    monkeypatch.setattr(os, "write", full)


def test_a_file_is_written_whole_or_not_at_all(tmp_path, monkeypatch):
    fill_disk(monkeypatch, 10)
    write_file(str(tmp_path / "fits"), b"12345")
    assert (tmp_path / "fits").read_bytes() == b"12345"
    with pytest.raises(OSError, match="No space left"):
        write_file(str(tmp_path / "file"), b"123456")


def test_a_state_that_has_no_room_is_not_saved(tmp_path, monkeypatch):
    reserve(str(tmp_path), "c1")
    state = ContainerState(oci_version="1.0.2", id="c1", bundle="/b", rootfs="/b/rootfs", created="now")
    save(str(tmp_path), state)
    fill_disk(monkeypatch, 9)
    with pytest.raises(RuntimeFault, match="save the container's state"):
        save(str(tmp_path), replace(state, pid=7))
    assert load(str(tmp_path), "c1").pid == 0


def test_somebody_is_killed_at_every_message():
    known = {value.decode() for name, value in vars(protocol).items() if name.isupper() and isinstance(value, bytes)}
    assert {message for messages in MESSAGES.values() for message in messages} == known


def test_a_peer_that_ends_with_something_unread_did_not_end_well(links):
    ours, theirs = links
    ours.send(protocol.GO)
    theirs.close()
    with pytest.raises(ProtocolFault, match="before it heard"):
        ours.receive_any()


def test_the_end_of_stage1_is_heard_although_another_holds_its_end_of_the_link(links):
    ours, _ = links
    for says in (False, True):
        child = fork()
        if child == 0:
            if says:
                links[1].send(protocol.CHILD, b"7")
            os._exit(0)
        stage = Stage(ours, child)
        try:
            if says:
                os.waitid(os.P_PID, child, os.WEXITED | os.WNOWAIT)
                assert stage.receive(protocol.CHILD) == (protocol.CHILD, b"7")
            else:
                with pytest.raises(ProtocolFault, match="stage1 ended while 'child'"):
                    stage.receive(protocol.CHILD)
        finally:
            stage.close()
            os.waitpid(child, 0)
