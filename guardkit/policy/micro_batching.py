"""Texts of many callers, judged together by one thread of their own.

Callers wait on an event loop that stays free; the thread takes what waits in order of arrival, as
much as a batch may hold, and waits for more no longer than ``wait_s``. A caller gets its own
results or an error. What is waiting is bounded, and nothing is judged whose caller is gone or
whose time is over.
"""

from __future__ import annotations

import asyncio
import math
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field
from typing import Any, Generic, TypeVar

from guardkit.bounds import READING_COST
from guardkit.errors import (
    ClosedError,
    DeadlineError,
    GuardkitError,
    NotJudgedError,
    QueueFullError,
)
from guardkit.types import Row

R = TypeVar("R")
T = TypeVar("T")

#: What judges rows: one result for each, in order. Called in the batcher's thread alone.
Judge = Callable[[Sequence[Row]], Sequence[R]]

#: A caller is told to come again in so many seconds at most.
_RETRY_AFTER_S = 60


@dataclass(frozen=True, slots=True)
class Limits:
    """How much is judged at once and how much may wait. Characters stand for tokens, which nobody
    has counted yet; each text has ``READING_COST`` more, for what it costs beside them."""

    batch_characters: int = 8_192
    wait_s: float = 0.005
    queue_requests: int = 1_000
    queue_characters: int = 4_000_000


@dataclass(frozen=True, slots=True)
class BatchFacts:
    """What a batch was: for metrics."""

    requests: int
    rows: int
    characters: int
    waited_s: Sequence[float]  # of each request, from its arrival on
    seconds: float


@dataclass(eq=False, slots=True)
class _Job:
    """What one caller waits for: its ``rows`` judged, or ``call``, which is done by itself."""

    rows: Sequence[Row]
    call: Callable[[], Any] | None
    characters: int
    deadline: float
    came: float = field(default_factory=time.monotonic)
    gone: bool = False  # its caller waits no longer
    result: Future[Any] = field(default_factory=Future)


