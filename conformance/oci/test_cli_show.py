"""list, ps, spec, version, help, the log, --root, and terminals."""

from __future__ import annotations

import array
import fcntl
import json
import os
import re
import termios
from contextlib import suppress
from typing import TYPE_CHECKING

import pytest

from conformance.oci.support import host, wait
from conformance.oci.support.notify import Listener

if TYPE_CHECKING:
    from collections.abc import Iterator

    from conformance.oci.support.case import Case

LIST = pytest.mark.rule("runc: list")
PS = pytest.mark.rule("runc: ps")
GLOBAL = pytest.mark.rule("runc: global options")
SPEC = pytest.mark.rule("runc: spec")
TERMINAL = pytest.mark.rule("config.md#process")


@LIST
def test_list_json(case: Case) -> None:
    """list --format json names every container with its state."""
    case.config["annotations"] = {"org.example": "listed"}
    names = {case.create("true"), case.sleeper()}
    entries = json.loads(case.ok("list", "--format", "json"))
    assert {entry["id"] for entry in entries} == names
    for entry in entries:
        assert entry["status"] in {"created", "running"}
        assert entry["pid"] > 0
        assert entry["bundle"] == str(case.bundle)
        assert re.match(r"\d{4}-\d\d-\d\dT", entry["created"])


@LIST
def test_list_table(case: Case) -> None:
    """list prints a table with a heading."""
    name = case.sleeper()
    heading, line = case.ok("list").splitlines()
    assert {"PID", "STATUS", "BUNDLE"} <= set(heading.split())
    assert name in line
    assert "running" in line
    assert str(case.pid()) in line


@LIST
def test_list_quiet(case: Case) -> None:
    """list --quiet prints ids only."""
    name = case.sleeper()
    assert case.ok("list", "--quiet").split() == [name]


@LIST
def test_list_empty(case: Case) -> None:
    """Without containers the JSON is an empty list (null, as runc says it)."""
    case.root.mkdir()
    assert not json.loads(case.ok("list", "--format", "json") or "null")


@LIST
def test_list_after_delete(case: Case) -> None:
    """A deleted container is not listed."""
    name = case.start("true")
    case.until("stopped")
    case.ok("delete", name)
    assert case.ok("list", "--quiet").split() == []


@PS
def test_ps_json(case: Case) -> None:
    """ps --format json gives the process ids as the runtime sees them."""
    name = case.sleeper()
    assert case.pid() in json.loads(case.ok("ps", "--format", "json", name))


@PS
def test_ps_table(case: Case) -> None:
    """ps prints what ps(1) prints of these processes."""
    if not any(os.path.exists(f"{folder}/ps") for folder in ("/bin", "/usr/bin")):
        pytest.skip("host: no ps(1)")
    name = case.sleeper()
    said = case.ok("ps", name).splitlines()
    assert "PID" in said[0]
    assert any(str(case.pid()) in line.split() for line in said[1:])


@PS
def test_ps_children(case: Case) -> None:
    """ps names the children too."""
    name = case.start("sh", "-c", "sleep 300 & echo ready; wait")
    case.until_printed("ready")
    assert len(json.loads(case.ok("ps", "--format", "json", name))) == 2


@PS
def test_ps_unknown(case: Case) -> None:
    """A container that does not exist is an error."""
    case.fails("ps", "judge-nobody")


@SPEC
def test_spec(case: Case) -> None:
    """spec writes a document that can be run."""
    case.ok("spec")
    document = json.loads((case.bundle / "config.json").read_text())
    assert document["root"]["path"] == "rootfs"
    document["process"] |= {"terminal": False, "args": ["echo", "yes"]}
    document["linux"].setdefault("cgroupsPath", case.cgroups_path(case.id))
    (case.bundle / "config.json").write_text(json.dumps(document))
    assert "yes\n" in case.ok("run", case.id)


@SPEC
def test_spec_bundle(case: Case) -> None:
    """spec --bundle writes it there."""
    (case.bundle / "other").mkdir()
    case.ok("spec", "--bundle", str(case.bundle / "other"))
    assert json.loads((case.bundle / "other/config.json").read_text())["ociVersion"]


@SPEC
def test_spec_rootless(case: Case) -> None:
    """spec --rootless asks for a user namespace and no network of its own."""
    case.ok("spec", "--rootless")
    kinds = {entry["type"] for entry in json.loads((case.bundle / "config.json").read_text())["linux"]["namespaces"]}
    assert "user" in kinds
    assert "network" not in kinds


