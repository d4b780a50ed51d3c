"""Classify an input of any size into a file: exactly once, resumable, on one process or many.

    scan the input -> manifest -> shards -> rows -> judge -> parts -> merge

Every shard's output is a part (``guardkit.classify.run_folder``); the state of a run is which
parts are there, so a run that was killed anywhere goes on from there, and ends in the bytes it
would have written undisturbed. A shard that fails is tried again, then set aside and named; its
lines become errors, never verdicts.
"""

from __future__ import annotations

import gc
import hashlib
import os
import platform
import time
from collections import Counter, deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from contextlib import contextmanager
from dataclasses import dataclass, field, fields
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

import msgspec

from guardkit import __version__
from guardkit.classify.records import Judge, Summary, judged, model_judge, policy_judge, unjudged
from guardkit.classify.rows import read_rows
from guardkit.classify.run_folder import Manifest, Parts
from guardkit.classify.shards import SHARD_BYTES, SHARD_ROWS, STDIN, Input, Shard, named
from guardkit.errors import GuardkitError, UsageError
from guardkit.model import artefact
from guardkit.model.find import find_model
from guardkit.model.loaded import load_model
from guardkit.plugins import installed_plugins
from guardkit.policy.router import PolicyRouter, load_policy
from guardkit.types import Progress, Row

#: Times a shard is tried before it is set aside.
ATTEMPTS = 3
#: A worker process that needs longer for one shard is taken to hang.
SHARD_TIMEOUT_S = 3600.0
#: Parts being written at once: disks flush several in little more time than one.
WRITES = 2
#: New objects between two searches for garbage: several shards' worth.
_OBJECTS = 100_000
ENV_MASK_KEY = "GUARDKIT_MASK_KEY"

Engine = Literal["local", "ray"]
Facts = dict[str, Any]
#: do(shards, finished): every shard becomes a part, and its facts are told.
Do = Callable[[Iterator[Shard], Callable[[Shard, Facts], None]], None]


@dataclass(frozen=True)
class Job:
    """What judges the rows: all that a worker needs to be told."""

    policy: str | None = None
    shadow: str | None = None
    model: str | None = None
    device: str = "auto"
    backend: str = "torch"
    keep: tuple[str, ...] = ()
    named: bool = False  # ids that the rows do not bring name their file

    def judge(self) -> Judge:
        """Load what is needed, models at their first use."""
        if self.model is not None:
            return model_judge(load_model(self.model, device=self.device, backend=self.backend))
        return policy_judge(self.router)

    @cached_property
    def router(self) -> PolicyRouter:
        """Return the policy's router: its file is read and checked once in each process."""
        return load_policy(
            self.policy, shadow=self.shadow, device=self.device, backend=self.backend
        )

    def __getstate__(self) -> Facts:
        """Leave the router behind: a process that is sent this reads the policy for itself."""
        return {f.name: getattr(self, f.name) for f in fields(self)}

    def rows(self, source: str) -> Iterator[Row]:
        """Yield the rows of ``source`` one after the other, for a run that saves nothing."""
        for path in Input(source).paths:
            with read_rows(path, keep=self.keep) as rows:
                yield from (named(row, path) for row in rows) if self.named else rows

    def settings(self) -> Facts:
        """Return what the output depends on besides the input: nothing is loaded for it."""
        found: Facts = {"guardkit": __version__, "python": platform.python_version()}
        if self.model is not None:
            folder = find_model(
                self.model, family=None, base=Path.cwd(), plugins=installed_plugins()
            )
            found["model"] = artefact.verify(folder)
        else:
            for name, router in (("policy", self.router), ("shadow policy", self.router.shadow)):
                if router is not None:
                    found[name] = router.hash
                    for member, digest in router.model_hashes().items():
                        found[f"{name}'s model {member!r}"] = digest
        key = os.environ.get(ENV_MASK_KEY)
        return found | {
            "--keep": list(self.keep),
            "--device": self.device,
            "--backend": self.backend,
            "shards": f"{SHARD_ROWS:,} rows or {SHARD_BYTES:,} bytes",
            "torch": _version("torch"),
            # a fingerprint: who reads the manifest must not learn the key
            ENV_MASK_KEY: key and hashlib.sha256(key.encode()).hexdigest()[:12],
        }


