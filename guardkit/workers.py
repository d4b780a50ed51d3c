"""Shards on several processes of this machine: each reads, judges and writes its own.

A worker that dies takes no shard with it: what it had is given to another, alone, so that a
shard which kills its worker every time is found out and no neighbour suffers for it.
"""

from __future__ import annotations

import multiprocessing
import os
import signal
from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from multiprocessing.connection import Connection, wait
from multiprocessing.process import BaseProcess
from typing import Any

from guardkit.engine import Attempts, Facts, Worker, run_here
from guardkit.errors import GuardkitError, RunError
from guardkit.shards import Shard

#: Shards a worker has at once: one under way, one being read.
_DEPTH = 2
_GRACE_S = 2.0
#: Libraries that start as many threads as there are cores, each by its own variable.
_THREADS = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "RAYON_NUM_THREADS")


@dataclass
class _Process:
    process: BaseProcess
    link: Connection
    shards: deque[Shard] = field(default_factory=deque)


def run_in_processes(
    shards: Iterator[Shard],
    worker: Worker,
    n: int,
    finished: Callable[[Shard, Facts], None],
) -> None:
    """Do the shards on ``n`` processes that share the machine's cores."""
    pool = _Pool(worker, n)
    try:
        pool.run(shards, finished)
    finally:
        pool.stop()


class _Pool:
    def __init__(self, worker: Worker, n: int) -> None:
        self._worker, self._n = worker, n
        self._attempts = Attempts()
        self._again: deque[Shard] = deque()
        self._deaths = 0  # of workers that had not finished anything
        self._workers = [self._start() for _ in range(n)]

    def run(self, shards: Iterator[Shard], finished: Callable[[Shard, Facts], None]) -> None:
        more = True
        while True:
            for worker in self._workers:
                more = self._feed(worker, shards, more)
            busy = [worker for worker in self._workers if worker.shards]
            if not busy and not self._again and not more:
                return
            ends = {worker.link: worker for worker in self._workers}
            for link in wait([*ends]):
                self._hear(ends[link], finished)  # type: ignore[index]

    def stop(self) -> None:
        for worker in self._workers:
            worker.process.terminate()
        for worker in self._workers:
            worker.process.join(_GRACE_S)
            if worker.process.is_alive():
                worker.process.kill()
                worker.process.join()
            worker.link.close()

    def _start(self) -> _Process:
        context = multiprocessing.get_context("spawn")
        ours, theirs = context.Pipe()
        threads = str(max(1, (os.cpu_count() or 1) // self._n))
        added = {name: threads for name in _THREADS if name not in os.environ}
        os.environ |= added  # a child starts with what is set now
        try:
            process = context.Process(target=_work, args=(theirs, self._worker), daemon=True)
            process.start()
        finally:
            for name in added:
                del os.environ[name]
        theirs.close()
        return _Process(process, ours)

    def _feed(self, worker: _Process, shards: Iterator[Shard], more: bool) -> bool:
        """Give ``worker`` what it can take; return whether ``shards`` may have more."""
        alone = any(s.index in self._attempts.reasons for s in worker.shards)
        while len(worker.shards) < _DEPTH and not alone:
            if self._again:
                if worker.shards:
                    break  # what failed before is done alone
                shard, alone = self._again.popleft(), True
            else:
                following = next(shards, None) if more else None
                if following is None:
                    return False
                shard = following
            worker.shards.append(shard)
            try:
                worker.link.send(shard)
            except OSError:  # it died; heard of below
                break
        return more

    def _hear(self, worker: _Process, finished: Callable[[Shard, Facts], None]) -> None:
        try:
            kind, index, what = worker.link.recv()
        except (EOFError, OSError):
            self._bury(worker, finished)
            return
        if kind == "stop":
            ended = GuardkitError(what)
            ended.exit_code = index
            raise ended
        shard = next(s for s in worker.shards if s.index == index)
        worker.shards.remove(shard)
        if kind == "done":
            self._deaths = 0
            finished(shard, what)
        else:
            self._fail(shard, what, finished)

    def _bury(self, worker: _Process, finished: Callable[[Shard, Facts], None]) -> None:
        """Start a worker in the place of one that died; its shards are done again."""
        worker.process.join()
        code = worker.process.exitcode or 0
        how = signal.Signals(-code).name if code < 0 else f"exit code {code}"
        self._deaths += 1
        if not worker.shards and self._deaths > 3 * self._n:
            raise RunError(f"workers cannot start: the last ended with {how}")
        under_way, *waiting = worker.shards or [None]
        worker.link.close()
        self._workers[self._workers.index(worker)] = self._start()
        self._again.extend(shard for shard in waiting if shard is not None)
        if under_way is not None:
            self._fail(under_way, f"its worker ended with {how}", finished)

    def _fail(self, shard: Shard, reason: str, finished: Callable[[Shard, Facts], None]) -> None:
        if self._attempts.failed(shard, reason):
            self._again.append(shard)
        else:
            finished(shard, self._worker.set_aside(shard, reason))


def _work(link: Connection, worker: Worker) -> None:
    """Be a worker: take shards until there are none, or nobody to take them from."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the parent, which ends us

    def shards() -> Iterator[Shard]:
        while True:
            try:
                shard = link.recv()
            except (EOFError, OSError):
                return
            yield shard

    def tell(kind: str, index: int, what: Any) -> None:
        try:
            link.send((kind, index, what))
        except OSError:  # the parent is gone: so are we
            os._exit(1)

    try:
        run_here(
            shards(),
            worker,
            lambda shard, facts: tell("done", shard.index, facts),
            lambda shard, reason: tell("failed", shard.index, reason),
        )
    except GuardkitError as error:  # wrong for the whole run
        tell("stop", error.exit_code, str(error))
