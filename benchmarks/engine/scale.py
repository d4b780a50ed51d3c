"""One worker against two, and two of this machine's own against two on Ray, side by side.

    python -m benchmarks.engine.scale model     # -> benchmarks/results/scale.json
    python -m benchmarks.engine.scale patterns  # the same file
    python -m benchmarks.tables.fill            # -> docs/results/engine.md

`model`: texts of 20 to 512 tokens through a bundled model of plugin mdlm, one thread a worker;
`patterns`: short lines through a policy without a model. Each way is one run of
``guardkit classify``, one worker's on one core. What the machine's second core is worth to such
work is seen from two runs at once that share nothing: each has one worker, one core and half of
the lines. Ray's cluster costs something where nobody asks it for anything, so it stands for the
last two ways alone, two workers beside it and two on it; it is there before the clock starts. The
start of Python and of the workers, here and there, is in the figures.
"""

from __future__ import annotations

import json
import os
import platform
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from enum import StrEnum
from hashlib import sha256
from importlib.metadata import version
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import ray
import typer

from benchmarks.engine.timed_command import run
from benchmarks.lib.paths import ROOT
from benchmarks.lib.provenance import commit, machine

RESULTS = ROOT / "benchmarks" / "results" / "scale.json"
MODEL = "builtin:mdlm/injection"
POLICY = """
version: 1
name: patterns
categories:
  odd: {positive: [odd], decide: {pattern: {re2: "[13579]$"}}, flag_at: {probability: 0.5}, action: flag}
"""  # noqa: E501
LOCAL = {"1 worker": 1, "2 workers": 2}
APART = "2 runs of half each"
WITH_CLUSTER = {"2 workers beside Ray": "local", "2 workers on Ray": "ray"}
Record = dict[str, Any]


class Kind(StrEnum):
    model = "model"
    patterns = "patterns"


def main(kind: Kind, rows: int = 0, repeats: int = 3, out: Path = RESULTS) -> None:
    """Measure KIND of work, ways in turn, and store the figures beside the other kind's."""
    rows = rows or {Kind.model: 8000, Kind.patterns: 4_000_000}[kind]
    seconds: dict[str, list[float]] = {way: [] for way in (*LOCAL, APART, *WITH_CLUSTER)}
    with TemporaryDirectory() as work:
        folder = Path(work)
        source, by = prepare(kind, folder, rows)
        halves = cut(source)
        bytes_of = set()

        def classify(source: Path, engine: str, workers: int) -> list[str | Path]:
            source.with_suffix(".out").unlink(missing_ok=True)
            command = [sys.executable, "-m", "guardkit", "classify", source, *by]
            command += ["--workers", str(workers), "--engine", engine]
            return [*command, "--out", source.with_suffix(".out")]

        def measure(way: str, engine: str, workers: int) -> None:
            took = run(classify(source, engine, workers), workers)
            seconds[way].append(took.seconds)
            bytes_of.add(sha256(source.with_suffix(".out").read_bytes()).digest())
            print(way, round(seconds[way][-1], 2), flush=True)

        for _ in range(repeats):
            for way, workers in LOCAL.items():
                measure(way, "local", workers)
            seconds[APART].append(at_once([classify(half, "local", 1) for half in halves]))
            both = b"".join(half.with_suffix(".out").read_bytes() for half in halves)
            bytes_of.add(sha256(both).digest())
            print(APART, round(seconds[APART][-1], 2), flush=True)
            with cluster():
                for way, engine in WITH_CLUSTER.items():
                    measure(way, engine, 2)
        assert len(bytes_of) == 1, "where the workers are must not change a byte"
    one, two, apart, beside, there = seconds.values()
    record = json.loads(out.read_text("utf-8")) if out.is_file() else {}
    record[kind.value] = {
        "script": "benchmarks/engine/scale.py",
        "commit": commit(),
        "machine": machine(),
        "versions": {"python": platform.python_version(), "torch": version("torch"),
                     "ray": ray.__version__},
        "rows": rows,
        "seconds": seconds,
        "rows_per_s": {way: rows / statistics.median(own) for way, own in seconds.items()},
        "speed_up": statistics.median(a / b for a, b in zip(one, two, strict=True)),
        "speed_up_apart": statistics.median(a / d for a, d in zip(one, apart, strict=True)),
        "ray_of_local": statistics.median(b / c for b, c in zip(beside, there, strict=True)),
    }  # fmt: skip
    out.write_text(json.dumps(record, indent=1) + "\n", "utf-8")
    own = record[kind.value]
    print(
        f"written: {out}; {own['speed_up']:.2f} x by two workers, {own['speed_up_apart']:.2f} x "
        f"by two runs that share nothing, Ray reaches {own['ray_of_local']:.2f} of the workers"
    )


@contextmanager
def cluster() -> Iterator[None]:
    """A cluster of Ray's on this machine, where RAY_ADDRESS says that it is."""
    ray.init(address="local", num_cpus=2, include_dashboard=False, log_to_driver=False)
    os.environ["RAY_ADDRESS"] = ray.get_runtime_context().gcs_address
    try:
        yield
    finally:
        del os.environ["RAY_ADDRESS"]
        ray.shutdown()


def cut(source: Path) -> list[Path]:
    """Write the two halves of a file of lines, and return their paths."""
    lines = source.read_bytes().splitlines(keepends=True)
    middle = len(lines) // 2
    halves = [source.with_name("first.jsonl"), source.with_name("second.jsonl")]
    for half, own in zip(halves, (lines[:middle], lines[middle:]), strict=True):
        half.write_bytes(b"".join(own))
    return halves


def at_once(commands: Sequence[Sequence[str | Path]]) -> float:
    """Run commands at once, each on a core of its own; return the seconds until the last ended."""
    cores, began = sorted(os.sched_getaffinity(0)), time.perf_counter()
    assert len(cores) >= len(commands), "too few cores"
    processes = [
        subprocess.Popen(
            ["taskset", "--cpu-list", str(core), *map(str, command)],
            env=os.environ | {"OMP_NUM_THREADS": "1"}, stderr=subprocess.PIPE,
        )
        for core, command in zip(cores, commands, strict=False)
    ]  # fmt: skip
    for process in processes:
        _, said = process.communicate()
        if process.returncode:
            raise SystemExit(f"{process.args} failed: {said.decode()}")
    return time.perf_counter() - began


def prepare(kind: Kind, folder: Path, rows: int) -> tuple[Path, list[str | Path]]:
    """Write the input; return it, and what judges it as options of ``guardkit classify``."""
    by: list[str | Path]
    source = folder / "in.jsonl"
    if kind is Kind.model:
        from guardkit_mdlm.tokenizer import read_tokenizer

        from benchmarks.engine.sampled_texts import sampled_texts
        from guardkit import load_model

        texts = sampled_texts(read_tokenizer(load_model(MODEL, device="cpu").path), rows, 0)
        by = ["--model", MODEL, "--device", "cpu"]
    else:
        texts = [f"text number {i}" for i in range(rows)]
        (folder / "policy.yaml").write_text(POLICY, "utf-8")
        by = ["--policy", folder / "policy.yaml"]
    lines = (json.dumps({"id": i, "text": text}) + "\n" for i, text in enumerate(texts))
    source.write_text("".join(lines), "utf-8")
    return source, by


if __name__ == "__main__":
    typer.run(main)
