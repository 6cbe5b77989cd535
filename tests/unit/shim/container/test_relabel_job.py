"""Labels on a tree, with a kernel that keeps them in a dictionary."""

import errno
import os

import pytest

from shim.container import relabel_job
from shim.errors import FailedPrecondition

LABEL = "system_u:object_r:container_file_t:s0"


@pytest.fixture
def labels(monkeypatch):
    """Give labels by path; a number instead of a label is an error that writing gives."""
    found = {}

    def real(path, follow):
        folder, _, name = path.rpartition("/")
        return os.readlink(path) if follow else f"{os.readlink(folder)}/{name}"

    def getxattr(path, name, *, follow_symlinks):
        assert name == "security.selinux"
        value = found.get(real(path, follow_symlinks))
        if isinstance(value, bytes):
            return value
        raise OSError(value if value == errno.EOPNOTSUPP else errno.ENODATA, "no label")

    def setxattr(path, _name, value, *, follow_symlinks):
        at = real(path, follow_symlinks)
        if isinstance(found.get(at), int):
            raise OSError(found[at], os.strerror(found[at]))
        assert found.get(at, b"").rstrip(b"\0") != value, "written again"
        found[at] = value

    monkeypatch.setattr(relabel_job.os, "getxattr", getxattr, raising=False)
    monkeypatch.setattr(relabel_job.os, "setxattr", setxattr, raising=False)
    return found


@pytest.fixture
def tree(tmp_path):
    (tmp_path / "outside").mkdir()
    (tmp_path / "outside/file").touch()
    (tmp_path / "top/a/b").mkdir(parents=True)
    (tmp_path / "top/a/b/file").touch()
    (tmp_path / "top/link").symlink_to(tmp_path / "outside")
    return tmp_path / "top"


def run(*paths, field="mounts[0].selinux_relabel"):
    relabel_job.run({"label": LABEL, "trees": {str(path): field for path in paths}}, [], print)


def test_everything_below_is_labelled_and_no_link_is_followed(labels, tree):
    labels[f"{tree}/a"] = f"{LABEL}\0".encode()
    run(tree)
    below = ("", "/a", "/a/b", "/a/b/file", "/link")
    assert {path: value.rstrip(b"\0").decode() for path, value in labels.items()} == {f"{tree}{name}": LABEL for name in below}


def test_a_single_file(labels, tree):
    run(tree / "a/b/file")
    assert labels == {f"{tree}/a/b/file": LABEL.encode()}


def test_a_file_system_without_labels_is_no_error(labels, tree):
    labels[f"{tree}/a"] = errno.EOPNOTSUPP
    run(tree)
    assert labels[f"{tree}/a/b"] == LABEL.encode()


def test_an_error_names_field_path_and_label(labels, tree):
    labels[f"{tree}/a/b"] = errno.EROFS
    with pytest.raises(
        FailedPrecondition, match=rf"mounts\[0\]\.selinux_relabel: {tree} cannot be labelled {LABEL}: Read-only"
    ):
        run(tree)


def test_a_path_with_a_link_in_it_is_refused_unless_it_is_our_own(labels, tree):
    """CVE-2021-43816: a volume whose path leads to the host's files does not get them relabelled."""
    (tree.parent / "way").symlink_to(tree)
    with pytest.raises(FailedPrecondition, match="symbolic links"):
        run(tree.parent / "way")
    assert not labels
    run(tree.parent / "way", field="")
    assert f"{tree}/a" in labels