@dataclass
class Outcome:
    """What a run came to. ``set_aside`` names shards that failed every time, with the reason."""

    summary: Summary
    set_aside: dict[str, str] = field(default_factory=dict)
    resumed: int = 0  # rows that an interrupted run had done


class Attempts:
    """Which shards have failed, how often, and what to do next with one that fails."""

    def __init__(self) -> None:
        self._failed: Counter[int] = Counter()
        self.reasons: dict[int, str] = {}

    def failed(self, shard: Shard, reason: str) -> bool:
        """Count a failure; return whether to try again."""
        self._failed[shard.index] += 1
        self.reasons[shard.index] = reason
        return self._failed[shard.index] < ATTEMPTS


def classify_into(
    out: Path,
    source: str,
    job: Job,
    *,
    resume: bool = False,
    workers: int = 1,
    engine: Engine = "local",
    shard_timeout_s: float | None = None,
    progress: Progress | None = None,
) -> Outcome:
    """Judge every row of ``source`` and write a JSON line for each to ``out``, in order.

    ``out`` appears when all of it is there. Until then the work stands in ``OUT.parts``; with
    ``resume`` an interrupted run goes on from there. Raises UsageError where there is such a
    folder and ``resume`` was not asked for, or where input, policy, model or settings are not
    what they were; RunError and OutputError as ``records.classify`` does. ``engine`` says
    where the workers are: processes of this machine, or a Ray cluster's. A local process that
    needs more than ``shard_timeout_s`` for a shard is killed, and the shard has failed; where a
    limit is given, a single worker is a process, too.
    """
    if engine == "ray":
        from guardkit.classify.ray_pool import require_ray

        require_ray()
    out = out.resolve()  # a link stays a link, to the new file
    parts, rows_of = Parts(out), Input(source)
    worker = Worker(job, parts.folder)
    with parts.locked(), _placed(worker, engine, workers, shard_timeout_s) as do:
        before = parts.manifest()
        if before and not resume:
            raise UsageError(
                f"{parts.folder}: an interrupted run left its work here. The same command with "
                "--resume goes on from it; remove the folder to start anew"
            )
        inputs = rows_of.scan(progress)
        manifest = Manifest(inputs=inputs, settings=job.settings(), offsets=rows_of.offsets())
        if before is None:
            parts.begin(manifest)
        elif changes := before.differences(manifest):
            raise UsageError(
                f"{parts.folder}: cannot be resumed: {'; '.join(changes)}. Put it back as it was, "
                "or remove the folder to start anew"
            )
        outcome = _run(parts, rows_of, job, do, progress)
        if not outcome.set_aside:
            parts.clear()
    return outcome


def _run(
    parts: Parts,
    rows_of: Input,
    job: Job,
    do: Do,
    progress: Progress | None,
) -> Outcome:
    started = time.perf_counter()
    outcome, done = Outcome(Summary()), parts.done()
    for index in sorted(done):
        facts = parts.facts(index)
        if "set_aside" in facts:  # a run that goes on tries these again
            parts.remove(index)
            done.discard(index)
        else:
            outcome.summary.add(facts["summary"])
    outcome.resumed = outcome.summary.rows

    def finished(shard: Shard, facts: Facts) -> None:
        outcome.summary.add(facts["summary"])
        merging.add(shard.index)
        if "set_aside" in facts:
            last = shard.first + shard.count - 1
            name = f"{shard.path}, rows {shard.first:,} to {last:,}"
            outcome.set_aside[name] = facts["set_aside"]
        outcome.summary.seconds = time.perf_counter() - started
        if progress:
            note = _note(outcome, outcome.summary.seconds)
            progress("classify", outcome.summary.rows, rows_of.rows or 0, note)

    def again(shard: Shard) -> None:
        """Check that a shard of standard input is what it was when its part was written."""
        if parts.facts(shard.index).get("input") != _fingerprint(shard):
            raise UsageError(
                "standard input is not what it was when the run was interrupted; feed it the same "
                f"again, or remove {parts.folder} to start anew"
            )

    with parts.merging(done) as merging:
        do(rows_of.shards(job.keep, done, again), finished)
        merging.finish(rows_of.count)
    outcome.summary.seconds = time.perf_counter() - started
    return outcome


