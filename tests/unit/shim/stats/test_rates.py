"""Rates out of samples."""

from __future__ import annotations

from shim.stats.rates import SECOND, Rates


def test_the_first_sample_counts_from_birth() -> None:
    assert Rates().note("a", 10 * SECOND, SECOND, 8 * SECOND) == SECOND // 2
    assert Rates().note("a", 8 * SECOND, SECOND, 8 * SECOND) is None


def test_later_samples_count_from_an_earlier_one() -> None:
    rates = Rates()
    rates.note("a", 10 * SECOND, 0, 0)
    assert rates.note("a", 12 * SECOND, SECOND, 0) == SECOND // 2
    assert rates.note("a", 14 * SECOND, 3 * SECOND, 0) == SECOND


def test_asking_often_does_not_shorten_the_span() -> None:
    rates = Rates()
    rates.note("a", 10 * SECOND, 0, 0)
    rates.note("a", 20 * SECOND, 10 * SECOND, 0)
    for step in range(1, 10):
        rate = rates.note("a", 20 * SECOND + step, 10 * SECOND, 0)
        assert rate is not None
        assert abs(rate - SECOND) < 10


def test_a_counter_that_began_anew_is_no_negative_rate() -> None:
    rates = Rates()
    rates.note("a", 10 * SECOND, 5 * SECOND, 0)
    assert rates.note("a", 12 * SECOND, SECOND, 0) == 0


def test_the_unknown_are_forgotten() -> None:
    rates = Rates()
    rates.note("a", 10 * SECOND, SECOND, 8 * SECOND)
    rates.keep({"b"})
    assert rates.note("a", 12 * SECOND, SECOND, 8 * SECOND) == SECOND // 4
