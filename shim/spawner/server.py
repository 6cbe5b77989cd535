"""The spawner: forks jobs from a process that has everything imported and no thread, and has the nursery fork monitors.

    wherryd → spawner                                        spawner → wherryd
    ─────────────────────────────────────────────────────────────────────────────────────────────────────────────
    {seq, op: "monitor.start", pod_id, state_dir}            {seq, ok: {pid}}: its socket can be connected to
    {seq, op: "job", job, kind, params, timeout} + fds       {seq, ok: result} or {seq, error}, when the job has ended
                                                             {event: "progress", job, data}
    {seq: 0, op: "job.kill", job}                            none; the job's own reply comes when all of it is dead

When wherryd goes away, running jobs are killed and the spawner ends; monitors stay. When the spawner goes away its jobs die
with it (PR_SET_PDEATHSIG), and wherryd sees the end of the link. The nursery dies with the spawner, and the spawner ends when
the nursery has died.
"""

from __future__ import annotations

import contextlib
import gc
import os
import signal
import sys

from runtime.kernel.heap import trim, unmap_code
from runtime.kernel.prctl import set_child_subreaper, set_dumpable
from shim import process, wire
from shim.errors import DeadlineExceeded, Internal, InvalidArgument, Unimplemented, WherryError
from shim.late import import_late
from shim.link import Link
from shim.monitor.files import SOCKET
from shim.monitor.tree import kill_members, kill_tree
from shim.reactor import Reactor
from shim.spawner.jobs import KINDS, RARE, function_of, run_job
from shim.spawner.nursery import start_nursery
from shim.spawner.warmth import fill_holes, import_packages

TYPE_CHECKING = False
if TYPE_CHECKING:
    import socket
    from typing import Any, NoReturn

    from shim.reactor import Timer

STUCK_SECONDS = 10.0
"""How long a killed process is waited for; a longer one is stuck in the kernel (state D) and is named."""

IDLE_SECONDS = 5.0
"""How long a process whose kind allows it waits for another job."""
IDLE_WORKERS = 2
"""How many of them wait at most: as many as do CNI side by side on a small node."""

WARM = ("cni",)
"""Packages of which everything is imported before the first job: they import much where they use it."""
_COLD = ("cni.main",)
"""Parts of them that only commands need."""


class Worker:
    """A process that does jobs: one, or one after the other when their kind allows it."""

    def __init__(self, pid: int, kind: str) -> None:
        self.pid = pid
        self.kind = kind
        self.number = -1
        """The job it does; -1 while it waits for one."""
        self.link: Link
        self.expiry: Timer | None = None


class Job:
    """A running job."""

    def __init__(self, pid: int, seq: int) -> None:
        self.pid = pid
        self.seq = seq
        self.left = {pid}
        self.reply: dict[str, Any] | None = None
        self.error: WherryError | None = None
        self.deadline: Timer | None = None
        self.stuck: Timer | None = None


