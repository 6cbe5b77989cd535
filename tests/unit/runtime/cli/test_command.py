"""What a caller sees without any container: exit codes, one line of error, the log file, documents."""

from __future__ import annotations

import json
import re
import tomllib
from pathlib import Path

import pytest

from runtime.cli.command import command_line
from runtime.cli.execute import with_capabilities
from runtime.cli.features import document
from runtime.cli.help import VERSION
from runtime.cli.options import declare, parse
from runtime.cli.report import quote
from runtime.cli.show import select_processes, table
from runtime.cli.signals import parse_signal
from runtime.cli.table import COMMANDS
from runtime.cli.update import from_options, size
from runtime.errors import RuntimeFault, UsageFault

TEXT = re.compile(r'^time="\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ" level=error msg="(.*)"$')


def test_unknown_command(capfd: pytest.CaptureFixture[str]) -> None:
    assert command_line(["nosuch"]) == 3
    assert TEXT.match(capfd.readouterr().err.strip())


@pytest.mark.parametrize(
    ("words", "code", "message"),
    [
        (["run"], 1, r'\\"run\\" requires exactly 1 argument'),
        (["kill", "a", "b", "c"], 1, "requires a maximum of 2"),
        (["exec"], 1, "requires a minimum of 1"),
        (["restore", "x"], 1, "config.json"),
        (["checkpoint", "--page-server", "here", "x"], 1, "use --page-server ADDRESS:PORT"),
        (["checkpoint", "--empty-ns", "uts", "x"], 1, "only network is"),
        (["checkpoint", "--status-fd", "7777", "x"], 1, "invalid --status-fd argument 7777"),
        (["checkpoint", "--status-fd", "9999999999", "x"], 1, "invalid --status-fd argument 9999999999"),
        (["--log-format", "xml", "list"], 1, "unknown log-format"),
        (["--rootless", "perhaps", "list"], 1, "invalid value"),
        (["kill", "x", "FOO"], 1, "unknown signal"),
    ],
)
def test_usage_faults(tmp_path: Path, capfd: pytest.CaptureFixture[str], words: list[str], code: int, message: str) -> None:
    assert command_line(["--root", str(tmp_path), *words]) == code
    errors = capfd.readouterr().err.strip().splitlines()
    assert len(errors) == 1
    assert re.search(message, errors[0])


