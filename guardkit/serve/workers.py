"""Several servers at one port, each a process of its own: they share nothing else.

The kernel gives each connection to one of them (SO_REUSEPORT). Each is also to be found at a port
of its own, the next ones after the shared one, where Prometheus can ask it for its own metrics.
"""

from __future__ import annotations

import multiprocessing
import os
import signal
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from multiprocessing.connection import Connection, wait
from multiprocessing.context import SpawnProcess
from types import FrameType

from guardkit.errors import GuardkitError, RunError
from guardkit.serve.log import log_to_stderr, said_of, server_log
from guardkit.serve.run import Started, bound, serve
from guardkit.serve.settings import Settings

#: A worker that died is started again, no sooner than so long after the last time.
RESTART_S = 1.0


def serve_together(settings: Settings, ready: Callable[[Started], None]) -> None:
    """Serve by ``settings.workers`` processes until SIGTERM or SIGINT; SIGHUP makes each read the
    policy again. One that dies is started again.

    ``ready`` is told once all are. Raises RunError where one cannot be started, which has then said
    why.
    """
    log_to_stderr()
    cores = os.cpu_count() or 1
    os.environ.setdefault("OMP_NUM_THREADS", str(max(1, cores // settings.workers)))
    with bound(settings, shared=True) as held:  # nobody else takes the port; it does not listen
        port = held.getsockname()[1]
        team = _Team(replace(settings, port=port), any_port=settings.port == 0)
        try:
            ready(team.start())
            team.watch()
        finally:
            team.end()


class _Team:
    def __init__(self, settings: Settings, *, any_port: bool) -> None:
        self._settings, self._any_port = settings, any_port
        self._workers: dict[int, _Worker] = {}
        self._ending = False
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, self._end)
        signal.signal(signal.SIGHUP, self._pass_on)

    def start(self) -> Started:
        """Start all of them and return what they serve. Raises RunError."""
        for index in range(self._settings.workers):
            self._workers[index] = self._worker(index)
        started = [worker.started() for worker in self._workers.values()]
        if self._ending or None in started:
            raise RunError("a worker could not be started; it has said why")
        first = started[0]
        assert first is not None
        return replace(first, ports=tuple(s.ports[-1] for s in started if s is not None))

    def watch(self) -> None:
        """Start again what dies, until the end is asked for."""
        last: dict[int, float] = {}
        while not self._ending:
            wait([worker.process.sentinel for worker in self._workers.values()], timeout=0.2)
            for index, worker in list(self._workers.items()):
                too_soon = time.monotonic() - last.get(index, 0.0) < RESTART_S
                if self._ending or worker.process.is_alive() or too_soon:
                    continue
                server_log.error("worker %d ended with %s", index, worker.process.exitcode)
                last[index] = time.monotonic()
                self._workers[index] = self._worker(index)

    def _worker(self, index: int) -> _Worker:
        own_port = 0 if self._any_port else self._settings.port + 1 + index
        return _Worker(self._settings, index, own_port)

    def end(self) -> None:
        """Let each finish what it has begun."""
        for worker in self._workers.values():
            worker.process.terminate()
        for worker in self._workers.values():
            worker.process.join(2 * self._settings.drain_s + 10)
            worker.process.kill()
            worker.process.join()

    def _end(self, _number: int, _frame: FrameType | None) -> None:
        self._ending = True

    def _pass_on(self, number: int, _frame: FrameType | None) -> None:
        for worker in self._workers.values():
            if worker.ready and worker.process.pid is not None:
                with suppress(ProcessLookupError):
                    os.kill(worker.process.pid, number)


class _Worker:
    """One process, and the pipe that tells whether it is ready, and it whether we are there."""

    def __init__(self, settings: Settings, index: int, own_port: int) -> None:
        context = multiprocessing.get_context("spawn")
        self._pipe, theirs = context.Pipe()
        self.process: SpawnProcess = context.Process(
            target=_serve, args=(settings, index, own_port, theirs), name=f"guardkit-{index}"
        )
        self.process.start()
        theirs.close()
        self._started: Started | None = None

    @property
    def ready(self) -> bool:
        """Whether it takes requests, and signals."""
        return self._started is not None or (self._pipe.poll() and self.started() is not None)

    def started(self) -> Started | None:
        """Wait until it is ready; None where it ended instead."""
        with suppress(EOFError, OSError):
            self._started = self._started or self._pipe.recv()
        return self._started


def _serve(settings: Settings, index: int, own_port: int, pipe: Connection) -> None:
    os.setpgid(0, 0)  # a terminal's Ctrl-C is for the parent, which tells this one

    def ready(started: Started) -> None:
        pipe.send(started)
        threading.Thread(target=_end_with_parent, args=(pipe,), daemon=True).start()

    try:
        serve(settings, ready, own_port=own_port)
    except GuardkitError as error:
        server_log.error("worker %d: %s", index, said_of(error))
        raise SystemExit(error.exit_code) from None


def _end_with_parent(pipe: Connection) -> None:
    with suppress(EOFError, OSError):
        pipe.recv()  # nothing ever comes: it ends with the process at the other end
    os.kill(os.getpid(), signal.SIGTERM)
