"""Attacks by what an image holds on the process that unpacks it. Numbers are those of the advisories."""

from __future__ import annotations

import os
import sys
import tarfile
from pathlib import Path

import pytest

from shim.errors import WherryError
from tests.support import images
from tests.support.images import TestImage, entry, folder
from tests.support.imagestore import image_store, remains
from tests.system.test_image_hostile import load

pytestmark = pytest.mark.system

TRAP = 'open("/owned", "w").write("x")\nraise SystemExit("owned")\n'
Entries = list[tuple[tarfile.TarInfo, bytes]]


def traps() -> Entries:
    """Give a Python module of every name the standard library and the project have, where this interpreter looks for them."""
    library = os.path.dirname(os.__file__)
    project = Path(__file__).parents[2]
    found = [f"{library}/{name}{end}.py" for name in sorted(sys.stdlib_module_names) for end in ("", "/__init__")]
    found += [str(path) for path in (project / "shim").rglob("*.py")]
    found += [f"{library}/encodings/{name}.py" for name in ("idna", "ascii", "latin_1", "punycode", "cp437")]
    found += [f"/lib/x86_64-linux-gnu/{name}.so.2" for name in ("libnss_files", "libnss_dns", "libgcc_s")]
    return [entry(name.lstrip("/"), TRAP) for name in dict.fromkeys(found)]


FAULTS: dict[str, Entries] = {
    "nothing": [],
    "a name out of the layer": [entry("../escape", "x")],
    "a name that is no text": [entry("b\udcff\udcfe", "x"), entry("f", "x"), entry("f/g", "x")],
    "a device out of range": [entry("d", type=tarfile.CHRTYPE, devmajor=2_000_000, devminor=1)],
    "an attribute the kernel refuses": [entry("f", "x", pax_headers={"SCHILY.xattr.security.capability": "x"})],
    "a hard link to nothing": [entry("l", type=tarfile.LNKTYPE, linkname="nowhere")],
}


@pytest.mark.parametrize("fault", FAULTS.values(), ids=FAULTS.keys())
async def test_code_is_not_loaded_from_the_layer(tmp_path: Path, fault: Entries) -> None:
    """CVE-2019-14271: the process that has moved into the layer loads no module and no library any more."""
    root = tmp_path / "root"
    image = TestImage(layers=(images.layer([*traps(), *fault]),))
    async with image_store(root) as store:
        if fault:
            with pytest.raises(WherryError) as caught:
                await load(store, tmp_path, image)
            assert "owned" not in str(caught.value)
            assert "layer 1 of 1" in str(caught.value)
        else:
            await load(store, tmp_path, image)
            (layer,) = store.layer_paths(image.id)
            assert not os.path.exists(f"{layer}/owned")
            await store.remove(image.id)
    assert remains(root) == []


async def test_a_layer_that_changes_its_mind(tmp_path: Path) -> None:
    """CVE-2025-47290: a directory that becomes a link out, and back, again and again; all stays in the layer."""
    outside = tmp_path / "outside"
    outside.mkdir()
    entries: Entries = []
    for number in range(1000):
        entries += [folder("a"), entry(f"a/{number}", "x"), entry("a", type=tarfile.SYMTYPE, linkname=str(outside))]
        entries += [entry(f"a/{number}-through", "x"), entry("a", "a file"), entry("a", type=tarfile.LNKTYPE, linkname="a")]
    async with image_store(tmp_path / "root") as store:
        try:
            await load(store, tmp_path, TestImage(layers=(images.layer(entries),)))
        except WherryError as error:
            assert "layer 1 of 1" in str(error)  # noqa: PT017 - it may be refused, and must not escape
        assert os.listdir(outside) == []


async def test_modes_through_links(tmp_path: Path) -> None:
    """CVE-2021-32760: mode, owner and attributes of an entry are never those of a file outside, also behind a link."""
    outside = tmp_path / "outside"
    outside.mkdir(mode=0o700)
    victim = outside / "victim"
    victim.write_text("mine")
    victim.chmod(0o600)
    links = (str(victim), "../" * 30 + str(victim), "../" * 30 + "proc/self/root" + str(victim))
    for target in links:
        entries = [
            entry("link", type=tarfile.SYMTYPE, linkname=target, mode=0o777, uid=1234, gid=1234),
            entry("hard", type=tarfile.LNKTYPE, linkname="link", mode=0o777, uid=1234),
            entry("hard", "overwritten", mode=0o4777, uid=1234),
            entry("link", "overwritten", mode=0o4777, uid=1234),
            entry("up", type=tarfile.SYMTYPE, linkname=str(outside)),
            folder("up", mode=0o777),
        ]
        async with image_store(tmp_path / "root") as store:
            await load(store, tmp_path, TestImage(layers=(images.layer(entries),)))
        found = victim.stat()
        assert (found.st_mode & 0o7777, found.st_uid, victim.read_text()) == (0o600, os.getuid(), "mine")
        assert outside.stat().st_mode & 0o777 == 0o700


async def test_an_archive_s_documents_are_bounded(tmp_path: Path) -> None:
    """CVE-2023-25153: an index or a manifest of hundreds of megabytes is not read into memory."""
    path = tmp_path / "big.tar"
    size = 300_000_000
    with path.open("wb") as file:
        for name in ("oci-layout", "index.json", "manifest.json"):
            info = tarfile.TarInfo(name)
            info.size = size
            file.write(info.tobuf())
            file.seek(-(-size // 512) * 512, os.SEEK_CUR)  # a hole, which costs nothing
        file.write(bytes(1024))
    async with image_store(tmp_path / "root") as store:
        with pytest.raises(WherryError, match=r"index\.json|manifest\.json|oci-layout"):
            await store.load(str(path))
        peak = int(next(line for line in Path("/proc/self/status").read_text().splitlines() if "VmHWM" in line).split()[1])
        assert peak < 600_000  # KiB; the three documents have nearly a gigabyte
        assert store.list() == []
