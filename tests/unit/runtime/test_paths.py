"""Paths inside a root: nothing leads out of it, what is missing is made, links are followed as far as they go."""

from __future__ import annotations

import errno
import os

import pytest

from runtime.apply.paths import RootPaths


@pytest.fixture
def root(tmp_path):
    (tmp_path / "root").mkdir()
    (tmp_path / "outside").mkdir()
    fd = os.open(tmp_path / "root", os.O_PATH | os.O_DIRECTORY)
    yield tmp_path / "root", RootPaths(fd)
    os.close(fd)


def where(fd: int) -> str:
    try:
        return os.readlink(f"/proc/self/fd/{fd}")
    finally:
        os.close(fd)


def test_missing_directories_and_files_are_made(root):
    path, paths = root
    assert where(paths.target("/a/b/file", is_directory=False)) == f"{path}/a/b/file"
    assert (path / "a/b/file").is_file()
    assert where(paths.target("/a/c/d", is_directory=True)) == f"{path}/a/c/d"
    assert (path / "a/c/d").is_dir()


@pytest.mark.parametrize("target", ["/outside", "../outside", "../../../../../outside", "/../outside"])
@pytest.mark.parametrize("rest", ["", "/new", "/new/deep"])
def test_links_stay_inside(root, target, rest):
    path, paths = root
    (path / "link").symlink_to(target)
    assert where(paths.target(f"/link{rest}", is_directory=True)) == f"{path}/outside{rest}"
    assert list((path.parent / "outside").iterdir()) == []


def test_a_chain_of_dangling_links(root):
    path, paths = root
    (path / "one").symlink_to("two")
    (path / "two").symlink_to("/deep/three")
    assert where(paths.target("/one", is_directory=False)) == f"{path}/deep/three"


def test_dots_do_not_climb(root):
    path, paths = root
    assert where(paths.target("/../../x/../y/./z", is_directory=True)) == f"{path}/y/z"


def test_a_loop_ends(root):
    path, paths = root
    (path / "a").symlink_to("b")
    (path / "b").symlink_to("a")
    with pytest.raises(OSError, match="symbolic links") as caught:
        paths.target("/a/x", is_directory=True)
    assert caught.value.errno == errno.ELOOP


def test_plain_refuses_every_link(root):
    path, paths = root
    (path / "real").mkdir()
    (path / "link").symlink_to("real")
    os.close(paths.target("/real", is_directory=True, plain=True))
    for name in ("/link", "/link/x"):
        with pytest.raises(OSError, match="symbolic links") as caught:
            paths.target(name, is_directory=True, plain=True)
        assert caught.value.errno == errno.ELOOP


def test_a_file_in_the_way(root):
    path, paths = root
    (path / "file").write_text("")
    with pytest.raises(NotADirectoryError):
        paths.target("/file/x", is_directory=True)


def test_magic_links_are_no_way_out(root):
    path, paths = root
    (path / "magic").symlink_to("/proc/self/root/etc")
    assert where(paths.target("/magic", is_directory=True)) == f"{path}/proc/self/root/etc"