class Batcher(Generic[R]):
    """Judges rows for callers on any event loop. ``seen`` is told of every batch, in the thread
    that judges. Close it at the end: its thread is of no use to anyone else."""

    def __init__(
        self,
        judge: Judge[R],
        *,
        limits: Limits | None = None,
        seen: Callable[[BatchFacts], None] | None = None,
    ) -> None:
        self._judge = judge
        self._limits = limits or Limits()
        self._seen = seen
        self._waiting: deque[_Job] = deque()
        self._characters = 0  # of all that waits
        self._changed = threading.Condition()
        self._closed = False
        self._busy_since: float | None = None
        self._characters_per_s = 0.0
        self._thread = threading.Thread(target=self._work, name="guardkit-judge", daemon=True)
        self._thread.start()

    def replace(self, judge: Judge[R]) -> None:
        """Judge by ``judge`` from the next batch on. No request is judged by two."""
        self._judge = judge

    @property
    def waiting(self) -> int:
        """Requests that wait for their turn."""
        return len(self._waiting)

    @property
    def alive(self) -> bool:
        return self._thread.is_alive()

    @property
    def busy_s(self) -> float:
        """Seconds that the batch under way has taken so far; 0 where there is none."""
        since = self._busy_since
        return 0.0 if since is None else time.monotonic() - since

    async def judge(self, rows: Sequence[Row], *, timeout_s: float) -> list[R]:
        """Return a result for each row, in order; one request is one part of one batch.

        Raises QueueFullError, DeadlineError or ClosedError where they were not judged,
        NotJudgedError or another GuardkitError where ``judge`` failed at these rows. A caller that
        is cancelled takes them out of the queue.
        """
        characters = sum(map(_characters, rows))
        result: list[R] = await self._done(rows, None, characters, timeout_s)
        return result

    async def run(self, call: Callable[[], T], *, characters: int, timeout_s: float) -> T:
        """Return what ``call`` does in the thread that judges, in its turn and by itself."""
        result: T = await self._done((), call, characters, timeout_s)
        return result

    def close(self, timeout_s: float | None = None) -> None:
        """Take no more, judge what waits, and end the thread; give up on it after ``timeout_s``."""
        with self._changed:
            self._closed = True
            self._changed.notify()
        self._thread.join(timeout_s)

    async def _done(
        self,
        rows: Sequence[Row],
        call: Callable[[], Any] | None,
        characters: int,
        timeout_s: float,
    ) -> Any:
        job = _Job(rows, call, characters, time.monotonic() + timeout_s)
        self._add(job)
        try:
            async with asyncio.timeout(timeout_s):
                return await asyncio.wrap_future(job.result)
        except TimeoutError:
            raise _too_late() from None
        finally:
            self._forget(job)

    def _add(self, job: _Job) -> None:
        with self._changed:
            if self._closed:
                raise ClosedError("the server is closing and judges no more texts")
            characters = self._characters + job.characters
            # what is larger than all that may wait still has its turn where nothing waits
            full = self._waiting and characters > self._limits.queue_characters
            if full or len(self._waiting) >= self._limits.queue_requests:
                raise QueueFullError(self._retry_after_s())
            self._waiting.append(job)
            self._characters = characters
            # the thread looks by itself when its wait for more is over
            if len(self._waiting) == 1 or job.call or characters >= self._limits.batch_characters:
                self._changed.notify()

    def _retry_after_s(self) -> int:
        seconds = self._characters / self._characters_per_s if self._characters_per_s else 1.0
        return min(max(math.ceil(seconds), 1), _RETRY_AFTER_S)

    def _forget(self, job: _Job) -> None:
        """Take a job whose caller waits no longer out of the queue, if it is still there."""
        if job.result.done() and not job.result.cancelled():
            return
        job.gone = True
        job.result.cancel()
        with self._changed:
            if job in self._waiting:
                self._waiting.remove(job)
                self._characters -= job.characters

    def _work(self) -> None:
        while (jobs := self._next()) is not None:
            if jobs:
                self._busy_since = begun = time.monotonic()
                self._do(jobs)
                self._busy_since = None
                self._tell(jobs, begun)

    def _next(self) -> list[_Job] | None:
        """Wait for work and return the jobs of the next batch; None where there will be none."""
        limits = self._limits
        with self._changed:
            while not self._waiting:
                if self._closed:
                    return None
                self._changed.wait()
            while (
                self._waiting
                and not self._closed
                and self._waiting[0].call is None
                and self._characters < limits.batch_characters
                and (left_s := self._waiting[0].came + limits.wait_s - time.monotonic()) > 0
            ):
                self._changed.wait(left_s)
            return self._taken()

    def _taken(self) -> list[_Job]:
        """Take the jobs of one batch from the queue; drop those that nobody waits for."""
        jobs: list[_Job] = []
        left = self._limits.batch_characters
        while self._waiting:
            job = self._waiting[0]
            if jobs and (job.call or jobs[0].call or job.characters > left):
                break
            self._waiting.popleft()
            self._characters -= job.characters
            if not job.result.set_running_or_notify_cancel():
                continue
            if job.deadline <= time.monotonic():
                job.result.set_exception(_too_late())
                continue
            left -= job.characters
            jobs.append(job)
        return jobs

    def _do(self, jobs: Sequence[_Job]) -> None:
        try:
            if (call := jobs[0].call) is not None:
                jobs[0].result.set_result(call())
                return
            results = self._results(jobs)
        except BaseException as error:  # given to its caller; never swallowed
            if len(jobs) == 1:
                jobs[0].result.set_exception(_as_ours(error))
            else:  # find whose it is: neighbours must neither suffer nor learn of it
                for job in jobs:
                    self._do([job])
            return
        end = 0
        for job in jobs:
            start, end = end, end + len(job.rows)
            job.result.set_result(list(results[start:end]))

    def _results(self, jobs: Sequence[_Job]) -> list[R]:
        """Return the results of all rows. What is larger than a batch is judged in several, by one
        judge, and no further than someone waits for it."""
        judge = self._judge
        results: list[R] = []
        for rows in _pieces([row for job in jobs for row in job.rows], self._limits):
            if len(jobs) == 1 and (jobs[0].gone or jobs[0].deadline <= time.monotonic()):
                raise _too_late()
            judged = judge(rows)
            if len(judged) != len(rows):
                raise RuntimeError(f"{len(judged)} results for {len(rows)} rows")
            results += judged
        return results

    def _tell(self, jobs: Sequence[_Job], begun: float) -> None:
        seconds = max(time.monotonic() - begun, 1e-6)
        characters = sum(job.characters for job in jobs)
        speed = characters / seconds
        known = self._characters_per_s
        self._characters_per_s = 0.9 * known + 0.1 * speed if known else speed
        if self._seen is not None:
            waited_s = [begun - job.came for job in jobs]
            rows = sum(len(job.rows) for job in jobs)
            self._seen(BatchFacts(len(jobs), rows, characters, waited_s, seconds))


def _characters(row: Row) -> int:
    return sum(len(text) + READING_COST for text in row.texts)


def _pieces(rows: Sequence[Row], limits: Limits) -> Iterator[list[Row]]:
    """Yield the rows in pieces of as many as a batch may hold, one of them at least."""
    piece: list[Row] = []
    size = 0
    for row in rows:
        own = _characters(row)
        if piece and size + own > limits.batch_characters:
            yield piece
            piece, size = [], 0
        piece.append(row)
        size += own
    yield piece


def _as_ours(error: BaseException) -> GuardkitError:
    """Return ``error`` for an event loop to raise, which an exit would end; what an exception of
    others says may quote texts, and is only its cause."""
    if isinstance(error, GuardkitError):
        return error
    ours = NotJudgedError(f"not judged: {type(error).__name__}")
    ours.__cause__ = error
    return ours


def _too_late() -> DeadlineError:
    return DeadlineError("not judged within the time that a request may take")
