"""Lists of CPUs and memory nodes: what is one, and what is in it; none takes long, however big its numbers are."""

from __future__ import annotations

import time

import pytest

from runtime.spec.numbers import LENGTH_LIMIT, LIMIT, bits, is_number_list, numbers


@pytest.mark.parametrize(
    ("text", "good"),
    [
        ("", True),
        ("0", True),
        ("0-3,7", True),
        ("8191", True),
        ("3-1", False),
        ("a", False),
        ("1,", False),
        ("-1", False),
        ("1-", False),
        ("0-8192", False),
        ("0-999999", False),
        ("9" * 5000, False),
        ("\u0663", False),
        ("0," * LENGTH_LIMIT + "0", False),
    ],
)
def test_lists(text: str, good: bool) -> None:
    assert is_number_list(text) is good


@pytest.mark.parametrize(
    ("text", "found"), [("", set()), ("0", {0}), ("0-3,7", {0, 1, 2, 3, 7}), ("1, 3-4", {1, 3, 4}), ("2,2-2", {2})]
)
def test_what_is_in_them(text: str, found: set[int]) -> None:
    assert numbers(text) == found
    assert bits(text) == sum(1 << number for number in found)


def test_the_longest_list_takes_no_time() -> None:
    part = f"0-{LIMIT - 1},"
    text = (part * (LENGTH_LIMIT // len(part)))[:-1]
    before = time.process_time()
    assert is_number_list(text)
    assert len(numbers(text)) == LIMIT
    assert time.process_time() - before < 1