class Spawner:
    """The loop, the links to wherryd and to the nursery, and the jobs."""

    def __init__(self, sock: socket.socket, nursery: socket.socket, kinds: dict[str, str]) -> None:
        self._kinds = kinds
        self._reactor = Reactor()
        self._reactor.children.on_reap = self._reaped
        self._link = Link(self._reactor, sock, self._received)
        self._link.on_close = self._abandoned
        self._nursery = Link(self._reactor, nursery, lambda reply, _fds: self._link.send(reply))
        self._nursery.on_close = self._reactor.stop
        self._jobs: dict[int, Job] = {}
        self._idle: list[Worker] = []
        self._alive: set[int] = set()

    def run(self) -> None:
        """Serve until wherryd goes away and the last job has ended, or until the nursery has died."""
        self._reactor.run()
        self._nursery.close()

    def _received(self, message: dict[str, Any], fds: list[int]) -> None:
        try:
            self._act(message, fds)
        except Exception as error:  # noqa: BLE001 - it crosses as a value
            self._link.send({"seq": message.get("seq"), "error": wire.value_of(error)})
        finally:
            for fd in fds:
                os.close(fd)

    def _act(self, message: dict[str, Any], fds: list[int]) -> None:
        op = message.get("op")
        if op == "monitor.start":
            self._start_monitor(message)
        elif op == "job":
            self._start_job(message, fds)
        elif op == "job.kill":
            job = self._jobs.get(message.get("job", -1))
            if job is not None:
                self._kill(job, Internal("the job was cancelled and killed"))
        else:
            raise Unimplemented(f"the spawner has no operation {op!r}")

    def _start_monitor(self, message: dict[str, Any]) -> None:
        """Bind the monitor's socket and have it forked; the nursery's reply is ours."""
        pod_id, state_dir = message.get("pod_id"), message.get("state_dir")
        if not isinstance(pod_id, str) or not isinstance(state_dir, str) or not os.path.isabs(state_dir):
            raise InvalidArgument("monitor.start needs a pod_id and an absolute state_dir")
        os.makedirs(state_dir, 0o700, exist_ok=True)
        listener = wire.listen(os.path.join(state_dir, SOCKET))
        self._nursery.send({"seq": message.get("seq"), "pod_id": pod_id, "state_dir": state_dir}, [listener.detach()])

    def _start_job(self, message: dict[str, Any], fds: list[int]) -> None:
        number, seq, timeout = message.get("job"), message.get("seq"), message.get("timeout")
        if type(number) is not int or number in self._jobs or type(seq) is not int:
            raise InvalidArgument("job needs a number of its own")
        worker = self._take_idle(message, fds) or self._fork_worker(message, fds)
        worker.number = number
        job = self._jobs[number] = Job(worker.pid, seq)
        if isinstance(timeout, int | float):
            text = f"{message.get('kind')} did not end within {timeout:g} s and was killed"
            job.deadline = self._reactor.at(timeout, lambda: self._kill(job, DeadlineExceeded(text)))

    def _fork_worker(self, message: dict[str, Any], fds: list[int]) -> Worker:
        ours, theirs = wire.pair()
        with theirs:
            pid = process.fork()
            if pid == 0:
                run_job(message, fds, theirs.fileno(), self._kinds)
        worker = Worker(pid, str(message.get("kind")))
        self._alive.add(pid)
        worker.link = Link(self._reactor, ours, lambda said, extra: self._said(worker, said, extra))
        ended = self._reactor.children.expect(pid)
        ended.on_done(lambda: self._worker_ended(worker, ended.result()))
        return worker

    def _take_idle(self, message: dict[str, Any], fds: list[int]) -> Worker | None:
        """Give the job to a process that waits for one; None when there is none."""
        worker = next((worker for worker in reversed(self._idle) if worker.kind == message.get("kind") and not fds), None)
        if worker is None:
            return None
        self._idle.remove(worker)
        assert worker.expiry is not None
        worker.expiry.cancel()
        worker.link.send(message)
        return worker if worker.link.open else None  # it has died meanwhile; its end is told by its pid

    def _dismiss(self, worker: Worker) -> None:
        """End a process that waits; a later fork may hold a copy of its link, so the end of that alone would not tell it."""
        if worker in self._idle:
            self._idle.remove(worker)
            if worker.pid in self._alive:
                os.kill(worker.pid, signal.SIGKILL)
        worker.link.close()

    def _keep(self, worker: Worker) -> None:
        worker.number = -1
        self._idle.append(worker)
        worker.expiry = self._reactor.at(IDLE_SECONDS, lambda: self._dismiss(worker))
        if len(self._idle) > IDLE_WORKERS:
            self._dismiss(self._idle[0])

    def _said(self, worker: Worker, message: dict[str, Any], fds: list[int]) -> None:
        for fd in fds:
            os.close(fd)
        job = self._jobs.get(worker.number)
        if job is None:
            return
        if "progress" in message:
            self._link.send({"event": "progress", "job": worker.number, "data": message["progress"]})
        elif "ok" in message or "error" in message:
            again = message.pop("again", False)
            job.reply = message
            if again and job.error is None:
                job.left.clear()
                self._keep(worker)
                self._finish_ended()

    def _kill(self, job: Job, why: WherryError) -> None:
        """Kill the job with all its descendants; its reply is sent when they are dead."""
        if job.error is not None or job.pid not in job.left:
            return
        job.error = why
        job.left |= kill_tree(job.pid)
        job.stuck = self._reactor.at(STUCK_SECONDS, lambda: self._stuck(job))

    def _stuck(self, job: Job) -> None:
        job.error = Internal(f"{job.error or 'the job ended'}; processes {sorted(job.left)} are stuck in the kernel")
        self._alive -= job.left
        job.left.clear()
        self._finish_ended()

    def _worker_ended(self, worker: Worker, status: int) -> None:
        self._alive.discard(worker.pid)
        worker.link.drain()
        self._dismiss(worker)
        job = self._jobs.get(worker.number)
        if job is None:
            self._finish_ended()
            return
        job.left |= kill_members(job.pid)  # children that a finished job forgot
        if job.left - {job.pid} and job.stuck is None:
            job.stuck = self._reactor.at(STUCK_SECONDS, lambda: self._stuck(job))
        if job.reply is None and job.error is None:
            job.error = Internal(f"the job ended with status {status} and without a result")

    def _reaped(self, pid: int, _status: int) -> None:
        for job in self._jobs.values():
            job.left.discard(pid)
        self._finish_ended()

    def _finish_ended(self) -> None:
        for number, job in list(self._jobs.items()):
            if job.left:
                continue
            del self._jobs[number]
            for timer in (job.deadline, job.stuck):
                if timer is not None:
                    timer.cancel()
            reply = {"error": wire.value_of(job.error)} if job.error is not None else job.reply or {}
            self._link.send({"seq": job.seq, **reply})
        if not self._link.open and not self._jobs and not self._alive:
            self._reactor.stop()

    def _abandoned(self) -> None:
        """Wherryd is gone: end what only it wanted."""
        for worker in list(self._idle):
            self._dismiss(worker)
        for job in list(self._jobs.values()):
            self._kill(job, Internal("wherryd is gone"))
        self._finish_ended()


def warm(kinds: dict[str, str]) -> None:
    """Import everything that a job will need, and keep the collector from touching (and so copying) those pages."""
    import_late("inspect")
    import_packages(WARM, _COLD)
    for kind in kinds.keys() - RARE:
        try:
            function_of(kind, kinds)
        except ImportError as error:
            sys.stderr.write(f"wherry-spawner: job {kind} is not warm: {error}\n")
    fill_holes()
    trim()
    unmap_code()
    gc.freeze()


def run_spawner(sock: socket.socket, *, kinds: dict[str, str] | None = None) -> NoReturn:
    """Be the spawner, in a fresh child of wherryd's bootstrap; never returns."""
    status = 1
    try:
        process.become_child("wherry-spawner", [sock.fileno()])
        set_dumpable(dumpable=False)
        set_child_subreaper()
        kinds = KINDS if kinds is None else kinds
        nursery, link = start_nursery([sock])
        warm(kinds)
        Spawner(sock, link, kinds).run()
        with contextlib.suppress(ChildProcessError):
            os.waitpid(nursery, 0)  # it may be in the middle of its rehearsal, and cleans up after it
        status = 0
    finally:
        os._exit(status)
