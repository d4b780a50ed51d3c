"""What turns shards into parts, in whatever process it is, and how often a shard is tried."""

from __future__ import annotations

import gc
import time
from collections import Counter, deque
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

from guardkit.classify.job import Job
from guardkit.classify.records import Decide, Summary, as_errors, output_lines
from guardkit.classify.run_folder import read_manifest, reporting, write_part
from guardkit.classify.shards import STDIN, Shard
from guardkit.errors import GuardkitError

#: Times a shard is tried before it is set aside.
ATTEMPTS = 3
#: Rows of one shard that are looked for; what fails after them is set aside as it is. Without a
#: limit, a shard of rows that all kill their worker would take thousands of workers.
MOST_ALONE = 8
#: Characters of a failure's reason that are kept: an exception may quote whole texts.
REASON = 500
#: Parts being written at once: disks flush several in little more time than one.
WRITES = 2
#: New objects between two searches for garbage: several shards' worth.
_OBJECTS = 100_000

#: What is told of a shard that is done: its summary, and why it was set aside if it was.
Facts = dict[str, Any]
#: do(shards, finished): every shard becomes a part, and its facts are told.
Do = Callable[[Iterator[Shard], Callable[[Shard, Facts], None]], None]


class Worker:
    """Turns shards into parts, in this process or in others that it is sent to."""

    def __init__(self, job: Job, folder: Path) -> None:
        self.job, self.folder = job, folder
        self._decide: Decide | None = None

    def __reduce__(self) -> tuple[type[Worker], tuple[Job, Path]]:
        """Travel without what was loaded, also once it is."""
        return Worker, (self.job, self.folder)

    def read(self, shard: Shard) -> tuple[list[Any], float]:
        """Return a shard's rows, and the seconds that took."""
        started = time.perf_counter()
        rows = shard.read(self.job.keep, with_names=self.job.named)
        return rows, time.perf_counter() - started

    def decide(self, rows: list[Any]) -> tuple[bytes, Summary, float]:
        """Return the rows' output lines, what they came to, and the seconds that took."""
        decide = self._loaded()
        started = time.perf_counter()
        body, summary = output_lines(rows, decide)
        return body, summary, time.perf_counter() - started

    def _loaded(self) -> Decide:
        if self._decide is None:
            # what this process reads now may not be what the run began with
            self._decide = self.job.load(read_manifest(self.folder).settings)
        return self._decide

    def set_aside(self, shard: Shard, reason: str) -> Facts:
        """Write a part in which every row of ``shard`` is an error, and return its facts."""
        decide = self._loaded()
        rows, seconds = self.read(shard)
        why = f"not judged: its shard failed {ATTEMPTS} times, last: {reason}"
        if shard.piece is not None:
            why = f"not judged: it failed apart from the rest of its shard, too: {reason}"
        body, summary = output_lines(as_errors(rows, why), decide)
        aside = {shard.row_names: reason}
        return self.write(shard, body, summary, {"read": seconds}, set_aside=aside)

    def join(self, shard: Shard, pieces: Mapping[tuple[int, int], Facts]) -> Facts:
        """Write the part of a shard whose ``pieces`` were done apart, and return its facts."""
        summary, aside = Summary(), dict[str, str]()
        in_order = [facts for _, facts in sorted(pieces.items())]
        for facts in in_order:
            summary.add(facts["summary"])
            aside |= facts.get("set_aside", {})
        more = {"set_aside": aside} if aside else {}
        body = b"".join(facts["body"] for facts in in_order)
        return self.write(shard, body, summary, summary.times, **more)

    def write(
        self,
        shard: Shard,
        body: bytes,
        summary: Summary,
        seconds: dict[str, float],
        **more: Any,
    ) -> Facts:
        """Write a part and return its facts; of a piece of a shard the lines are with them."""
        summary.times = seconds
        facts: Facts = {"summary": summary.facts(), **more}
        if shard.piece is not None:
            return facts | {"body": body}
        if shard.path == STDIN:
            facts["input"] = shard.fingerprint()
        started = time.perf_counter()
        with reporting(self.folder):
            write_part(self.folder, shard.index, body, facts)
        facts["summary"]["times"]["write"] = time.perf_counter() - started
        return facts


