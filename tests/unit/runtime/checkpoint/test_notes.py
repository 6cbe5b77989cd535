"""What a checkpoint notes for its restore survives the way, and damage is named."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from runtime.checkpoint import notes
from runtime.errors import SpecFault
from runtime.plan.checkpoint import External

if TYPE_CHECKING:
    from pathlib import Path

BELOW = External(point="/data/inner", under="/data", inside="/inner")


def test_notes_are_read_back(tmp_path: Path) -> None:
    notes.write(str(tmp_path), (BELOW, External(point="/proc/keys", source="/dev/null")), ("pipe:[7]", "", "file[1:2]"))
    assert notes.read_mounts(str(tmp_path)) == (BELOW,)
    assert notes.read_streams(str(tmp_path)) == ("pipe:[7]", "", "file[1:2]")


def test_images_of_another_runtime_have_none(tmp_path: Path) -> None:
    assert notes.read_mounts(str(tmp_path)) == ()
    assert notes.read_streams(str(tmp_path)) == ()


@pytest.mark.parametrize("text", ["", "{}", '[{"point": 1}]', "[1]", '[{"point"'])
def test_damage_is_named(tmp_path: Path, text: str) -> None:
    (tmp_path / notes.MOUNTS).write_text(text)
    with pytest.raises(SpecFault, match=notes.MOUNTS):
        notes.read_mounts(str(tmp_path))
