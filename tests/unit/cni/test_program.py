from __future__ import annotations

import os
import time
from typing import TYPE_CHECKING, Any

import pytest

from cni.errors import Code, PluginFault, PluginTimeout
from cni.executor import Executor
from cni.skel import Invocation
from tests.support.wait import wait_for
from tests.unit.cni.fakes import Scripts

if TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture
def scripts(tmp_path: Path) -> Scripts:
    return Scripts(tmp_path)


def _run(scripts: Scripts, command: str = "ADD", timeout: float = 10, **config: Any) -> dict[str, Any] | None:
    executor = Executor((str(scripts.bin),), timeout=timeout)
    return executor.run(
        Invocation(plugin="fake", command=command, config=config, container_id="c", netns="/n", ifname="eth0", args="A=1")
    )


def test_environment_and_input(scripts: Scripts) -> None:
    scripts.add("fake", 'echo "{\\"said\\": \\"$CNI_COMMAND $CNI_CONTAINERID $CNI_NETNS $CNI_IFNAME $CNI_ARGS $CNI_PATH\\"}"')
    assert _run(scripts, name="x") == {"said": f"ADD c /n eth0 A=1 {scripts.bin}"}
    assert scripts.details()[0]["config"] == {"name": "x"}


def test_error_object(scripts: Scripts) -> None:
    scripts.add("fake", """echo '{"cniVersion":"1.0.0","code":11,"msg":"busy","details":"later"}'; exit 1""")
    with pytest.raises(PluginFault) as fault:
        _run(scripts)
    assert (fault.value.code, fault.value.details) == (Code.TRY_AGAIN_LATER, "later")
    assert str(fault.value) == "plugin fake failed ADD: busy (later)"


@pytest.mark.parametrize(
    ("body", "match"),
    [
        ("echo hello", r"not a json object \(hello\)"),
        ("echo '[]'", "not a json object"),
        ("printf '\\377\\000\\033[31m'", "not a json object"),
        ("true", "wrote no result"),
        ("echo broken >&2; exit 3", r"exited with status 3 without an error object \(broken\)"),
        ("echo garbage; exit 3", r"exited with status 3 without an error object \(garbage\)"),
        ("""echo '{"code":"x","msg":1}'; exit 2""", "exited with status 2"),
        ("kill -SEGV $$", "killed by signal 11"),
    ],
)
def test_what_is_not_cni(scripts: Scripts, body: str, match: str) -> None:
    scripts.add("fake", body)
    with pytest.raises(PluginFault, match=match) as fault:
        _run(scripts)
    assert str(fault.value).isprintable()


def test_silence_is_enough_for_del(scripts: Scripts) -> None:
    scripts.add("fake", "echo not json")
    assert _run(scripts, "DEL") is None


def test_hang_is_killed_with_its_children(scripts: Scripts, tmp_path: Path) -> None:
    scripts.add("fake", f"sleep 60 & echo $! > {tmp_path}/child; echo waiting >&2; wait")
    begin = time.monotonic()
    with pytest.raises(PluginTimeout, match=r"did not finish within 0.5 s .*waiting"):
        _run(scripts, timeout=0.5)
    assert time.monotonic() - begin < 5
    child = int((tmp_path / "child").read_text())
    wait_for(lambda: _ended(child), "the plugin's child to be killed", seconds=2)


def _ended(pid: int) -> bool:
    """Say whether a process has ended; it is nobody's child any more, so init may take a moment to reap it."""
    try:
        with open(f"/proc/{pid}/stat") as stat:
            return stat.read().split()[2] in "ZX"
    except FileNotFoundError:
        return True


def test_child_that_keeps_the_pipes_is_not_waited_for(scripts: Scripts) -> None:
    scripts.add("fake", "sleep 5 & echo '{}'")
    begin = time.monotonic()
    assert _run(scripts) == {}
    assert time.monotonic() - begin < 3


def test_flood_is_bounded(scripts: Scripts) -> None:
    scripts.add("fake", "yes")
    begin = time.monotonic()
    with pytest.raises(PluginFault, match="wrote more than"):
        _run(scripts)
    assert time.monotonic() - begin < 5


def test_flood_of_stderr_is_swallowed(scripts: Scripts) -> None:
    scripts.add("fake", "yes | head -c 10000000 >&2; echo '{\"a\": 1}'")
    assert _run(scripts) == {"a": 1}


def test_large_input_that_is_not_read(scripts: Scripts) -> None:
    (scripts.bin / "fake").write_text("#!/bin/sh\necho '{}'\n")
    (scripts.bin / "fake").chmod(0o755)
    assert _run(scripts, filler="x" * 300_000) == {}


def test_what_cannot_be_executed(scripts: Scripts) -> None:
    (scripts.bin / "fake").write_text("#!/no/such/interpreter\n")
    (scripts.bin / "fake").chmod(0o755)
    with pytest.raises(PluginFault, match=r"fake cannot be executed: No such file"):
        _run(scripts)


def test_no_descriptor_is_left(scripts: Scripts) -> None:
    scripts.add("fake", "exit 1")
    before = os.listdir("/proc/self/fd")
    for command in ("ADD", "DEL"):
        with pytest.raises(PluginFault):
            _run(scripts, command)
    assert os.listdir("/proc/self/fd") == before


def test_versions_are_asked_once(scripts: Scripts) -> None:
    scripts.add("fake")
    executor = Executor((str(scripts.bin),))
    assert executor.versions("fake") == ("0.4.0", "1.0.0", "1.1.0")
    (scripts.bin / "fake").unlink()
    assert executor.versions("fake")[-1] == "1.1.0"


def test_directories_come_before_bundled_ones(scripts: Scripts) -> None:
    scripts.add("host-local")
    (scripts.bin / "portmap").write_text("not executable")
    assert Executor((str(scripts.bin),)).find("host-local") == str(scripts.bin / "host-local")
    assert not isinstance(Executor((str(scripts.bin),), prefer_embedded=True).find("host-local"), str)
    assert not isinstance(Executor((str(scripts.bin),)).find("portmap"), str)


def test_unknown_plugin_says_where_it_looked(scripts: Scripts) -> None:
    with pytest.raises(Exception, match=f"'fake' is neither bundled nor found in {scripts.bin}"):
        _run(scripts)
