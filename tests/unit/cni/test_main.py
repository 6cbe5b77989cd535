from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from cni import main, plugins

PROGRAM = Path(sys.executable).parent / "wherry-cni"


def _run(*command: str, **environ: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(command, env=os.environ | environ, input="{}", capture_output=True, text=True, check=False)


@pytest.fixture
def installed(tmp_path: Path) -> Path:
    if not PROGRAM.exists():
        pytest.skip("wherry-cni is not installed: run make venv")
    folder = tmp_path / "bin"
    for _twice in range(2):
        assert _run(str(PROGRAM), "install", str(folder)).returncode == 0
    return folder


def test_install_links_every_plugin(installed: Path) -> None:
    assert sorted(os.listdir(installed)) == sorted(plugins.MODULES)
    for name in plugins.MODULES:
        assert (installed / name).resolve() == PROGRAM.resolve()


def test_installed_plugin_is_that_plugin(installed: Path) -> None:
    for name in plugins.MODULES:
        answer = _run(str(installed / name), CNI_COMMAND="VERSION")
        assert answer.returncode == 0
        assert "1.1.0" in json.loads(answer.stdout)["supportedVersions"]


def test_plugin_by_argument(installed: Path) -> None:
    answer = _run(str(PROGRAM), "host-local", CNI_COMMAND="ADD", CNI_PATH=str(installed))
    assert answer.returncode == 1
    assert json.loads(answer.stdout)["code"] == 4


@pytest.mark.parametrize("arguments", [[], ["dhcp"], ["install"], ["bridge", "x"]])
def test_usage(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], arguments: list[str]) -> None:
    monkeypatch.setattr(sys, "argv", ["wherry-cni", *arguments])
    assert main.main() == 2
    assert capsys.readouterr().err.startswith("usage: wherry-cni")


def test_called_by_a_person(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(sys, "argv", ["/opt/cni/bin/bridge"])
    monkeypatch.delenv("CNI_COMMAND", raising=False)
    assert main.main() == 0
    first, second = capsys.readouterr().err.splitlines()
    assert first.startswith("CNI bridge plugin of wherry-cni ")
    assert second == "CNI protocol versions supported: 0.1.0, 0.2.0, 0.3.0, 0.3.1, 0.4.0, 1.0.0, 1.1.0"


def test_plugins_import_no_netlink_library() -> None:
    """It costs a tenth of a second and twenty megabytes, in every process forked from the one that imported it."""
    script = "import sys; from cni import client, plugins; plugins.preload(); sys.exit('pyroute2' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", script], check=False).returncode == 0


def test_a_folder_that_cannot_be(installed: Path) -> None:
    answer = _run(str(PROGRAM), "install", "/proc/none")
    assert (answer.returncode, answer.stderr) == (1, "wherry-cni: /proc/none: no such file or directory\n")
    assert installed.exists()


@pytest.mark.parametrize(
    ("redirection", "said"), [("> /dev/full", "no space left on device"), (">&-", "must be open"), ("<&-", "must be open")]
)
def test_an_output_that_is_none(installed: Path, redirection: str, said: str) -> None:
    """A plugin whose caller cannot be answered says so in one line and fails."""
    answer = _run("sh", "-c", f"exec {installed}/bridge {redirection}", CNI_COMMAND="VERSION")
    assert answer.returncode == 1
    assert said in answer.stderr
    assert len(answer.stderr.splitlines()) == 1
