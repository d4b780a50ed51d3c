"""What `guardkit classify` costs beside the network itself: the same batches, both ways.

    python -m benchmarks.engine.pipeline  # -> benchmarks/results/pipeline.json
    python -m benchmarks.tables.fill      # -> docs/results/engine.md

A model of plugin mdlm classifies texts of lognormal length (20 to 512 tokens) from one file into
another: scan, manifest, reading, tokenising, windows, the network, pooling, calibration, parts,
fsync, merge, the loading of the model included. Against it stand the bare forward passes over the
same batches in the same order, those of texts' other readings too, tokens and tensors prepared
beforehand. Both in one process, in turn; the start of Python and the import of torch are in
neither.
"""

from __future__ import annotations

import json
import platform
import statistics
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import torch
import typer
from guardkit_mdlm import inference
from guardkit_mdlm.batches import Batch, pad_batch
from guardkit_mdlm.model import Denoiser
from guardkit_mdlm.scoring import MdlmClassifier
from guardkit_mdlm.tokenizer import encode, read_tokenizer

from benchmarks.engine.sampled_texts import LONGEST, MEDIAN, SHORTEST, SIGMA, sampled_texts
from benchmarks.lib.paths import ROOT
from benchmarks.lib.provenance import commit, machine
from guardkit import load_model
from guardkit.classify.engine import classify_into
from guardkit.classify.job import Job
from guardkit.classify.shards import SHARD_ROWS, Input
from guardkit.model.loaded import Model
from guardkit.text.readings import readings

RESULTS = ROOT / "benchmarks" / "results" / "pipeline.json"
Record = dict[str, Any]


@dataclass(frozen=True)
class Run:
    """One run of either kind. ``in_network``: seconds of it that were the network's own;
    ``times``: seconds by kind of work, where they are known."""

    seconds: float
    in_network: float
    times: Record


@contextmanager
def network_timed() -> Iterator[Callable[[], float]]:
    """Yield what tells the seconds spent in any network's passes since.

    Unlike the ratio of two runs, this share of one is not moved by what else the machine does.
    """
    spent = 0.0
    own = Denoiser.forward, Denoiser.label_logits

    def timed(method: Callable[..., Any]) -> Callable[..., Any]:
        def run(*args: Any, **kwargs: Any) -> Any:
            nonlocal spent
            began = time.perf_counter()
            result = method(*args, **kwargs)
            spent += time.perf_counter() - began
            return result

        return run

    Denoiser.forward, Denoiser.label_logits = map(timed, own)  # type: ignore[method-assign]
    try:
        yield lambda: spent
    finally:
        Denoiser.forward, Denoiser.label_logits = own  # type: ignore[method-assign]


def main(
    model: str = "builtin:mdlm/injection",
    texts: int = 4000,
    repeats: int = 5,
    threads: int = 2,
    seed: int = 0,
    out: Path = RESULTS,
) -> None:
    """Measure MODEL on the CPU, on THREADS of torch's, and store the figures."""
    torch.set_num_threads(threads)
    loaded = load_model(model, device="cpu")
    classifier = loaded.classifier
    assert isinstance(classifier, MdlmClassifier)
    lines = sampled_texts(read_tokenizer(loaded.path), texts, seed)
    batches = list(batches_of(loaded, classifier, lines))
    runs: dict[str, list[Run]] = {"classify": [], "forward": []}
    with TemporaryDirectory() as work:
        source, output = Path(work) / "in.jsonl", Path(work) / "out.jsonl"
        rows = (json.dumps({"id": i, "text": text}) + "\n" for i, text in enumerate(lines))
        source.write_text("".join(rows), "utf-8")
        forward(classifier, batches[:3])  # what is slow but once
        for _ in range(repeats):
            runs["forward"].append(forward(classifier, batches))
            runs["classify"].append(classify(model, source, output))
            print({kind: round(own[-1].seconds, 2) for kind, own in runs.items()})
        assert output.read_bytes().count(b"\n") == texts
    record = {
        "script": "benchmarks/engine/pipeline.py",
        "commit": commit(),
        "machine": machine(),
        "versions": {"python": platform.python_version(), "torch": torch.__version__},
        "model": {"name": model, "hash": loaded.hash, "shape": loaded.config.network["shape"]},
        "texts": {"n": texts, "seed": seed, "median": MEDIAN, "sigma": SIGMA,
                  "shortest": SHORTEST, "longest": LONGEST, "shard": SHARD_ROWS,
                  "other_readings": sum(len(own) for own in read_again(loaded, lines))},
        **padding(batches),
        **summary(runs, texts),
    }  # fmt: skip
    out.write_text(json.dumps(record, indent=1) + "\n", "utf-8")
    print(
        f"written: {out}; classify reaches {record['ratio']:.3f} of the bare forward pass, "
        f"and spends {record['share_in_network']:.3f} of its time inside the network"
    )


