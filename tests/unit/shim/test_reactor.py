"""The loop tells a handler of its own descriptor only."""

from __future__ import annotations

import os

from shim.reactor import READ, Reactor


def test_a_number_used_again_in_one_turn_is_another_descriptor(reactor: Reactor) -> None:
    """Whichever of two ready pipes comes first puts a quiet one in the other's place, under its number."""
    pipes = [os.pipe(), os.pipe()]
    quiet = os.pipe()
    seen: list[str] = []

    def replace(own: int, other: int) -> None:
        seen.append("first")
        reactor.unwatch(own)
        reactor.unwatch(other)
        os.dup2(quiet[0], other)
        reactor.watch(other, READ, lambda _events: seen.append("stale"))

    first, second = pipes[0][0], pipes[1][0]
    reactor.watch(first, READ, lambda _events: replace(first, second))
    reactor.watch(second, READ, lambda _events: replace(second, first))
    for _, writer in pipes:
        os.write(writer, b"x")
    reactor.turn(1)
    reactor.turn(0)
    assert seen == ["first"]
    os.write(quiet[1], b"x")
    reactor.turn(1)
    assert seen == ["first", "stale"]
    for fd in (*pipes[0], *pipes[1], *quiet):
        os.close(fd)


def test_a_deadline_in_centuries_is_waited_for_in_days(reactor: Reactor) -> None:
    """A caller's timeout is any 64-bit number; the kernel's wait is not."""
    seen: list[str] = []
    reactor.at(2.0**63, lambda: seen.append("late"))
    reader, writer = os.pipe()
    reactor.watch(reader, READ, lambda _events: seen.append("read"))
    os.write(writer, b"x")
    reactor.turn(None)
    reactor.unwatch(reader)
    os.close(reader)
    os.close(writer)
    assert seen == ["read"]
