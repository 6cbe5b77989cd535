"""Sources of checkpoints: a tar or a folder, read with suspicion."""

from __future__ import annotations

import io
import json
import os
import tarfile
from typing import TYPE_CHECKING, Any

import pytest

from shim.container.checkpoint_job import run
from shim.container.restore import checkpoint_layer
from shim.errors import FailedPrecondition, NotFound
from shim.image.oci import OciImageConfig
from shim.image.record import ImageRecord

if TYPE_CHECKING:
    from pathlib import Path

FILES = {
    "config.dump": json.dumps({"rootfsImageName": "busybox"}),
    "spec.dump": "{}",
    "checkpoint/inventory.img": "i",
    "checkpoint/pages-1.img": "p",
    "rootfs-diff.tar": "",
    "strange.file": "not taken",
}


def job(**params: Any) -> dict[str, Any]:
    return run(params, [], lambda _: None)


def archive(path: Path, files: dict[str, str], mode: str = "w") -> str:
    with tarfile.open(path, mode) as tar:  # type: ignore[call-overload]  # the mode is a parameter
        for name, text in files.items():
            info = tarfile.TarInfo(name)
            info.size = len(text)
            tar.addfile(info, io.BytesIO(text.encode()))
    return str(path)


def folder(path: Path, files: dict[str, str]) -> str:
    for name, text in files.items():
        (path / name).parent.mkdir(parents=True, exist_ok=True)
        (path / name).write_text(text)
    return str(path)


@pytest.mark.parametrize("kind", ["tar", "tar.gz", "dots", "folder"])
def test_a_checkpoint_is_looked_at_and_imported(tmp_path: Path, kind: str) -> None:
    if kind == "folder":
        source = folder(tmp_path / "s", FILES)
    elif kind == "dots":
        source = archive(tmp_path / "s", {f"./{name}": text for name, text in FILES.items()})
    else:
        source = archive(tmp_path / "s", FILES, "w:gz" if kind == "tar.gz" else "w")
    assert job(action="look", source=source)["config"] == {"rootfsImageName": "busybox"}
    target = tmp_path / "t"
    assert job(action="import", source=source, folder=str(target)) == {"diff": True}
    found = {str(path.relative_to(target)) for path in target.rglob("*") if path.is_file()}
    assert found == set(FILES) - {"strange.file"}
    assert os.stat(target / "checkpoint/pages-1.img").st_mode & 0o777 == 0o600


def test_what_is_no_plain_file_in_its_place_is_passed_over(tmp_path: Path) -> None:
    path = archive(tmp_path / "s", FILES | {"../evil": "x", "/etc/evil": "x", "checkpoint/../evil": "x", "checkpoint/a/b": "x"})
    with tarfile.open(path, "a") as tar:
        for kind, name in ((tarfile.SYMTYPE, "deleted.files"), (tarfile.FIFOTYPE, "checkpoint/fifo")):
            info = tarfile.TarInfo(name)
            info.type, info.linkname = kind, "/etc/passwd"
            tar.addfile(info)
    job(action="import", source=path, folder=str(tmp_path / "t"))
    assert not [one for one in tmp_path.rglob("*") if "evil" in one.name or one.is_symlink() or one.name in ("b", "fifo")]


def test_links_in_a_folder_are_not_followed(tmp_path: Path) -> None:
    source = folder(tmp_path / "s", FILES)
    os.unlink(tmp_path / "s/config.dump")
    os.symlink("/etc/passwd", tmp_path / "s/config.dump")
    with pytest.raises(FailedPrecondition, match=r"has no config\.dump"):
        job(action="look", source=source)


@pytest.mark.parametrize(
    ("files", "message"),
    [
        ({}, r"has no config\.dump"),
        ({"config.dump": "{}"}, r"has no checkpoint/inventory\.img"),
        ({"config.dump": "[]", "checkpoint/inventory.img": ""}, "is not a JSON object"),
        ({"config.dump": "[" * 100000, "checkpoint/inventory.img": ""}, "is not a JSON object"),
        ({"config.dump": " " * (5 << 20), "checkpoint/inventory.img": ""}, "is not a JSON object"),
    ],
)
def test_what_is_no_checkpoint_is_named(tmp_path: Path, files: dict[str, str], message: str) -> None:
    with pytest.raises(FailedPrecondition, match=message):
        job(action="look", source=archive(tmp_path / "s", files))


def test_a_file_that_is_no_tar_and_one_that_is_not_there(tmp_path: Path) -> None:
    (tmp_path / "s").write_text("hello")
    with pytest.raises(FailedPrecondition):
        job(action="look", source=str(tmp_path / "s"))
    with pytest.raises(NotFound):
        job(action="look", source=str(tmp_path / "absent"))


def test_packing_replaces_the_location_or_leaves_it(tmp_path: Path) -> None:
    source = folder(tmp_path / "s", {"config.dump": "{}", "checkpoint/a": "x"})
    (tmp_path / "log").write_text("line\n")
    location = tmp_path / "out.tar"
    location.write_text("old")
    job(action="pack", folder=source, location=str(location), log=str(tmp_path / "log"), log_directory=str(tmp_path))
    with tarfile.open(location) as tar:
        assert set(tar.getnames()) == {"config.dump", "checkpoint", "checkpoint/a", "container.log"}
    with pytest.raises(OSError, match="No such file"):
        job(action="pack", folder=str(tmp_path / "absent"), location=str(location), log="")
    assert sorted(os.listdir(tmp_path)) == ["log", "out.tar", "s"]


def test_only_an_image_that_runs_nothing_can_be_a_checkpoint(tmp_path: Path) -> None:
    layer = folder(tmp_path / "l", FILES)

    def found(config: OciImageConfig, *layers: str) -> str:
        record = ImageRecord(
            id="sha256:1", repo_tags=(), repo_digests=(), size=0, config=config, pinned=False, created=0, chain_id=""
        )
        return checkpoint_layer(record, layers)

    assert found(OciImageConfig(), layer) == layer
    assert found(OciImageConfig(cmd=("sh",)), layer) == ""
    assert found(OciImageConfig(entrypoint=("sh",)), layer) == ""
    assert found(OciImageConfig(), layer, layer) == ""
    assert found(OciImageConfig(), str(tmp_path)) == ""
