"""Levels of SELinux: two categories for each pod."""

from __future__ import annotations

import re
from itertools import count

import pytest

from shim.errors import ResourceExhausted
from shim.pod.levels import CATEGORIES, new_level


def test_a_level_has_two_categories_in_their_order() -> None:
    taken: set[str] = set()
    for _ in range(500):
        level = new_level(taken)
        found = re.fullmatch(r"s0:c(\d+),c(\d+)", level)
        assert found is not None
        assert 0 <= int(found[1]) < int(found[2]) < CATEGORIES
        assert level not in taken
        taken.add(level)


def test_no_level_is_given_twice() -> None:
    numbers = iter((5, 5, 2, 1, 1, 2, 3, 1))
    assert new_level({"s0:c1,c2"}, lambda _limit: next(numbers)) == "s0:c1,c3"


def test_a_node_without_a_free_one_says_so() -> None:
    turns = count()
    with pytest.raises(ResourceExhausted, match="no free pair"):
        new_level({"s0:c0,c1"}, lambda _limit: next(turns) % 2)
