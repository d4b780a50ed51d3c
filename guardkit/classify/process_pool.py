"""Shards on several processes of this machine: each reads, decides and writes its own.

A worker that dies takes no shard with it: what it had is given to another, alone, so that a
shard which kills its worker every time is found out and no neighbour suffers for it. One that
does not answer is killed, and counts as dead. A shard that fails every time is halved until the
rows at fault are alone; only those are set aside.
``guardkit.classify.ray_pool`` has the same pool on a Ray cluster.
"""

from __future__ import annotations

import multiprocessing
import os
import signal
import threading
import time
from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from multiprocessing.connection import Connection, wait
from multiprocessing.process import BaseProcess
from typing import Any, Generic, TypeVar

from guardkit.classify.shards import Shard
from guardkit.classify.worker import REASON, WRITES, Attempts, Do, Facts, Worker, run_here
from guardkit.errors import GuardkitError, RunError

#: Shards a worker has at once: those it writes, one it decides, one it reads.
DEPTH = WRITES + 2
#: That is for shards of less than so long; what takes longer waits for whoever is free first.
AHEAD_S = 1.0
#: A piece of a shard has its share of the shard's time, but so much at least, for a worker that
#: has just been started loads its models meanwhile.
_PIECE_S = 60.0
_GRACE_S = 2.0
#: A process may take this long to start on a busy machine, whatever a shard may take.
_START_S = 60.0
#: Libraries that start as many threads as there are cores, each by its own variable.
THREADS = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "RAYON_NUM_THREADS")

#: ("done", shard, facts), ("failed", shard, reason) or ("stop", exit code, message).
Answer = tuple[str, int, Any]


class WorkerGone(Exception):
    """A worker died; the message says how."""


class Remote(ABC):
    """A worker elsewhere, and the ``shards`` it has: one under way, the rest after it."""

    def __init__(self) -> None:
        self.shards: deque[Shard] = deque()
        self._depth, self._since = 1, 0.0

    @property
    def room(self) -> int:
        """How many more shards it can have."""
        return self._depth - len(self.shards) if self.ready else 0

    def take(self, shard: Shard) -> None:
        """Have a shard."""
        if not self.shards:
            self._since = time.monotonic()
        self.shards.append(shard)
        self.give(shard)

    def finish(self, index: int) -> Shard:
        """Return a shard that it has no more; the time that it took says how many it can have."""
        shard = next(s for s in self.shards if s.index == index)
        self.shards.remove(shard)
        now = time.monotonic()
        self._depth = DEPTH if now - self._since < AHEAD_S else 1
        self._since = now
        return shard

    @property
    def ready(self) -> bool:
        """Whether it takes shards already."""
        return True

    @abstractmethod
    def give(self, shard: Shard) -> None:
        """Send a shard; that the worker died is heard of by ``answer``."""

    @abstractmethod
    def answer(self) -> Answer:
        """Return what it has to say. Raises WorkerGone."""


R = TypeVar("R", bound=Remote)


class Pool(ABC, Generic[R]):
    """Gives shards to ``n`` workers, and does again what they fail at."""

    def __init__(self, worker: Worker, n: int) -> None:
        self.worker, self.n = worker, n
        self._attempts = Attempts(worker)
        self._again: deque[Shard] = deque()
        self._deaths = 0  # of workers that had not finished anything
        self.workers = [self.start() for _ in range(n)]

    @abstractmethod
    def start(self) -> R:
        """Start a worker."""

    @abstractmethod
    def heard(self) -> Sequence[R]:
        """Wait until workers have something to say, or became ready; return the former."""

    @abstractmethod
    def stop(self) -> None:
        """End all workers."""

    def run(self, shards: Iterator[Shard], finished: Callable[[Shard, Facts], None]) -> None:
        """Do the shards."""
        more = True
        while True:
            for depth in range(1, DEPTH + 1):  # nobody gets a second one before all have a first
                for worker in self.workers:
                    more = self._feed(worker, shards, more, depth)
            busy = [worker for worker in self.workers if worker.shards]
            if not busy and not self._again and not more:
                return
            for worker in self.heard():
                self._hear(worker, finished)

    def _feed(self, worker: R, shards: Iterator[Shard], more: bool, depth: int) -> bool:
        """Give ``worker`` what it can take, ``depth`` in all; return whether ``shards`` may have
        more."""
        alone = any(map(self._attempts.has_failed, worker.shards))
        while worker.room > 0 and len(worker.shards) < depth and not alone:
            if self._again:
                if worker.shards:
                    break  # what failed before is done alone
                shard, alone = self._again.popleft(), True
            else:
                following = next(shards, None) if more else None
                if following is None:
                    return False
                shard = following
            worker.take(shard)
        return more

    def _hear(self, worker: R, finished: Callable[[Shard, Facts], None]) -> None:
        try:
            kind, index, what = worker.answer()
        except WorkerGone as gone:
            self._bury(worker, str(gone), finished)
            return
        if kind == "stop":
            ended = GuardkitError(what)
            ended.exit_code = index
            raise ended
        shard = worker.finish(index)
        if kind == "done":
            self._deaths = 0
            self._done(shard, what, finished)
        else:
            self._fail(shard, what, finished)

    def _bury(self, worker: R, how: str, finished: Callable[[Shard, Facts], None]) -> None:
        """Start a worker in the place of one that died; its shards are done again."""
        self._deaths += 1
        if not worker.shards and self._deaths > 3 * self.n:
            raise RunError(f"workers cannot start: the last ended with {how}")
        under_way, *waiting = worker.shards or [None]
        self.workers[self.workers.index(worker)] = self.start()
        self._again.extend(shard for shard in waiting if shard is not None)
        if under_way is not None:
            self._fail(under_way, f"its worker ended with {how}", finished)

    def _fail(self, shard: Shard, reason: str, finished: Callable[[Shard, Facts], None]) -> None:
        again = self._attempts.again(shard)
        if again == [shard]:
            self._again.append(shard)
        elif again:
            self._again.extendleft(reversed(again))  # before others: its pieces are held
        else:
            self._done(shard, self.worker.set_aside(shard, reason[:REASON]), finished)

    def _done(self, shard: Shard, facts: Facts, finished: Callable[[Shard, Facts], None]) -> None:
        if whole := self._attempts.done(shard, facts):
            finished(*whole)


