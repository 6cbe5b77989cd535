"""Threads: what is read of one's own, and what is remembered of those that are gone."""

import os

from shim.stats.tasks import SECOND, History, referenced, schedules, states, threads
from shim.stats.values import Schedule, Tasks


def test_of_this_process() -> None:
    tids = threads([os.getpid(), 1 << 30])
    assert os.getpid() in tids
    assert states(tids).running >= 1
    assert schedules(tids)[os.getpid()].run > 0
    assert referenced([os.getpid()]) > 1 << 20


def test_threads_that_have_ended_have_run_too() -> None:
    history = History()
    one, two = Schedule(run=5, waited=1, periods=2), Schedule(run=7, waited=2, periods=3)
    assert history.schedule("c", {1: one, 2: two}).run == 12
    assert history.schedule("c", {2: two}).run == 12
    assert history.schedule("c", {2: Schedule(run=1)}).run == 13  # another thread with the number of one that has ended
    assert history.schedule("c", {}) == Schedule(run=13, waited=3, periods=5)
    history.keep(())
    assert history.schedule("c", {1: one}) == one


def test_load_follows_slowly() -> None:
    history = History()
    assert history.load("c", 0, Tasks(running=2, uninterruptible=1)).average == 3000
    later = history.load("c", 10 * SECOND, Tasks())
    assert (later.average, later.blocked) == (1103, 367)