@SPEC
def test_spec_does_not_overwrite(case: Case) -> None:
    """spec leaves a present config.json alone."""
    (case.bundle / "config.json").write_text("{}")
    case.fails("spec")
    assert (case.bundle / "config.json").read_text() == "{}"


@GLOBAL
@pytest.mark.parametrize("words", [["--version"], ["--help"]])
def test_words(case: Case, words: list[str]) -> None:
    """--version and --help print something and succeed."""
    assert case.runtime.call(*words).returncode == 0
    assert case.runtime.call(*words).stdout.strip()


@GLOBAL
@pytest.mark.parametrize(
    "verb", ["create", "start", "state", "kill", "delete", "run", "exec", "list", "ps", "update", "spec", "pause"]
)
def test_help_of_a_verb(case: Case, verb: str) -> None:
    """Every verb has a --help."""
    assert case.runtime.call(verb, "--help").returncode == 0


@GLOBAL
def test_version_names_the_specification(case: Case) -> None:
    """--version names the version of the specification."""
    assert re.search(r"spec:? ?\d+\.\d+", case.runtime.call("--version").stdout)


@GLOBAL
@pytest.mark.parametrize("words", [["nosuchverb"], ["--nosuchoption", "list"], ["state", "--nosuchoption", "x"]])
def test_unknown_words(case: Case, words: list[str]) -> None:
    """Verbs and options that do not exist are errors."""
    case.fails(*words)


@GLOBAL
@pytest.mark.parametrize("layout", ["text", "json"])
def test_log(case: Case, layout: str) -> None:
    """--log takes errors, as lines of text or of JSON with level and msg."""
    log = case.bundle / "log"
    done = case.runtime.call("--root", str(case.root), "--log", str(log), "--log-format", layout, "state", "judge-nobody")
    assert done.returncode != 0
    lines = log.read_text().splitlines()
    assert lines
    if layout == "json":
        entry = json.loads(lines[-1])
        assert entry["level"] == "error"
        assert entry["msg"]
        assert entry["time"]


@GLOBAL
def test_log_format_unknown(case: Case) -> None:
    """A layout of the log that does not exist is an error."""
    done = case.runtime.call("--root", str(case.root), "--log-format", "xml", "list")
    assert done.returncode != 0


@GLOBAL
def test_log_appends(case: Case) -> None:
    """The log is added to, not written anew."""
    log = case.bundle / "log"
    log.write_text("before\n")
    case.runtime.call("--root", str(case.root), "--log", str(log), "state", "judge-nobody")
    assert log.read_text().startswith("before\n")


@GLOBAL
def test_debug(case: Case) -> None:
    """--debug is accepted and changes no result."""
    name = case.new_id()
    case.write("echo", "yes")
    done = case.runtime.call(
        "--debug", "--root", str(case.root), "--log", str(case.bundle / "log"), "run", name, cwd=case.bundle
    )
    assert (done.returncode, done.stdout) == (0, "yes\n")


# terminals


@pytest.fixture
def console(case: Case) -> Iterator[Listener]:
    """Listen for terminals."""
    made = Listener(case.bundle / "console")
    yield made
    made.close()


def read_until(descriptor: int, text: str) -> str:
    """Read a terminal until a text has come."""
    os.set_blocking(descriptor, False)
    found = ""

    def come() -> bool:
        nonlocal found
        with suppress(BlockingIOError, OSError):
            found += os.read(descriptor, 4096).decode()
        return text in found

    wait.wait_for(come, f"{text!r} on the terminal")
    return found


def with_terminal(case: Case, console: Listener, script: str) -> int:
    """Start a container with a terminal; give the terminal's other side."""
    case.process["terminal"] = True
    name = case.new_id()
    case.write("sh", "-c", script)
    case.ok("create", "--console-socket", str(console.path), name, stdout=None, stderr=None)
    descriptor = console.descriptor()
    case.ok("start", name)
    return descriptor


@TERMINAL
def test_terminal(case: Case, console: Listener) -> None:
    """With `terminal` the standard streams are a terminal, whose other side comes over the console socket."""
    descriptor = with_terminal(case, console, "tty; tty <&1; tty <&2; echo done; sleep 10")
    said = read_until(descriptor, "done").split()
    os.close(descriptor)
    assert len(set(said[:3])) == 1
    assert said[0].startswith("/dev/")


@TERMINAL
def test_terminal_input(case: Case, console: Listener) -> None:
    """What is typed reaches the program."""
    descriptor = with_terminal(case, console, "read word; echo got $word; sleep 10")
    os.write(descriptor, b"typed\n")
    read_until(descriptor, "got typed")
    os.close(descriptor)