def batches_of(loaded: Model, classifier: MdlmClassifier, texts: Sequence[str]) -> Iterator[Batch]:
    """Yield the batches that the plugin runs, shard by shard, in its order."""
    tokenizer = read_tokenizer(loaded.path)
    for start in range(0, len(texts), SHARD_ROWS):
        shard = texts[start : start + SHARD_ROWS]
        others = [reading for own in read_again(loaded, shard) for reading in own]
        for asked in filter(None, (shard, others)):
            pieces, _ = classifier.cut(encode(tokenizer, asked))
            for rows in inference._batches(pieces, inference.BATCH_TOKENS["cpu"]):
                yield pad_batch([pieces[w] for w in rows], np.zeros(len(rows)))


def read_again(loaded: Model, texts: Sequence[str]) -> list[list[str]]:
    """Return the other readings of each text, none of which has a line by itself."""
    return [readings(text, loaded.config.also_read) for text in texts]


def forward(classifier: MdlmClassifier, batches: Sequence[Batch]) -> Run:
    net, device = classifier._joint, torch.device("cpu")
    began = time.perf_counter()
    with torch.inference_mode():
        for batch in batches:
            ids_BL, real_BL, _ = batch.inputs(device)
            slot_BD, _ = net(ids_BL, torch.zeros_like(ids_BL[:, 0]), real_BL)
            net.label_logits(slot_BD, ids_BL, real_BL)
    seconds = time.perf_counter() - began
    return Run(seconds, seconds, {})


def classify(model: str, source: Path, output: Path) -> Run:
    with network_timed() as in_network:
        began = time.perf_counter()
        outcome = classify_into(output, Input(str(source)), Job(model=model, device="cpu"))
        seconds = time.perf_counter() - began
    assert not outcome.set_aside
    assert not outcome.summary.undecided
    return Run(seconds, in_network(), dict(outcome.summary.times))


def padding(batches: Sequence[Batch]) -> Record:
    real = sum(int(batch.real_BL.sum()) for batch in batches)
    computed = sum(batch.real_BL.numel() for batch in batches)
    return {"windows": sum(len(batch.real_BL) for batch in batches), "batches": len(batches),
            "real_tokens": real, "computed_per_real_token": computed / real}  # fmt: skip


def summary(runs: dict[str, list[Run]], texts: int) -> Record:
    """Return medians over the repeats; the ratio is of neighbours, which met the same machine."""
    pairs = zip(runs["forward"], runs["classify"], strict=True)
    median = {kind: statistics.median(r.seconds for r in own) for kind, own in runs.items()}
    names = runs["classify"][0].times
    times = {name: statistics.median(r.times[name] for r in runs["classify"]) for name in names}
    return {
        "seconds": {kind: [r.seconds for r in own] for kind, own in runs.items()},
        "in_network": [r.in_network for r in runs["classify"]],
        "texts_per_s": {kind: texts / seconds for kind, seconds in median.items()},
        "times": times,
        "ratio": statistics.median(f.seconds / c.seconds for f, c in pairs),
        "share_in_network": statistics.median(r.in_network / r.seconds for r in runs["classify"]),
    }


if __name__ == "__main__":
    typer.run(main)
