from __future__ import annotations

import pytest

from cni import version
from cni.errors import VersionFault


def test_highest_common() -> None:
    assert version.highest(["0.4.0", "1.1.0", "1.0.0"]) == "1.1.0"
    assert version.highest(["0.4.0", "1.1.0", "1.0.0"], ["0.4.0", "1.0.0"]) == "1.0.0"
    assert version.highest(["1.0.0", "9.0.0"]) == "1.0.0"


@pytest.mark.parametrize(("offered", "spoken"), [(["9.0.0"], ["9.0.0"]), (["1.1.0"], ["1.0.0"]), ([], ["1.0.0"])])
def test_nothing_in_common_lists_both_sides(offered: list[str], spoken: list[str]) -> None:
    with pytest.raises(VersionFault, match="no common cni version") as fault:
        version.highest(offered, spoken)
    assert spoken[0] in fault.value.details


@pytest.mark.parametrize("text", ["", "1", "1.0", "1.0.0.0", "v1.0.0", "1.0.-1", "1.0.0x", "99999.0.0"])
def test_other_forms_are_refused(text: str) -> None:
    with pytest.raises(VersionFault):
        version.parse(text)


def test_order_is_by_number() -> None:
    assert version.at_least("0.10.0", "0.9.0")
    assert not version.at_least("0.4.0", "1.0.0")