@TERMINAL
def test_terminal_is_controlling(case: Case, console: Listener) -> None:
    """The terminal controls the session: ^C interrupts the program."""
    descriptor = with_terminal(case, console, "trap 'echo interrupted; exit' INT; echo ready; while :; do sleep 0.05; done")
    read_until(descriptor, "ready")
    os.write(descriptor, b"\x03")
    read_until(descriptor, "interrupted")
    os.close(descriptor)


@TERMINAL
def test_console_device(case: Case, console: Listener) -> None:
    """/dev/console is the terminal."""
    descriptor = with_terminal(case, console, "echo spoken > /dev/console; ls -l /dev/console; sleep 10")
    said = read_until(descriptor, "/dev/console")
    os.close(descriptor)
    assert "spoken" in said
    assert said.split("spoken")[1].strip().startswith("c")


@TERMINAL
@pytest.mark.parametrize("size", [(24, 80), (50, 132), (3, 10)])
def test_console_size(case: Case, console: Listener, size: tuple[int, int]) -> None:
    """consoleSize is the terminal's size."""
    case.process["consoleSize"] = {"height": size[0], "width": size[1]}
    descriptor = with_terminal(case, console, "stty size; echo done; sleep 10")
    said = read_until(descriptor, "done").split()
    os.close(descriptor)
    assert said[:2] == [str(size[0]), str(size[1])]


@TERMINAL
def test_terminal_can_be_resized(case: Case, console: Listener) -> None:
    """Who holds the terminal's other side can change its size."""
    descriptor = with_terminal(case, console, "read x; stty size; echo done; sleep 10")
    fcntl.ioctl(descriptor, termios.TIOCSWINSZ, array.array("H", [33, 44, 0, 0]))
    os.write(descriptor, b"\n")
    said = read_until(descriptor, "done")
    os.close(descriptor)
    assert "33 44" in said


@TERMINAL
def test_terminal_owner(case: Case, console: Listener) -> None:
    """The terminal belongs to the process's user."""
    case.process["user"] = {"uid": 1000, "gid": 1000}
    descriptor = with_terminal(case, console, "stat -c %u $(tty); echo done; sleep 10")
    said = read_until(descriptor, "done")
    os.close(descriptor)
    assert said.split()[0] == "1000"


@TERMINAL
def test_terminal_in_a_user_namespace(case: Case, console: Listener) -> None:
    """A container with a user namespace may have a terminal."""
    host.need_user_namespaces()
    case.userns()
    descriptor = with_terminal(case, console, "test -t 0 && echo done; sleep 10")
    read_until(descriptor, "done")
    os.close(descriptor)


@TERMINAL
def test_terminal_of_exec(case: Case, console: Listener) -> None:
    """exec --tty has a terminal of its own."""
    name = case.sleeper()
    case.popen("exec", "--tty", "--detach", "--console-socket", str(console.path), name, "sh", "-c", "tty; echo done; sleep 10")
    descriptor = console.descriptor()
    said = read_until(descriptor, "done")
    os.close(descriptor)
    assert "/dev/pts/" in said


@TERMINAL
def test_terminal_without_socket(case: Case) -> None:
    """create with a terminal needs a console socket."""
    case.process["terminal"] = True
    case.refused("true")


@TERMINAL
def test_socket_without_terminal(case: Case, console: Listener) -> None:
    """A console socket without a terminal is an error, or is not used."""
    name = case.new_id()
    case.write("true")
    case.call("create", "--console-socket", str(console.path), name, stdout=None, stderr=None)


@TERMINAL
def test_no_terminal(case: Case) -> None:
    """Without `terminal` the standard streams are none."""
    assert case.shell("test -t 0 || test -t 1 || test -t 2 || echo none") == "none"


@pytest.mark.rule("runc: --pidfd-socket")
def test_pidfd_socket(case: Case) -> None:
    """--pidfd-socket sends a descriptor of the container's process."""
    listener = Listener(case.bundle / "pidfd")
    name = case.new_id()
    case.write("sleep", "300")
    try:
        done = case.call("create", "--pidfd-socket", str(listener.path), name, stdout=None, stderr=None)
        assert done.returncode == 0
        descriptor = listener.descriptor()
    finally:
        listener.close()
    said = host.read(f"/proc/self/fdinfo/{descriptor}")
    os.close(descriptor)
    assert f"Pid:\t{case.pid()}" in said