def test_log_file_gets_json_and_stderr_the_plain_text(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    log = tmp_path / "log"
    words = ["--root", str(tmp_path / "r"), "--log", str(log), "--log-format", "json", "state", "nosuch"]
    assert command_line(words) == 1
    assert command_line(words) == 1
    records = [json.loads(line) for line in log.read_text().splitlines()]
    assert len(records) == 2
    assert set(records[0]) == {"level", "msg", "time"}
    assert "does not exist" in records[0]["msg"]
    assert capfd.readouterr().err.splitlines() == [records[0]["msg"]] * 2


def test_config_fault_names_the_pointer(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "config.json").write_text('{"ociVersion": "1.0.0", "process": {"user": {"uid": "root"}}}')
    assert command_line(["--root", str(tmp_path / "r"), "create", "-b", str(tmp_path), "x"]) == 1
    assert "create failed: config.json: /process/user/uid: must be an integer, not text" in capfd.readouterr().err


def test_exec_failure_is_255(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    assert command_line(["--root", str(tmp_path), "exec", "nosuch", "ls"]) == 255
    assert "exec failed: " in capfd.readouterr().err


@pytest.mark.parametrize(
    ("words", "code", "said"),
    [
        (["state", "x"], 1, "a defect of wherry-oci, please report what --debug shows: KeyError: 'lost'"),
        (["create", "x"], 1, "wherry-oci create failed: a defect of wherry-oci, "),
        (["exec", "x", "ls"], 255, "exec failed: a defect of wherry-oci, "),
    ],
)
def test_a_defect_is_a_line(
    tmp_path: Path,
    capfd: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    words: list[str],
    code: int,
    said: str,
) -> None:
    def broken(_context: object) -> int:
        raise KeyError("lost")

    for module in ("show:state", "lifecycle:create", "execute:execute"):
        monkeypatch.setattr(f"runtime.cli.{module.replace(':', '.')}", broken)
    log = tmp_path / "log"
    assert command_line(["--root", str(tmp_path), "--log", str(log), *words]) == code
    errors = capfd.readouterr().err.splitlines()
    assert len(errors) == 1
    assert errors[0].startswith(said)
    assert len(log.read_text().splitlines()) == 1
    assert "Traceback" not in log.read_text()
    assert command_line(["--root", str(tmp_path), "--log", str(log), "--debug", *words]) == code
    assert "in broken" in log.read_text()
    assert len(capfd.readouterr().err.splitlines()) == 1


def test_an_interrupt_is_a_line(tmp_path: Path, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted(_context: object) -> int:
        raise KeyboardInterrupt

    monkeypatch.setattr("runtime.cli.show.state", interrupted)
    assert command_line(["--root", str(tmp_path), "state", "x"]) == 1
    assert TEXT.match(capfd.readouterr().err.strip())


def test_what_could_not_be_undone_is_said(
    tmp_path: Path, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def failing(_context: object) -> int:
        fault = RuntimeFault("it broke")
        fault.add_note("not undone: the cgroup: busy")
        raise fault

    monkeypatch.setattr("runtime.cli.lifecycle.create", failing)
    assert command_line(["--root", str(tmp_path), "create", "x"]) == 1
    assert "it broke; not undone: the cgroup: busy" in capfd.readouterr().err


def test_a_message_of_megabytes_is_cut(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "config.json").write_text(json.dumps({"ociVersion": "1" * (1 << 20), "process": {}, "root": {"path": "x"}}))
    assert command_line(["--root", str(tmp_path / "r"), "create", "-b", str(tmp_path), "x"]) == 1
    assert len(capfd.readouterr().err) < 10000


def test_list_of_nothing(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    assert command_line(["--root", str(tmp_path), "list", "-f", "json"]) == 0
    assert json.loads(capfd.readouterr().out) is None
    assert command_line(["--root", str(tmp_path), "list"]) == 0
    assert capfd.readouterr().out.split() == ["ID", "PID", "STATUS", "BUNDLE", "CREATED", "OWNER"]


def test_list_below_a_root_that_is_not_there(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    assert command_line(["--root", str(tmp_path / "none"), "list"]) == 1
    assert "none" in capfd.readouterr().err


def test_debug_says_what_is_done(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    assert command_line(["--debug", "--root", str(tmp_path), "list", "-q"]) == 0
    assert "level=debug" in capfd.readouterr().err
    log = tmp_path / "log"
    assert command_line(["--debug", "--log", str(log), "--root", str(tmp_path), "list", "-q"]) == 0
    assert "level=debug" in log.read_text()
    assert not capfd.readouterr().err


def test_update_names_what_is_wrong(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    update = ["--root", str(tmp_path), "update", "x"]
    assert command_line([*update, "--cpuset-cpus", "many"]) == 1
    assert 'options: /cpu/cpus: "many" is not a list' in capfd.readouterr().err.replace('\\"', '"')
    (tmp_path / "limits").write_text('{"cpu": {"idle": 2}}')
    assert command_line([*update, "--resources", str(tmp_path / "limits")]) == 1
    assert f"{tmp_path}/limits: /cpu/idle: 2 is not 0 or 1" in capfd.readouterr().err
    assert command_line([*update, "--kernel-memory", "much"]) == 1
    assert "for flag -kernel-memory" in capfd.readouterr().err
    assert command_line([*update, "--kernel-memory", "1m"]) == 1  # there is no such container
    assert "Kernel memory settings are ignored" in capfd.readouterr().err


def test_spec_writes_once(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    assert command_line(["spec", "-b", str(tmp_path)]) == 0
    first = (tmp_path / "config.json").read_text()
    assert json.loads(first)["root"] == {"path": "rootfs", "readonly": True}
    assert command_line(["spec", "--bundle", str(tmp_path)]) == 1
    assert "remove it first" in capfd.readouterr().err
    assert (tmp_path / "config.json").read_text() == first


def test_help_of_everything(capfd: pytest.CaptureFixture[str]) -> None:
    assert command_line([]) == 0
    out = capfd.readouterr().out
    assert [name for name in COMMANDS if f"   {name} " not in out] == []
    for name in COMMANDS:
        assert command_line([name, "--help"]) == 0
        assert f"wherry-oci {name} - " in capfd.readouterr().out


def test_version_is_the_distribution_s(capfd: pytest.CaptureFixture[str]) -> None:
    project = tomllib.loads((Path(__file__).parents[4] / "pyproject.toml").read_text())
    assert project["project"]["version"] == VERSION
    assert command_line(["--version"]) == 0
    assert capfd.readouterr().out.startswith(f"wherry-oci version {VERSION}\nspec: 1.")


def test_features_document() -> None:
    features = document()
    assert features["ociVersionMin"] == "1.0.0"
    assert {"ro", "rbind", "rro"} <= set(features["mountOptions"])
    assert "time" in features["linux"]["namespaces"]
    assert "SCMP_ACT_NOTIFY" in features["linux"]["seccomp"].get("actions", [])
    assert set(features["potentiallyUnsafeConfigAnnotations"]) == {"org.criu.config", "org.systemd.property."}
    json.dumps(features)


@pytest.mark.parametrize(
    ("text", "number"), [("9", 9), ("KILL", 9), ("SIGTERM", 15), ("sighup", 1), ("RTMIN+1", 35), ("SIGRTMAX-1", 63)]
)
def test_signals(text: str, number: int) -> None:
    assert parse_signal(text) == number


@pytest.mark.parametrize("text", ["", "99", "-9", "FOO", "KILL+1", "_DFL", "ALRM x", "RTMAX+1"])
def test_no_signals(text: str) -> None:
    with pytest.raises(UsageFault, match="unknown signal"):
        parse_signal(text)


def test_table_columns() -> None:
    assert table([("ID", "OWNER"), ("a", "root"), ("a-long-name-x", "me")]).splitlines() == [
        "ID              OWNER",
        "a               root",
        "a-long-name-x   me",
    ]


def test_ps_lines_are_chosen_by_the_pid_column() -> None:
    text = "UID PID CMD\nroot 5 a 7\nroot 7 b\nroot 57 c\n"
    assert select_processes(text, {7}) == "UID PID CMD\nroot 7 b\n"
    with pytest.raises(RuntimeFault, match="PID"):
        select_processes("A B\n", {7})


def test_added_capabilities_can_be_used() -> None:
    held = with_capabilities(None, ("CAP_KILL",))
    assert held.bounding == held.effective == held.permitted == held.ambient == ("CAP_KILL",)
    assert held.inheritable == ()


@pytest.mark.parametrize(
    ("text", "number"), [("5", 5), ("2k", 2048), ("1.5G", 3 << 29), ("1MiB", 1 << 20), ("1.5e3k", 1536000), ("-1", -1)]
)
def test_sizes(text: str, number: int) -> None:
    assert size(text, "memory") == number


@pytest.mark.parametrize("text", ["", "k", "-2", "1x", "1..5", "1e", "1e-9", "1e400"])
def test_no_sizes(text: str) -> None:
    with pytest.raises(UsageFault, match="invalid value"):
        size(text, "memory")


def test_update_asks_only_for_what_was_given() -> None:
    values = parse(declare(COMMANDS["update"][5]), ["--memory", "1m", "--cpu-quota=-1", "x"], interleaved=True)
    resources = from_options(values)
    assert resources.memory.limit == 1 << 20
    assert resources.memory.swap is None
    assert resources.cpu.quota == -1
    assert resources.cpu.shares is None
    assert resources.pids_limit is None


def test_log_text_is_quoted() -> None:
    assert quote('a "b"\\\n\x1b é') == '"a \\"b\\"\\\\\\n\\u001b é"'