@contextmanager
def processes(worker: Worker, n: int, timeout_s: float) -> Iterator[Do]:
    """Start ``n`` processes that share the machine's cores, and yield what does shards on them; one
    that needs more than ``timeout_s`` for a shard is killed."""
    pool = _Processes(worker, n, timeout_s)
    try:
        yield pool.run
    finally:
        pool.stop()


class _Process(Remote):
    def __init__(self, process: BaseProcess, link: Connection, timeout_s: float) -> None:
        super().__init__()
        self.process, self.link = process, link
        self._timeout_s, self._ready, self._killed = timeout_s, False, ""
        self._limit(max(timeout_s, _START_S))

    @property
    def ready(self) -> bool:
        return self._ready

    def give(self, shard: Shard) -> None:
        if len(self.shards) == 1:  # it had none
            share = self._timeout_s * shard.size_in_rows / max(1, shard.count)
            self._limit(max(share, min(self._timeout_s, _PIECE_S)))
        with suppress(OSError):  # it died
            self.link.send(shard)

    def answer(self) -> Answer:
        try:
            answer: Answer = self.link.recv()
        except (EOFError, OSError):
            self.process.join()
            self.link.close()
            code = self.process.exitcode or 0
            how = signal.Signals(-code).name if code < 0 else f"exit code {code}"
            raise WorkerGone(self._killed or how) from None
        self._limit(self._timeout_s)
        return answer

    def greeted(self) -> bool:
        """Whether what it says is only that it has started."""
        if self._ready:
            return False
        try:
            self.link.recv()
        except (EOFError, OSError):
            return False  # it died: ``answer`` says how
        self._ready = True
        return True

    @property
    def left_s(self) -> float:
        """Seconds until it is overdue; it never is where it has nothing to do."""
        busy = self.shards or not self._ready
        return self._due - time.monotonic() if busy and not self._killed else float("inf")

    def kill(self) -> None:
        """End it for want of an answer."""
        self._killed = (
            f"no answer for {self._limit_s:,.0f} s; if it is slow and not hung, raise "
            "--shard-timeout"
        )
        self.process.kill()

    def _limit(self, seconds: float) -> None:
        self._limit_s, self._due = seconds, time.monotonic() + seconds


class _Processes(Pool[_Process]):
    def __init__(self, worker: Worker, n: int, timeout_s: float) -> None:
        self._timeout_s = timeout_s
        super().__init__(worker, n)

    def start(self) -> _Process:
        context = multiprocessing.get_context("spawn")
        ours, theirs = context.Pipe()
        threads = str(max(1, (os.cpu_count() or 1) // self.n))
        added = {name: threads for name in THREADS if name not in os.environ}
        os.environ |= added  # a child starts with what is set now
        try:
            process = context.Process(target=_work, args=(theirs, self.worker), daemon=True)
            process.start()
        finally:
            for name in added:
                del os.environ[name]
        theirs.close()
        return _Process(process, ours, self._timeout_s)

    def heard(self) -> Sequence[_Process]:
        ends = {worker.link: worker for worker in self.workers}
        left_s = max(0.0, min(worker.left_s for worker in self.workers))
        found = wait([*ends], None if left_s == float("inf") else left_s)
        for worker in self.workers:
            if worker.link not in found and worker.left_s <= 0:
                worker.kill()  # its link ends, and that is heard
        return [w for link in found if not (w := ends[link]).greeted()]  # type: ignore[index]

    def stop(self) -> None:
        for worker in self.workers:
            worker.process.terminate()
        for worker in self.workers:
            worker.process.join(_GRACE_S)
            if worker.process.is_alive():
                worker.process.kill()
                worker.process.join()
            worker.link.close()


def _work(link: Connection, worker: Worker) -> None:
    """Be a worker: take shards until there are none, or nobody to take them from."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the parent, which ends us
    threading.Thread(target=_end_with_parent, daemon=True).start()

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

    tell("ready", 0, None)
    try:
        run_here(
            shards(),
            worker,
            lambda shard, facts: tell("done", shard.index, facts),
            lambda shard, reason: tell("failed", shard.index, reason),
        )
    except GuardkitError as error:  # wrong for the whole run
        tell("stop", error.exit_code, str(error))


def _end_with_parent() -> None:
    """End at once when the parent is gone, however: what hangs would never find out."""
    parent = multiprocessing.parent_process()
    assert parent is not None
    parent.join()
    os._exit(1)
