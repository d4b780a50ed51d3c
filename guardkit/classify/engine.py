"""Classify an input of any size into a file: exactly once, resumable, on one process or many.

    scan the input -> manifest -> shards -> rows -> decisions -> parts -> merge

Every shard's output is a part (``guardkit.classify.run_folder``); the state of a run is which
parts are there, so a run that was killed anywhere goes on from there, and ends in the bytes it
would have written undisturbed. A shard that fails is tried again, then set aside and named; its
lines become errors, never decisions.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from guardkit.classify.job import Job
from guardkit.classify.manifest import Manifest
from guardkit.classify.process_pool import processes
from guardkit.classify.ray_pool import require_ray, run_on_ray
from guardkit.classify.records import Summary
from guardkit.classify.run_folder import RunFolder
from guardkit.classify.shards import Input, Shard
from guardkit.classify.worker import WRITES, Do, Facts, Worker, run_here
from guardkit.errors import UsageError
from guardkit.types import Progress

#: A worker process that needs longer for one shard is taken to hang.
SHARD_TIMEOUT_S = 3600.0

Engine = Literal["local", "ray"]


@dataclass
class Outcome:
    """What a run came to. ``set_aside`` names rows that failed every time, with the reason."""

    summary: Summary
    set_aside: dict[str, str] = field(default_factory=dict)
    resumed: int = 0  # rows that an interrupted run had done


def classify_into(
    out: Path,
    source: Input,
    job: Job,
    *,
    resume: bool = False,
    workers: int = 1,
    engine: Engine = "local",
    shard_timeout_s: float | None = None,
    progress: Progress | None = None,
) -> Outcome:
    """Decide every row of ``source`` and write a JSON line for each to ``out``, in order.

    ``out`` appears when all of it is there. Until then the work stands in ``OUT.parts``; with
    ``resume`` an interrupted run goes on from there. Raises UsageError where there is such a
    folder and ``resume`` was not asked for, or where input, policy, model or settings are not
    what they were; RunError and OutputError as ``records.classify`` does. ``engine`` says
    where the workers are: processes of this machine, or a Ray cluster's. A local process that
    needs more than ``shard_timeout_s`` for a shard is killed, and the shard has failed; where a
    limit is given, a single worker is a process, too, and so it is where the run died before at
    the same place.
    """
    if engine == "ray":
        require_ray()
    out = out.resolve()  # a link stays a link, to the new file
    folder = RunFolder(out)
    worker = Worker(job, folder.path)
    with folder.held(), _placed(worker, engine, workers, shard_timeout_s, folder) as do:
        _begin_or_go_on(folder, source, job, resume, progress)
        outcome = _run(folder, source, job, do, progress)
        if not outcome.set_aside:
            folder.clear()
    return outcome


def _begin_or_go_on(
    folder: RunFolder, source: Input, job: Job, resume: bool, progress: Progress | None
) -> None:
    """Read the input once, and see that the folder holds this run's work and no other's."""
    before = folder.manifest()
    if before and not resume:
        raise UsageError(
            f"{folder.path}: an interrupted run left its work here. The same command with "
            "--resume goes on from it; remove the folder to start anew"
        )
    inputs = source.scan(progress)
    settings = job.settings() | {"delimiter": source.delimiter}
    manifest = Manifest(inputs=inputs, settings=settings, offsets=source.offsets())
    if before is None:
        folder.begin(manifest)
    elif changes := before.differences(manifest):
        raise UsageError(
            f"{folder.path}: cannot be resumed: {'; '.join(changes)}. Put it back as it was, "
            "or remove the folder to start anew"
        )


def _run(folder: RunFolder, source: Input, job: Job, do: Do, progress: Progress | None) -> Outcome:
    """Do the shards that are not done, and join the parts of all of them."""
    started = time.perf_counter()
    outcome, done = Outcome(Summary()), folder.done()
    for index in sorted(done):
        facts = folder.facts(index)
        if "set_aside" in facts:  # a run that goes on tries these again
            folder.remove(index)
            done.discard(index)
        else:
            outcome.summary.add(facts["summary"])
    outcome.resumed = outcome.summary.rows

    def finished(shard: Shard, facts: Facts) -> None:
        outcome.summary.add(facts["summary"])
        merging.add(shard.index)
        if "set_aside" in facts:
            for rows, reason in facts["set_aside"].items():
                outcome.set_aside[f"{shard.path}, {rows}"] = reason
        outcome.summary.seconds = time.perf_counter() - started
        if progress:
            note = _note(outcome, outcome.summary.seconds)
            progress("classify", outcome.summary.rows, source.rows or 0, note)

    def again(shard: Shard) -> None:
        """Check that a shard of standard input is what it was when its part was written."""
        if folder.facts(shard.index).get("input") != shard.fingerprint():
            raise UsageError(
                "standard input is not what it was when the run was interrupted; feed it the same "
                f"again, or remove {folder.path} to start anew"
            )

    with folder.merging(done) as merging:
        do(source.shards(job.keep, done, again), finished)
        merging.finish(source.count)
    outcome.summary.seconds = time.perf_counter() - started
    return outcome


@contextmanager
def _placed(
    worker: Worker, engine: Engine, n: int, timeout_s: float | None, folder: RunFolder
) -> Iterator[Do]:
    """Yield what does shards: this process, or ``n`` others, which start up meanwhile.

    Where the run before died and had done no more than what was being written, another process
    does them: a line that kills it is found, as it is where there are several.
    """
    stuck = folder.died_after is not None and folder.died_after <= WRITES
    if engine == "ray":
        yield lambda shards, finished: run_on_ray(shards, worker, n, finished)
    elif n > 1 or timeout_s is not None or stuck:
        with processes(worker, n, timeout_s or SHARD_TIMEOUT_S) as do:
            yield do
    else:
        yield lambda shards, finished: run_here(shards, worker, finished)


def _note(outcome: Outcome, seconds: float) -> str:
    summary = outcome.summary
    fresh = summary.rows - outcome.resumed
    words = [f"{fresh / seconds:,.0f} lines/s" if seconds else ""]
    words += [f"{n:,} {action}" for action, n in sorted(summary.actions.items())]
    if errors := summary.unreadable + summary.undecided:
        words.append(f"{errors:,} errors")
    return ", ".join(words)