def run_here(
    shards: Iterable[Shard],
    worker: Worker,
    finished: Callable[[Shard, Facts], None],
    failed: Callable[[Shard, str], None] | None = None,
) -> None:
    """Do the shards in this process: the next is read and the last ones are written meanwhile.

    A shard that raises is tried again at once, halved, and in the end set aside (``Attempts``);
    with ``failed`` it is only reported. What is wrong with the whole run (GuardkitError) ends it.
    """
    coming, attempts = iter(shards), Attempts(worker)
    writing: deque[tuple[Shard, Future[Facts]]] = deque()

    def fetch() -> tuple[Shard, list[Any], float] | None:
        shard = next(coming, None)
        return None if shard is None else (shard, *worker.read(shard))

    def settle(left: int) -> None:
        """Report what was written, in order, until ``left`` are under way at most."""
        while writing and (len(writing) > left or writing[0][1].done()):
            shard, part = writing[0]
            facts = part.result()
            writing.popleft()
            finished(shard, facts)

    def told(shard: Shard, facts: Facts) -> None:
        """Report a shard, or the whole of which this was the last piece."""
        settle(0)
        if whole := attempts.done(shard, facts):
            finished(*whole)

    def fetched() -> tuple[Shard, list[Any], float] | None:
        """Return what was read. What was written meanwhile is reported first, for shards may come
        only after that."""
        while writing and not reading.done():
            under_way: list[Future[Any]] = [reading, writing[0][1]]
            wait(under_way, return_when=FIRST_COMPLETED)
            settle(WRITES)
        return reading.result()

    with _rare_collections(), _threads() as (reader, writer):
        reading = reader.submit(fetch)
        while (next_one := fetched()) is not None:
            reading = reader.submit(fetch)
            shard, rows, seconds = next_one
            todo = [shard]
            while todo:
                one = todo.pop(0)
                try:
                    own = rows if one is shard else rows[slice(*one.piece or ())]
                    body, summary, deciding = worker.decide(own)
                except GuardkitError:
                    settle(0)
                    raise
                except Exception as error:  # retried, then recorded; never swallowed
                    reason = f"{type(error).__name__}: {error}"[:REASON]
                    if failed is not None:
                        failed(one, reason)
                    elif again := attempts.again(one):
                        todo = again + todo
                    else:
                        told(one, worker.set_aside(one, reason))
                    continue
                if one is not shard:
                    told(one, worker.write(one, body, summary, {"judge": deciding}))
                    continue
                settle(WRITES - 1)
                times = {"read": seconds, "judge": deciding}
                writing.append((shard, writer.submit(worker.write, shard, body, summary, times)))
        settle(0)


class Attempts:
    """Which shards have failed, how often, and what to do next: one that fails every time is
    halved until the rows at fault are alone."""

    def __init__(self, worker: Worker) -> None:
        self._worker = worker
        self._failed: Counter[int] = Counter()
        self._apart: dict[int, dict[tuple[int, int], Facts]] = {}  # pieces that are done, by shard

    def has_failed(self, shard: Shard) -> bool:
        return shard.index in self._failed

    def again(self, shard: Shard) -> list[Shard]:
        """Count a failure; return what to try next: the shard, its halves, or nothing more."""
        if shard.piece is None:
            self._failed[shard.index] += 1
            if self._failed[shard.index] < ATTEMPTS:
                return [shard]
        done = self._apart.get(shard.index, {})
        aside = sum("set_aside" in facts for facts in done.values())
        if shard.size_in_rows == 1 or aside >= MOST_ALONE:
            return []
        self._apart.setdefault(shard.index, {})
        return shard.halves()

    def done(self, shard: Shard, facts: Facts) -> tuple[Shard, Facts] | None:
        """Take note of a shard, or of a piece of one; return the shard that is whole now, and its
        facts."""
        if shard.piece is None:
            return shard, facts
        pieces = self._apart[shard.index]
        pieces[shard.piece] = facts
        if sum(end - start for start, end in pieces) < shard.count:
            return None
        del self._apart[shard.index]
        whole = replace(shard, piece=None)
        return whole, self._worker.join(whole, pieces)


@contextmanager
def _rare_collections() -> Iterator[None]:
    """Look for garbage in cycles rarely: rows and decisions make none, and are many."""
    before = gc.get_threshold()
    gc.set_threshold(_OBJECTS, *before[1:])
    try:
        yield
    finally:
        gc.set_threshold(*before)


@contextmanager
def _threads() -> Iterator[tuple[ThreadPoolExecutor, ThreadPoolExecutor]]:
    reader, writer = ThreadPoolExecutor(1, "read"), ThreadPoolExecutor(WRITES, "write")
    try:
        yield reader, writer
    finally:  # an interrupted run does not wait for what it will do again
        reader.shutdown(wait=False, cancel_futures=True)
        writer.shutdown(wait=True)
