"""Tokens: unguessable, used once, gone after their time, bounded in number."""

from __future__ import annotations

import pytest

from shim.errors import ResourceExhausted
from shim.streaming.tokens import CAPACITY, Tokens


class Clock:
    """A clock that is set by hand."""

    now = 0.0

    def __call__(self) -> float:
        return self.now


def test_a_token_is_good_once() -> None:
    tokens: Tokens[str] = Tokens(60)
    token = tokens.issue("value")
    assert len(token) >= 43
    assert tokens.redeem(token) == "value"
    assert tokens.redeem(token) is None
    assert tokens.redeem("") is None


def test_a_token_expires() -> None:
    clock = Clock()
    tokens: Tokens[str] = Tokens(60, clock=clock)
    early, late = tokens.issue("early"), ""
    clock.now = 30
    late = tokens.issue("late")
    clock.now = 60
    assert len(tokens) == 1
    assert tokens.redeem(early) is None
    assert tokens.redeem(late) == "late"


def test_an_expired_token_is_refused_also_when_nobody_cleaned_up() -> None:
    clock = Clock()
    tokens: Tokens[str] = Tokens(60, clock=clock)
    token = tokens.issue("value")
    clock.now = 61
    assert tokens.redeem(token) is None


def test_their_number_is_bounded_until_they_expire() -> None:
    clock = Clock()
    tokens: Tokens[int] = Tokens(60, clock=clock)
    assert len({tokens.issue(number) for number in range(CAPACITY)}) == CAPACITY
    with pytest.raises(ResourceExhausted):
        tokens.issue(0)
    clock.now = 61
    assert tokens.issue(0)