@contextmanager
def _placed(worker: Worker, engine: Engine, n: int, timeout_s: float | None) -> Iterator[Do]:
    """Yield what does shards: this process, or ``n`` others, which start up meanwhile."""
    if engine == "ray":
        from guardkit.classify.ray_pool import run_on_ray

        yield lambda shards, finished: run_on_ray(shards, worker, n, finished)
    elif n > 1 or timeout_s is not None:
        from guardkit.classify.process_pool import processes

        with processes(worker, n, timeout_s or SHARD_TIMEOUT_S) as do:
            yield do
    else:
        yield lambda shards, finished: run_here(shards, worker, finished)


class Worker:
    """Turns shards into parts, in this process or in others that it is sent to."""

    def __init__(self, job: Job, folder: Path) -> None:
        self.job, self.folder = job, folder
        self._judge: Judge | None = None

    def __reduce__(self) -> tuple[type[Worker], tuple[Job, Path]]:
        """Travel without what was loaded, also once it is."""
        return Worker, (self.job, self.folder)

    def read(self, shard: Shard) -> tuple[list[Any], float]:
        """Return a shard's rows, and the seconds that took."""
        started = time.perf_counter()
        rows = shard.read(self.job.keep, with_names=self.job.named)
        return rows, time.perf_counter() - started

    def judge(self, rows: list[Any]) -> tuple[bytes, Summary, float]:
        """Return the rows' output lines, what they came to, and the seconds that took."""
        if self._judge is None:
            self._judge = self.job.judge()
        started = time.perf_counter()
        body, summary = judged(rows, self._judge)
        return body, summary, time.perf_counter() - started

    def set_aside(self, shard: Shard, reason: str) -> Facts:
        """Write a part in which every row of ``shard`` is an error, and return its facts."""
        if self._judge is None:
            self._judge = self.job.judge()
        rows, seconds = self.read(shard)
        why = f"not judged: its shard failed {ATTEMPTS} times, last: {reason}"
        body, summary = judged(unjudged(rows, why), self._judge)
        return self.write(shard, body, summary, {"read": seconds}, set_aside=reason)

    def write(
        self,
        shard: Shard,
        body: bytes,
        summary: Summary,
        seconds: dict[str, float],
        **more: str,
    ) -> Facts:
        """Write a part and return its facts."""
        from guardkit.classify.run_folder import reporting, write_part

        summary.times = seconds
        facts: Facts = {"summary": summary.facts(), **more}
        if shard.path == STDIN:
            facts["input"] = _fingerprint(shard)
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

    A shard that raises is tried again at once and set aside in the end; with ``failed`` it is
    only reported. What is wrong with the whole run (GuardkitError) ends it.
    """
    coming, attempts = iter(shards), Attempts()
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
            while True:
                try:
                    body, summary, judging = worker.judge(rows)
                except GuardkitError:
                    settle(0)
                    raise
                except Exception as error:  # retried, then recorded; never swallowed
                    reason = f"{type(error).__name__}: {error}"
                    if failed is not None:
                        failed(shard, reason)
                        break
                    if attempts.failed(shard, reason):
                        continue
                    settle(0)
                    finished(shard, worker.set_aside(shard, reason))
                    break
                settle(WRITES - 1)
                times = {"read": seconds, "judge": judging}
                writing.append((shard, writer.submit(worker.write, shard, body, summary, times)))
                break
        settle(0)


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


def _fingerprint(shard: Shard) -> str:
    digest = hashlib.sha256()
    for row in shard.rows or ():
        # what the row's output depends on; an id or a kept field may be JSON as it was written
        rest = [row.id, row.kept, row.error, len(row.texts)]
        digest.update(msgspec.json.encode(rest) + b"\0")
        for text in row.texts:
            data = text.encode("utf-8", "surrogatepass")
            digest.update(f"{len(data)}\0".encode() + data)
    return digest.hexdigest()


def _note(outcome: Outcome, seconds: float) -> str:
    summary = outcome.summary
    fresh = summary.rows - outcome.resumed
    parts = [f"{fresh / seconds:,.0f} lines/s" if seconds else ""]
    parts += [f"{n:,} {action}" for action, n in sorted(summary.actions.items())]
    if errors := summary.unreadable + summary.undecided:
        parts.append(f"{errors:,} errors")
    return ", ".join(parts)


def _version(package: str) -> str | None:
    from importlib.metadata import PackageNotFoundError, version

    try:
        return version(package)
    except PackageNotFoundError:
        return None
