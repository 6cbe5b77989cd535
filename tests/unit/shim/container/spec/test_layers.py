from __future__ import annotations

import os
import stat

import pytest

from shim.container.spec import layers
from shim.container.spec.layers import LayeredRootfs
from shim.errors import InvalidArgument

LIMIT = 100


@pytest.fixture
def tree(tmp_path):
    """Give a function that makes layers, topmost first: path → content, None (whiteout), or "→ target" (a link)."""

    def make(*contents):
        made = []
        for index, files in enumerate(contents):
            root = tmp_path / f"layer{index}"
            root.mkdir()
            for name, content in files.items():
                path = root / name
                path.parent.mkdir(parents=True, exist_ok=True)
                if content is None:
                    os.mknod(path, stat.S_IFCHR, 0)
                elif content.startswith("→"):
                    path.symlink_to(content[1:])
                else:
                    path.write_text(content)
            made.append(str(root))
        return LayeredRootfs(made)

    return make


@pytest.fixture
def opaque(monkeypatch):
    """Let directories whose path ends in a given name count as opaque: setting the attribute needs root."""
    names = set()
    monkeypatch.setattr(layers, "_is_opaque", lambda path: any(path.endswith(name) for name in names))
    return names


def read(view, path="/etc/passwd"):
    found = view.read(path, limit=LIMIT)
    return None if found is None else found.decode()


@pytest.mark.parametrize(
    ("stack", "expected"),
    [
        ([{"etc/passwd": "top"}, {"etc/passwd": "bottom"}], "top"),
        ([{"etc/other": "x"}, {"etc/passwd": "bottom"}], "bottom"),
        ([{}, {"etc/passwd": "bottom"}], "bottom"),
        ([{"etc/passwd": None}, {"etc/passwd": "bottom"}], None),
        ([{"etc": None}, {"etc/passwd": "bottom"}], None),
        ([{"etc/x": "new"}, {"etc": None}, {"etc/passwd": "bottom"}], None),
        ([{"etc": "a file"}, {"etc/passwd": "bottom"}], None),
        ([{"etc/x": "new"}, {"etc": "a file"}, {"etc/passwd": "bottom"}], None),
        ([{}], None),
        ([], None),
        ([{"etc/passwd": "→/real"}, {"real": "linked"}], "linked"),
        ([{"etc/passwd": "→../real"}, {"real": "linked"}], "linked"),
        ([{"etc/passwd": "→../../../../real"}, {"real": "linked"}], "linked"),
        ([{"etc": "→usr/etc"}, {"usr/etc/passwd": "through"}], "through"),
        ([{"etc": "→/usr/../usr/etc/."}, {"usr/etc/passwd": "through"}], "through"),
        ([{"etc/passwd": "→gone"}], None),
        ([{"etc/passwd": "→/real"}, {"real": "old"}, {"etc/passwd": "never"}], "old"),
        ([{"etc/passwd": "→/real", "real": None}, {"real": "old"}], None),
    ],
)
def test_merge(tree, stack, expected):
    assert read(tree(*stack)) == expected


def test_opaque_directory_hides_what_is_below(tree, opaque):
    view = tree({"etc/other": "x"}, {"etc/passwd": "bottom"})
    assert read(view) == "bottom"
    opaque.add("layer0/etc")
    assert read(view) is None
    assert read(view, "/etc/other") == "x"


@pytest.mark.skipif(os.geteuid() != 0, reason="trusted attributes need root")
def test_opaque_attribute(tree, tmp_path):
    view = tree({"etc/other": "x"}, {"etc/passwd": "bottom"})
    try:
        os.setxattr(tmp_path / "layer0/etc", layers.OPAQUE, b"y")
    except OSError:
        pytest.skip("the file system of the temporary directory has no trusted attributes")
    assert read(view) is None


def test_host_paths_are_out_of_reach(tree, tmp_path):
    secret = tmp_path / "secret"
    secret.write_text("host")
    view = tree({"etc/passwd": f"→{secret}", "a/b": "→../../../secret", "up": "→.."})
    assert read(view) is None
    assert read(view, "/a/b") is None
    assert read(view, "/up/secret") is None
    assert read(view, "/../../secret") is None


def test_links_are_bounded(tree):
    view = tree({"etc/passwd": "→shadow", "etc/shadow": "→passwd"})
    with pytest.raises(InvalidArgument, match="symbolic links"):
        read(view)


def test_growing_links_are_bounded(tree):
    with pytest.raises(InvalidArgument, match="symbolic links"):
        read(tree({"a": "→a/" + "x/" * 100}), "/a")


def test_size_is_bounded(tree):
    view = tree({"etc/passwd": "x" * LIMIT, "etc/group": "x" * (LIMIT + 1)})
    assert read(view) == "x" * LIMIT
    with pytest.raises(InvalidArgument, match="longer than"):
        read(view, "/etc/group")


def test_only_regular_files(tree, tmp_path):
    view = tree({"etc/x": "x"})
    os.mkfifo(tmp_path / "layer0/etc/passwd")
    with pytest.raises(InvalidArgument, match="regular file"):
        read(view)
    with pytest.raises(InvalidArgument, match="directory"):
        read(view, "/etc")
    assert read(view, "/etc/x/") == "x"
    assert read(view, "/etc/x/y") is None
