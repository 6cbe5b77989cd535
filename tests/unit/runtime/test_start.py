"""How `wherry-oci` starts: the launcher finds interpreter and package, modules come from .pyc files that are good."""

from __future__ import annotations

import ast
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
    spec = pyc.Finder(str(package.parent)).find_spec("runtime.one")
    assert spec is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    assert (module.VALUE, module.__file__, module.__package__) == (1, str(package / "one.py"), "runtime")
    top = pyc.Finder(str(package.parent)).find_spec("runtime")
    assert top is not None
    assert top.submodule_search_locations == [str(package)]


def test_other_code_is_left_to_importlib(package):
    finder = pyc.Finder(str(package.parent))
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
    assert pyc.Finder(str(package.parent)).find_spec("runtime.one") is None


def test_damaged_code_is_left_to_importlib(package):
    cached = Path(importlib.util.cache_from_source(str(package / "one.py")))
    cached.write_bytes(cached.read_bytes()[:10])
    assert pyc.Finder(str(package.parent)).find_spec("runtime.one") is None


USE = """
import sys
from importlib.util import module_from_spec, spec_from_file_location
spec = spec_from_file_location("pyc", sys.argv[1])
pyc = module_from_spec(spec)
spec.loader.exec_module(pyc)
sys.path.insert(0, sys.argv[2])
import runtime
finder = pyc.Finder(sys.argv[2])
sys.meta_path.insert(0, finder)
finder.unpack("use")
unpacked = sorted(name for name in sys.modules if name.startswith("runtime."))
try:
    for name in sys.argv[3:]:
        __import__(name)
except ImportError as error:
    print(error)
else:
    import runtime.deep
    print(len(unpacked), *runtime.deep.VALUES)
    finder.pack("use")
"""


@pytest.fixture
def deep(package: Path) -> Path:
    """Give a package whose inner package imports its six modules, and so is complete after them."""
    inner = package / "deep"
    inner.mkdir()
    for number in range(6):
        (inner / f"part{number}.py").write_text(f"VALUE = {number}\n")
    imports = "".join(f"from runtime.deep.part{number} import VALUE as V{number}\n" for number in range(6))
    (inner / "__init__.py").write_text(imports + "VALUES = (V0, V1, V2, V3, V4, V5)\n")
    names = ["runtime.deep", *(f"runtime.{kind}{number}" for number in range(6) for kind in ("deep.part", "more"))]
    (package / "plain.py").write_text(f"MODULES = frozenset({names})\n")
    return package


def use(package: Path, *names: str) -> str:
    command = [sys.executable, "-I", "-S", "-c", USE, pyc.__file__, str(package.parent), *(names or ("runtime.deep",))]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()


def the_pack(package: Path) -> Path:
    return package / "__pycache__" / f"use.{sys.implementation.cache_tag}.pack"


@pytest.fixture
def packed(deep: Path) -> Path:
    """Give the package with a pack: importlib makes the .pyc files first, and these make the pack."""
    assert use(deep) == "0 0 1 2 3 4 5"
    assert not the_pack(deep).exists()
    assert use(deep) == "0 0 1 2 3 4 5"
    return deep


def test_what_a_command_imported_comes_from_its_pack(packed):
    assert use(packed) == "7 0 1 2 3 4 5"


def test_a_pack_is_good_only_for_the_sources_it_was_made_from(packed):
    part = packed / "deep/part3.py"
    part.write_text("VALUE = 7\n")  # of the same size
    os.utime(part, (1, 1))
    assert use(packed) == "0 0 1 2 7 4 5"
    assert use(packed) == "0 0 1 2 7 4 5"  # importlib has made a new .pyc only now
    assert use(packed) == "7 0 1 2 7 4 5"
    part.unlink()
    assert use(packed) == "No module named 'runtime.deep.part3'"


@pytest.mark.parametrize(
    "damage", [lambda data: data[:-100], lambda data: b"\0" * len(data), lambda _: b"", lambda data: data[9:]]
)
def test_a_damaged_pack_is_made_anew(packed, damage):
    pack = the_pack(packed)
    pack.write_bytes(damage(pack.read_bytes()))
    assert use(packed) == "0 0 1 2 3 4 5"
    assert use(packed) == "7 0 1 2 3 4 5"


def test_a_module_of_a_pack_that_cannot_be_made_fails_where_it_is_imported(deep):
    (deep / "deep/part4.py").write_text("import somewhere\nVALUE = 4\n")
    (deep.parent / "somewhere.py").touch()
    for _ in range(3):
        use(deep)
    (deep.parent / "somewhere.py").unlink()
    assert use(deep) == "No module named 'somewhere'"
    (deep.parent / "somewhere.py").touch()
    assert use(deep) == "7 0 1 2 3 4 5"


def test_a_pack_grows_when_much_was_missing(packed):
    for number in range(12):
        (packed / f"more{number}.py").touch()
    some = ("runtime.deep", *(f"runtime.more{number}" for number in range(3)))
    many = (*some, *(f"runtime.more{number}" for number in range(3, 6)))
    for _ in range(2):
        use(packed, *some)
    assert use(packed).startswith("7 ")
    for _ in range(2):
        use(packed, *many, *(f"runtime.more{number}" for number in range(6, 12)))  # of which nothing plain has need
    assert use(packed).startswith("13 ")


def test_where_nobody_may_write_there_is_no_pack(deep, monkeypatch):
    use(deep)
    monkeypatch.setattr(pyc, "_PACKAGE", "nowhere")
    finder = pyc.Finder(str(deep.parent))
    finder._complete = [("runtime.one", "", 0, 0, False, compile("", "", "exec"))] * 9
    finder.pack("use")
    assert not the_pack(deep).exists()


STANDS = """
import sys
sys.path.insert(0, sys.argv[1])
from runtime import lean
lean.install()
import os, posix, posixpath
from os import path
lean_names = dict(vars(os))
assert "_collections_abc" not in sys.modules
assert os.path is path is posixpath and path.os is os
texts = ["a", "\\udcff", b"\\xff"]
ours = [*map(os.fsencode, texts), *map(os.fsdecode, texts)], dict(os.environ)
assert os.makedirs.__module__ == "os"
import os
assert os is not path.os
assert ours == ([*map(os.fsencode, texts), *map(os.fsdecode, texts)], dict(os.environ))
print(*(name for name, value in lean_names.items() if name[:2] != "__" and value is not getattr(os, name, None)))
"""


def test_a_stand_in_has_what_the_real_module_has():
    command = [sys.executable, "-I", "-S", "-c", STANDS, str(ROOT)]
    environment = os.environ | {"ODD": "\udcff"}
    done = subprocess.run(command, capture_output=True, text=True, check=True, env=environment)
    assert set(done.stdout.split()) == {"environ", "fsdecode", "fsencode"}


def test_the_stand_in_has_whatever_may_be_used_inside_a_container():
    """Nothing can be imported there any more. The rest is used before, and rarely."""
    script = (
        f"import sys; sys.path.insert(0, {str(ROOT)!r}); from runtime import lean; lean.install(); import os; print(*vars(os))"
    )
    done = subprocess.run([sys.executable, "-I", "-S", "-c", script], capture_output=True, text=True, check=True)
    used = {
        node.attr
        for source in (ROOT / "runtime").rglob("*.py")
        for node in ast.walk(ast.parse(source.read_bytes()))
        if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id == "os"
    }
    assert used - set(done.stdout.split()) == {"get_exec_path", "makedirs"}
