"""The overlay as it is made before Linux 6.15; newer kernels can do it too, so that it is judged on every machine."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import pytest

from runtime.apply.coveredlayers import mount_covered_overlay
from runtime.errors import RuntimeFault
from runtime.kernel import userns
from runtime.kernel.mount import move_mount, umount2
from runtime.request import RootfsMount

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

FIRST = 1_000_000
KERNEL = tuple(int(part) for part in os.uname().release.split(".")[:2])

pytestmark = [
    pytest.mark.system,
    pytest.mark.skipif(KERNEL < (5, 19), reason="overlayfs takes id-mapped layers since Linux 5.19"),
]


@pytest.fixture
def namespace() -> Iterator[int]:
    fd = userns.make(f"0 {FIRST} 65536", f"0 {FIRST} 65536")
    yield fd
    os.close(fd)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for name in ("top", "bottom", "upper", "work", "place"):
        (tmp_path / name).mkdir()
    (tmp_path / "top/file").write_text("x")
    os.chown(tmp_path / "top/file", 3, 4)
    os.chown(tmp_path / "upper", FIRST, FIRST)
    return tmp_path


@pytest.mark.parametrize("mapped", [True, False], ids=["mapped", "as it is"])
@pytest.mark.parametrize("writable", [True, False], ids=["rw", "ro"])
@pytest.mark.parametrize("layers", [("top", "bottom"), ("top",)], ids=["two", "one"])
def test_layers_are_seen_with_other_ids(
    folder: Path, namespace: int, layers: tuple[str, ...], *, writable: bool, mapped: bool
) -> None:
    own = {"upper": str(folder / "upper"), "work": str(folder / "work")} if writable else {}
    request = RootfsMount(lower=tuple(str(folder / name) for name in layers), **own)
    with open("/proc/self/mountinfo") as file:
        before = file.read()
        overlay = mount_covered_overlay(request, namespace if mapped else -1)
        file.seek(0)
        assert file.read() == before
    place = os.open(folder / "place", os.O_PATH)
    try:
        move_mount(overlay, place)
        seen = os.stat(folder / "place/file")
        assert (seen.st_uid, seen.st_gid) == ((FIRST + 3, FIRST + 4) if mapped else (3, 4))
        assert os.access(folder / "place", os.W_OK) == writable
        if writable:
            (folder / "place/file").write_text("y")
            assert (folder / "upper/file").stat().st_uid == seen.st_uid
    finally:
        os.close(place)
        umount2(str(folder / "place"))
        os.close(overlay)
    assert (os.stat(folder / "top/file").st_uid, (folder / "top/file").read_text()) == (3, "x")


def test_what_fails_is_told_as_a_value(folder: Path, namespace: int) -> None:
    with pytest.raises(RuntimeFault, match="no such file") as caught:
        mount_covered_overlay(RootfsMount(lower=(str(folder / "absent"),)), namespace)
    assert caught.value.path == str(folder / "absent")
