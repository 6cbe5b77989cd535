"""The root as an overlay that only the container has mounted: many layers, one, read-only; nothing is left on the host."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import pytest

from runtime import api
from runtime.errors import RuntimeFault
from runtime.kernel.fork import fork
from runtime.kernel.prctl import set_child_subreaper
from runtime.spec.parse import parse_spec
from tests.system.oci_node import default_config

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

pytestmark = pytest.mark.system

MANY = 150


class Box:
    """Containers made through runtime.api, in a process of their own that adopts what they leave."""

    def __init__(self, folder: Path, rootfs: Path) -> None:
        self.folder = folder
        self.base = rootfs
        self.bundle = folder / "bundle"
        (self.bundle / "rootfs").mkdir(parents=True)
        for name in ("upper", "work"):
            (folder / name).mkdir()

    def run(self, rootfs: api.RootfsMount, *args: str) -> tuple[int, str]:
        """Run a program to its end; give its exit code and output."""
        reader, writer = os.pipe()
        pid = fork()
        if pid == 0:
            os.close(reader)
            try:
                os._exit(self._run(rootfs, args, writer))
            except RuntimeFault as fault:
                os.write(writer, str(fault).encode())
            finally:
                os._exit(99)
        os.close(writer)
        with open(reader, "rb") as stream:
            text = stream.read().decode()
        return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]), text

    def _run(self, rootfs: api.RootfsMount, args: tuple[str, ...], writer: int) -> int:
        set_child_subreaper()
        null = os.open("/dev/null", os.O_RDWR)
        config = default_config(*args)
        config["root"]["readonly"] = False
        state = api.create(
            api.CreateRequest(
                container_id="box",
                state_root=str(self.folder / "state"),
                bundle=str(self.bundle),
                spec=parse_spec(config),
                rootfs=rootfs,
                stdio=(null, writer, writer),
            )
        )
        with open("/proc/self/mountinfo", encoding="utf-8") as file:
            mounted = file.read()
        assert str(self.folder) not in mounted, "the host must see nothing of the overlay"
        try:
            api.start(str(self.folder / "state"), "box")
            return os.waitstatus_to_exitcode(os.waitpid(state.pid, 0)[1])
        finally:
            api.delete(str(self.folder / "state"), "box", force=True)


@pytest.fixture
def box(short_dir: Path, busybox_rootfs: Path) -> Iterator[Box]:
    yield Box(short_dir, busybox_rootfs)
    assert not (short_dir / "state/box").exists()


def test_a_writable_overlay(box: Box) -> None:
    rootfs = api.RootfsMount(lower=(str(box.base),), upper=str(box.folder / "upper"), work=str(box.folder / "work"))
    code, text = box.run(rootfs, "sh", "-ec", "echo made > /made; cat /made; rm /bin/true")
    assert (code, text) == (0, "made\n")
    assert (box.folder / "upper/made").read_text() == "made\n"
    assert (box.base / "bin/sh").exists()
    assert not (box.base / "made").exists()


def test_one_read_only_layer(box: Box) -> None:
    code, text = box.run(api.RootfsMount(lower=(str(box.base),)), "sh", "-c", "touch /x 2>&1; echo done")
    assert code == 0, text
    assert "Read-only" in text


def test_many_layers_with_long_names(box: Box) -> None:
    layers = []
    for number in range(MANY):
        layer = box.folder / f"{number:03d}-{'x' * 180}"
        layer.mkdir()
        (layer / f"file{number}").write_text(str(number))
        (layer / "top").write_text(str(number))
        layers.append(str(layer))
    lower = (*reversed(layers), str(box.base))
    rootfs = api.RootfsMount(lower=lower, upper=str(box.folder / "upper"), work=str(box.folder / "work"))
    code, text = box.run(rootfs, "sh", "-c", "cat /top; echo; ls / | grep -c ^file")
    assert (code, text) == (0, f"{MANY - 1}\n{MANY}\n")


def test_a_missing_layer_is_named(box: Box) -> None:
    rootfs = api.RootfsMount(lower=(str(box.folder / "none"), str(box.base)))
    code, text = box.run(rootfs, "true")
    assert code == 99
    assert str(box.folder / "none") in text
