import asyncio
import subprocess
import sys
import threading

import pytest

from shim.errors import DeadlineExceeded, Unavailable
from shim.pod import workers as module
from shim.pod.workers import Workers


@pytest.fixture
def gate():
    """Give an event that hung calls wait for; it is set in the end."""
    event = threading.Event()
    yield event
    event.set()


@pytest.fixture
def workers():
    made = Workers(2)
    yield made
    made.close()


def fail():
    raise ValueError("no")


async def test_results_and_errors_come_back(workers):
    assert await workers.run(lambda: 7, 5, "seven") == 7
    with pytest.raises(ValueError, match="no"):
        await workers.run(fail, 5, "failing")
    assert await asyncio.gather(*(workers.run(lambda n=n: n, 5, "many") for n in range(50))) == list(range(50))


async def test_hung_calls_do_not_eat_the_threads(workers, gate):
    for _ in range(10):
        with pytest.raises(DeadlineExceeded, match=r"the path took longer than 0\.01 s"):
            await workers.run(gate.wait, 0.01, "the path")
    assert await workers.run(lambda: "served", 5, "another") == "served"


async def test_cancelled_calls_do_not_either(workers, gate):
    for _ in range(10):
        begun = threading.Event()
        call = asyncio.create_task(workers.run(lambda b=begun: (b.set(), gate.wait()), 60, "the path"))
        while not begun.is_set():
            await asyncio.sleep(0.001)
        call.cancel()
        with pytest.raises(asyncio.CancelledError):
            await call
    assert await workers.run(lambda: "served", 5, "another") == "served"


async def test_too_many_hung_calls_are_refused_until_they_come_back(workers, gate, monkeypatch):
    monkeypatch.setattr(module, "MOST_LOST", 3)
    for _ in range(3):
        with pytest.raises(DeadlineExceeded):
            await workers.run(gate.wait, 0.01, "the path")
    with pytest.raises(Unavailable, match="3 earlier looks"):
        await workers.run(lambda: 1, 5, "another")
    gate.set()
    async with asyncio.timeout(5):
        while workers._lost:
            await asyncio.sleep(0.001)
    assert await workers.run(lambda: 1, 5, "another") == 1


async def test_what_waits_in_the_queue_may_be_left(workers, gate):
    hung = [asyncio.create_task(workers.run(gate.wait, 60, "hung")) for _ in range(2)]
    await asyncio.sleep(0.01)
    done = []
    with pytest.raises(DeadlineExceeded):
        await workers.run(lambda: done.append(1), 0.01, "queued")
    gate.set()
    await asyncio.gather(*hung)
    assert await workers.run(lambda: 3, 5, "next") == 3
    assert done == []


def test_a_hung_call_does_not_hold_up_the_exit():
    program = """
import asyncio, threading
from shim.errors import DeadlineExceeded
from shim.pod.workers import Workers

async def main():
    try:
        await Workers().run(threading.Event().wait, 0.05, "the path")
    except DeadlineExceeded:
        print("left")

asyncio.run(main())
"""
    finished = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=20, check=False)
    assert (finished.returncode, finished.stdout) == (0, "left\n")
