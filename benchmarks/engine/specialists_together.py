"""What asking a policy's specialists together saves: in threads, or by a pass in common.

    python -m benchmarks.engine.specialists_together  # -> results/specialists_together.json
    python -m benchmarks.tables.fill                  # -> docs/results/specialists.md

Every way is timed in one process, in turn, --repeats times, on the CPU; a ratio is of neighbours,
which met the same machine. Scores are compared to the bit.

- independent: the three specialists of policies/specialists.yaml, one after another, and each in a
  thread of its own, which has torch's two threads or one.
- tokenising: what of their time it takes, the most that a tokenizer in common could save.
- adapted: a bundled model and two adapted from it, each scored alone, and with the one pass of the
  network in common; torch has one thread. Their rows are random, on which no time depends.
"""

from __future__ import annotations

import json
import os
import platform
import shutil
import statistics
import time
from collections.abc import Callable, Hashable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import torch
import typer
from guardkit_mdlm.adaptation.class_rows import AddedRows
from guardkit_mdlm.adaptation.sketch import BUCKETS
from guardkit_mdlm.tokenizer import encode, read_tokenizer

from benchmarks.engine.sampled_texts import sampled_texts
from benchmarks.lib.paths import ROOT
from benchmarks.lib.provenance import commit, machine
from guardkit import load_model
from guardkit.model.artefact import SUMS, seal
from guardkit.model.loaded import Model
from guardkit.model.scored import Scored

RESULTS = ROOT / "benchmarks" / "results" / "specialists_together.json"
BASE = "builtin:mdlm/injection"
SPECIALISTS = (BASE, "builtin:mdlm/toxicity", "builtin:mdlm/spam")
Record = dict[str, Any]
Way = Callable[[], list[Scored]]


def main(texts: int = 64, repeats: int = 5, seed: int = 0, out: Path = RESULTS) -> None:
    """Measure batches of TEXTS texts, and of one, and store the figures."""
    load, _, _ = os.getloadavg()
    models = [load_model(name, device="cpu") for name in SPECIALISTS]
    batch = sampled_texts(read_tokenizer(models[0].path), texts, seed)
    rows = []
    with TemporaryDirectory() as work:
        adapted = [models[0], *(adapt(models[0], Path(work) / str(i), i) for i in range(2))]
        for own in (batch, batch[:1]):
            torch.set_num_threads(1)
            together = {"one pass": one_pass(adapted, own)}
            shared = compare(separate(adapted, own), together, repeats)
            torch.set_num_threads(2)
            found = independent(models, own, repeats)
            rows.append({"texts": len(own), "independent": found, "adapted": shared})
            medians = {**shared["times"], **found["times"]}
            print(len(own), {way: round(statistics.median(t), 2) for way, t in medians.items()})
    record: Record = {
        "script": "benchmarks/engine/specialists_together.py",
        "commit": commit(),
        "machine": machine(),
        "load": load,
        "versions": {"python": platform.python_version(), "torch": torch.__version__},
        "seed": seed,
        "repeats": repeats,
        "rows": rows,
    }
    out.write_text(json.dumps(record, indent=1) + "\n", "utf-8")


def independent(models: Sequence[Model], texts: Sequence[str], repeats: int) -> Record:
    """Return what threads are worth to models that share nothing, and where their time goes."""
    tokenizers = [read_tokenizer(model.path) for model in models]
    parts = {"tokenising": lambda: [encode(tokenizer, texts) for tokenizer in tokenizers]}
    parts |= {
        name: partial(model.score, texts) for name, model in zip(SPECIALISTS, models, strict=True)
    }

    def within(pool: ThreadPoolExecutor) -> Way:
        return lambda: list(pool.map(lambda model: model.score(texts), models))

    with _pool(len(models), 2) as two, _pool(len(models), 1) as one:
        ways = {
            "a thread each, torch has two": within(two),
            "a thread each, torch has one": within(one),
        }
        return compare(separate(models, texts), ways, repeats, parts)


def _pool(size: int, of_torch: int) -> ThreadPoolExecutor:
    return ThreadPoolExecutor(size, initializer=torch.set_num_threads, initargs=(of_torch,))


def separate(models: Sequence[Model], texts: Sequence[str]) -> Way:
    return lambda: [model.score(texts) for model in models]


def one_pass(models: Sequence[Model], texts: Sequence[str]) -> Way:
    """Return how a policy asks them: what one leaves for the others lasts for one batch."""

    def way() -> list[Scored]:
        shared: dict[Hashable, Any] = {}
        return [model.score(texts, shared=shared) for model in models]

    return way


def compare(
    usual: Way,
    others: dict[str, Way],
    repeats: int,
    parts: Mapping[str, Callable[[], object]] | None = None,
) -> Record:
    """Time all ways in turn; ``times`` is how many times as fast as the usual one each other is.
    ``parts`` of the work take turns with them."""
    ways = {"one after another": usual, **others}
    scores = {name: way() for name, way in ways.items()}  # the first run is slow
    everything = {**ways, **(parts or {})}
    seconds: dict[str, list[float]] = {name: [] for name in everything}
    for _ in range(repeats):
        for name, work in everything.items():
            seconds[name].append(timed(work))
    alone = scores["one after another"]
    return {
        "seconds": seconds,
        "times": {
            name: [a / b for a, b in zip(seconds["one after another"], seconds[name], strict=True)]
            for name in others
        },
        "equal": {name: all(map(_equal, alone, scores[name])) for name in others},
    }


def adapt(base: Model, folder: Path, seed: int) -> Model:
    """Copy ``base``, add a row of chance to it and load it."""
    shutil.copytree(base.path, folder, ignore=shutil.ignore_patterns(SUMS))
    weight_K = np.random.default_rng(seed).normal(size=BUCKETS).astype(np.float32)
    AddedRows(0).with_row(weight_K, 0.0, 9.0, 0.0, 1).save(folder)
    seal(folder)
    return load_model(folder, device="cpu")


def timed(work: Callable[[], object]) -> float:
    began = time.perf_counter()
    work()
    return time.perf_counter() - began


def _equal(one: Scored, other: Scored) -> bool:
    return np.array_equal(one.logits_NC, other.logits_NC)


if __name__ == "__main__":
    typer.run(main)
