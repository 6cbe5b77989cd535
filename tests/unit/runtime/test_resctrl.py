"""resctrl groups on a folder that looks like one: few machines have the hardware."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from runtime.apply import resctrl
from runtime.errors import CgroupFault, SpecFault
from runtime.spec.model import IntelRdt
from runtime.spec.parse import parse_spec
from runtime.spec.validate import validate

from .spec.test_parse import with_change

if TYPE_CHECKING:
    from pathlib import Path


def group(root: Path, name: str) -> Path:
    """Make a group as the kernel would, with its files."""
    folder = root / name
    (folder / "mon_groups").mkdir(parents=True)
    (folder / "schemata").touch()
    (folder / "tasks").touch()
    return folder


def test_a_group_that_exists_is_joined_and_stays(tmp_path: Path) -> None:
    folder = group(tmp_path, "gold")
    wanted = IntelRdt(clos_id="gold", l3_cache_schema="L3:0=f", mem_bw_schema="MB:0=70", schemata=("L2:0=3",))
    joined = resctrl.join(wanted, "box", 77, str(tmp_path))
    assert joined == (str(folder),)
    assert (folder / "schemata").read_text() == "L3:0=f\nMB:0=70\nL2:0=3\n"
    assert (folder / "tasks").read_text() == "77"
    resctrl.leave(joined[1:])
    assert folder.is_dir()


def test_the_root_group_may_be_named(tmp_path: Path) -> None:
    group(tmp_path, ".")
    assert resctrl.join(IntelRdt(clos_id="/"), "box", 77, str(tmp_path)) == (str(tmp_path),)


def test_a_group_without_a_schema_must_exist(tmp_path: Path) -> None:
    with pytest.raises(CgroupFault, match="does not exist"):
        resctrl.join(IntelRdt(clos_id="gold"), "box", 77, str(tmp_path))


def test_nothing_is_left_of_a_group_that_cannot_be_joined(tmp_path: Path) -> None:
    with pytest.raises(CgroupFault, match="schemata"):
        resctrl.join(IntelRdt(l3_cache_schema="L3:0=f"), "box", 77, str(tmp_path))
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("name", [".", "..", "a/b", "../up"])
def test_names_that_are_no_group(name: str) -> None:
    with pytest.raises(SpecFault, match="closID"):
        validate(parse_spec(with_change("/linux/intelRdt", {"closID": name})))
