"""How `wherry-oci` starts: the launcher finds interpreter and package, modules come from .pyc files that are good."""

from __future__ import annotations

import importlib.util
import os
import subprocess
import sys
from pathlib import Path

import pytest

from runtime import pyc

ROOT = Path(__file__).parents[3]
SHOWS = 'import sys\ndef main(): print(sys.argv, sys.flags.isolated, sys.flags.no_site, sep="|")\n'


@pytest.fixture
def installed(tmp_path: Path) -> Path:
    """Give the launcher in a tree like a virtual environment's, in a folder whose name has a space."""
    prefix = tmp_path / "some where"
    package = prefix / "lib/python3.11/site-packages/runtime"
    package.mkdir(parents=True)
    (package / "__init__.py").touch()
    (package / "start.py").write_text(SHOWS)
    (prefix / "bin").mkdir()
    (prefix / "bin/python3").symlink_to(sys.executable)
    launcher = prefix / "bin/wherry-oci"
    launcher.write_text((ROOT / "runtime/wherry-oci.sh").read_text())
    launcher.chmod(0o755)
    return launcher


def launch(*command: str, cwd: Path, path: str = "") -> str:
    environment = os.environ | {"PATH": f"{path}:{os.environ['PATH']}" if path else os.environ["PATH"]}
    return subprocess.run(command, cwd=cwd, env=environment, capture_output=True, text=True, check=True).stdout.strip()


@pytest.mark.parametrize("argument", ["run", "a b", "", "*", "$HOME", "-c"])
def test_arguments_arrive_as_they_are(installed, argument):
    assert launch(str(installed), argument, cwd=installed.parent) == f"['-c', {argument!r}]|1|1"


def test_wherever_it_is_called_from(installed, tmp_path):
    link = tmp_path / "first"
    link.symlink_to(os.path.relpath(installed, tmp_path))
    (tmp_path / "second").symlink_to("first")
    folder = str(installed.parent)
    assert launch("./wherry-oci", "x", cwd=installed.parent).startswith("['-c', 'x']")
    assert launch("bin/wherry-oci", "x", cwd=installed.parent.parent).startswith("['-c', 'x']")
    assert launch("sh", "wherry-oci", "x", cwd=installed.parent).startswith("['-c', 'x']")
    assert launch("wherry-oci", "x", cwd=tmp_path, path=folder).startswith("['-c', 'x']")
    assert launch("wherry-oci", "x", cwd=installed.parent.parent, path="bin").startswith("['-c', 'x']")
    assert launch("./second", "x", cwd=tmp_path).startswith("['-c', 'x']")


def test_an_editable_launcher_knows_its_root(installed, tmp_path):
    moved = tmp_path / "it's here"
    (installed.parent.parent / "lib/python3.11/site-packages").rename(moved)
    quoted = str(moved).replace("'", "'\"'\"'")
    installed.write_text(installed.read_text().replace("\nroot=\n", f"\nroot='{quoted}'\n"))
    assert launch(str(installed), "x", cwd=tmp_path).startswith("['-c', 'x']")


@pytest.fixture
def package(tmp_path: Path) -> Path:
    """Give a package with one module, and the cached code of both."""
    folder = tmp_path / "runtime"
    folder.mkdir()
    (folder / "__init__.py").write_text('"""Package."""\n')
    (folder / "one.py").write_text("VALUE = 1\n")
    for source in folder.glob("*.py"):
        cached = Path(importlib.util.cache_from_source(str(source)))
        cached.parent.mkdir(exist_ok=True)
        subprocess.run([sys.executable, "-m", "py_compile", str(source)], check=True)
    return folder


def test_good_code_is_found(package):
    spec = pyc._Finder(str(package.parent)).find_spec("runtime.one")
    assert spec is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    assert (module.VALUE, module.__file__, module.__package__) == (1, str(package / "one.py"), "runtime")
    top = pyc._Finder(str(package.parent)).find_spec("runtime")
    assert top is not None
    assert top.submodule_search_locations == [str(package)]


def test_other_code_is_left_to_importlib(package):
    finder = pyc._Finder(str(package.parent))
    assert finder.find_spec("os") is None
    assert finder.find_spec("runtime.two") is None
    source = package / "one.py"
    source.write_text("VALUE = 10\n")  # another size
    assert finder.find_spec("runtime.one") is None
    source.write_text("VALUE = 1\n")
    os.utime(source, (1, 1))  # another time
    assert finder.find_spec("runtime.one") is None


@pytest.mark.parametrize("mode", ["checked-hash", "unchecked-hash"])
def test_code_of_another_kind_is_left_to_importlib(package, mode):
    import py_compile

    kind = {"checked-hash": py_compile.PycInvalidationMode.CHECKED_HASH}.get(
        mode, py_compile.PycInvalidationMode.UNCHECKED_HASH
    )
    py_compile.compile(str(package / "one.py"), invalidation_mode=kind)
    assert pyc._Finder(str(package.parent)).find_spec("runtime.one") is None


def test_damaged_code_is_left_to_importlib(package):
    cached = Path(importlib.util.cache_from_source(str(package / "one.py")))
    cached.write_bytes(cached.read_bytes()[:10])
    assert pyc._Finder(str(package.parent)).find_spec("runtime.one") is None
