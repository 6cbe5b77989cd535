"""The tar of a writable layer has what image layers have: files as they are, and whiteouts for what was deleted."""

from __future__ import annotations

import os
import socket
import tarfile
from typing import TYPE_CHECKING

import pytest

from shim.monitor.diff import write_diff

if TYPE_CHECKING:
    from pathlib import Path


def test_files_links_and_folders(tmp_path: Path) -> None:
    upper = tmp_path / "upper"
    (upper / "a/b").mkdir(parents=True)
    (upper / "a/b/file").write_text("content")
    os.chmod(upper / "a/b/file", 0o640)
    os.link(upper / "a/b/file", upper / "z")
    os.symlink("/a/b", upper / "link")
    with socket.socket(socket.AF_UNIX) as sock:
        sock.bind(str(upper / "sock"))
    assert write_diff(str(upper), str(tmp_path / "d.tar")) == []
    with tarfile.open(tmp_path / "d.tar") as tar:
        names = tar.getnames()
        assert set(names) == {"a", "a/b", "a/b/file", "link", "z"}
        assert names.index("a") < names.index("a/b") < names.index("a/b/file")
        kinds = {member.name: member.type for member in tar}
        assert {kinds["z"], kinds["a/b/file"]} == {tarfile.LNKTYPE, tarfile.REGTYPE}
        assert tar.getmember("link").linkname == "/a/b"
        assert tar.getmember("a/b/file").mode == 0o640


@pytest.mark.skipif(os.geteuid() != 0, reason="overlayfs' marks are root's")
def test_what_was_deleted(tmp_path: Path) -> None:
    upper = tmp_path / "upper"
    (upper / "etc").mkdir(parents=True)
    os.mknod(upper / "etc/gone", 0o20000, 0)
    (upper / "new").mkdir()
    try:
        os.setxattr(upper / "new", "trusted.overlay.opaque", b"y")
        os.setxattr(upper / "new", "user.mine", b"kept")
    except OSError:
        pytest.skip("the file system of the tests has no extended attributes")
    assert write_diff(str(upper), str(tmp_path / "d.tar")) == ["/etc/gone"]
    with tarfile.open(tmp_path / "d.tar") as tar:
        assert set(tar.getnames()) == {"etc", "etc/.wh.gone", "new", "new/.wh..wh..opq"}
        assert tar.getmember("new").pax_headers["SCHILY.xattr.user.mine"] == "kept"
        assert "SCHILY.xattr.trusted.overlay.opaque" not in tar.getmember("new").pax_headers
