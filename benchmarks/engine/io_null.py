"""Lines a second and memory of ``guardkit classify`` where the model costs nothing.

    python -m benchmarks.engine.io_null       # -> benchmarks/results/io_null.json, 15 minutes
    python -m benchmarks.engine.io_null long  # one part of it: long, short, memory, model
    python -m benchmarks.tables.fill          # -> docs/results/engine.md

Every run is the whole command, from its start to the finished file, in processes of its own. The
contenders take turns, --repeats times; a worker has a core to itself, its threads pinned to one.

- guardkit: JSON lines through the router under a policy of one member, every decision written, as
  parts with checksums, flushed to disk. Its model draws its answers (``null_model``).
- datasets: ``load_dataset("json")``, a ``map`` that adds one column of constants, ``to_json``; two
  processes, in batches, caching off. It decides nothing and flushes nothing.
- series: the floor of one core: read, parse ``id`` and ``text`` with msgspec, encode one ready-made
  decision a line, write; no router, no checksums, no guard against a bad line. Two of them at once,
  which share nothing but the machine, show what its second core is worth.
"""

from __future__ import annotations

import json
import platform
import shutil
import statistics
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

import msgspec
import numpy as np
import typer

from benchmarks.engine.timed_command import Took, run
from benchmarks.lib.paths import ROOT
from benchmarks.lib.provenance import commit
from guardkit.calibration.maps import Calibration
from guardkit.evaluation.provenance import provenance
from guardkit.model.artefact import CALIBRATION, CONFIG, ArtefactConfig, seal, write_json

RESULTS = ROOT / "benchmarks" / "results" / "io_null.json"
PLUGIN = ROOT / "benchmarks" / "engine" / "null_model"
LABELS = ["benign", "injection"]
#: kind: (lines, mean characters of a text, spread of their logarithms, the longest)
KINDS = {"long": (1_000_000, 870, 0.8, 8_000), "short": (2_000_000, 60, 0.5, 400)}
MEMORY_LINES = (10_000, 1_000_000)
MODEL = "builtin:mdlm/injection"
MODEL_LINES = 24_000
POLICY = """\
version: 1
name: "null"
members: {only: {plugin: "null", model: model}}
categories:
  injection:
    positive: [injection]
    decide: {member: only}
    flag_at: {probability: 0.5}
    action: flag
"""
DATASETS = """
import sys, datasets
from datasets import load_dataset
source, out, cache = sys.argv[1:]
datasets.disable_caching()
datasets.disable_progress_bars()
data = load_dataset("json", data_files=source, split="train", cache_dir=cache)
data = data.map(lambda batch: {"action": ["allow"] * len(batch["id"])}, batched=True, num_proc=2)
data.to_json(out, num_proc=2)
"""
SERIES = """
import sys, msgspec
class Line(msgspec.Struct):
    id: int
    text: str
source, out, example = sys.argv[1:]
parse, encode = msgspec.json.Decoder(Line).decode, msgspec.json.Encoder().encode_lines
decision = msgspec.json.decode(example.encode())
with open(source, "rb") as lines, open(out, "wb") as output:
    while block := lines.readlines(2**20):
        for line in block:
            parse(line)
        output.write(encode([decision] * len(block)))
"""
#: $0: the output, $1: an example of it, the rest: SERIES up to its input.
TWO_AT_ONCE = 'example=$1; shift; "$@" "$0" "$example" & "$@" "$0.too" "$example" && wait $!'
Record = dict[str, Any]


def main(
    parts: Annotated[list[str] | None, typer.Argument()] = None,
    work: Path = ROOT / "build" / "io_null",
    repeats: int = 3,
    scale: float = 1.0,
    out: Path = RESULTS,
) -> None:
    prepare(work)
    record: Record = json.loads(out.read_text("utf-8")) if out.is_file() else {}
    record |= {
        "script": "benchmarks/engine/io_null.py",
        "seed": 0,
        "results": record.get("results", {}),
    }
    for part in parts or ["long", "short", "memory", "model"]:
        if part in KINDS:
            found = speed(work, part, repeats, scale)
        else:
            found = {"memory": memory, "model": model_bound}[part](work, repeats, scale)
        versions = {name: _version(name) for name in ("msgspec", "datasets", "numpy")}
        made = {**provenance(), "commit": commit(), "kernel": platform.release()}
        record["results"][part] = {**found, "repeats": repeats, "versions": versions, **made}
        print(json.dumps({part: found}, indent=1))
        out.write_text(json.dumps(record, indent=1) + "\n", "utf-8")


def prepare(work: Path) -> None:
    """Make the policy, its model and an installation of the plugin, for runs below ``work``."""
    shutil.rmtree(work, ignore_errors=True)
    info = work / "site" / "guardkit_null-1.dist-info"
    info.mkdir(parents=True)
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: guardkit-null\nVersion: 1\n")
    (info / "entry_points.txt").write_text("[guardkit]\nnull = guardkit_null\n")
    (work / "policy.yaml").write_text(POLICY, "utf-8")
    folder = work / "model"
    folder.mkdir()
    config = ArtefactConfig(family="null", task="multiclass", labels=LABELS, network={})
    write_json(folder / CONFIG, config)
    calibration = Calibration(
        task="multiclass", labels=LABELS, scale=[1.0, 1.0], bias=[0.0, 0.0], prior=[0.5, 0.5],
        n=100, data="0" * 64, ece_before=0, ece_after=0, log_loss_before=0, log_loss_after=0,
    )  # fmt: skip
    write_json(folder / CALIBRATION, calibration)
    seal(folder)


def write_input(path: Path, lines: int, mean: float, sigma: float, longest: int) -> float:
    """Write JSON lines of lognormal length, seed 0; return their mean length in bytes."""
    rng = np.random.default_rng(0)
    words = ["".join(map(chr, rng.integers(97, 123, n))) for n in rng.integers(2, 10, 2000)]
    pool = " ".join(words[i] for i in rng.integers(0, len(words), 100_000))
    lengths = rng.lognormal(np.log(mean) - sigma**2 / 2, sigma, lines).clip(8, longest).astype(int)
    starts = rng.integers(0, len(pool) - longest, lines)
    encode = msgspec.json.Encoder().encode
    with path.open("wb") as file:
        for i, (start, n) in enumerate(zip(starts.tolist(), lengths.tolist(), strict=True)):
            file.write(encode({"id": i, "text": pool[start : start + n]}) + b"\n")
    return path.stat().st_size / lines


def speed(work: Path, kind: str, repeats: int, scale: float) -> Record:
    """Time all contenders on one input, in turn."""
    lines, *shape = KINDS[kind]
    lines = int(lines * scale)
    source, out = work / f"{kind}.jsonl", work / "out.jsonl"
    line_bytes = write_input(source, lines, *shape)
    classify(work, source, out, 1, "--policy", "policy.yaml")  # everything is in the page cache
    example, out_bytes = out.read_text().splitlines()[0], out.stat().st_size / lines
    runs: dict[str, list[Took]] = {}
    for _ in range(repeats):
        for workers in (1, 2):
            took = classify(work, source, out, workers, "--policy", "policy.yaml")
            runs.setdefault(f"guardkit, {workers} workers", []).append(took)
        cache = work / "cache"
        took = run([sys.executable, "-c", DATASETS, source, out, cache], 2)
        runs.setdefault("datasets", []).append(took)
        shutil.rmtree(cache)
        took = run([sys.executable, "-c", SERIES, source, out, example], 1)
        runs.setdefault("series", []).append(took)
        floor = [sys.executable, "-c", SERIES, source]
        took = run(["bash", "-c", TWO_AT_ONCE, out, example, *floor], 2)
        runs.setdefault("two series", []).append(took)
    source.unlink()
    rows = {name: summed(lines, own) for name, own in runs.items()}
    rows["two series"]["lines_per_s"] *= 2  # each did all of them
    return {
        "lines": lines,
        "line_bytes": line_bytes,
        "output_line_bytes": out_bytes,
        "rows": rows,
        "times_datasets": times(rows, "datasets"),
        "times_one_worker": times(rows, "guardkit, 1 workers"),
        "times_series": times(rows, "series"),
        "two_series": 2 / times(rows, "two series", "series"),
    }


def model_bound(work: Path, repeats: int, scale: float) -> Record:
    """Time one worker and two where nearly all the work is a bundled model's."""
    lines, source, out = int(MODEL_LINES * scale), work / "model.jsonl", work / "out.jsonl"
    line_bytes = write_input(source, lines, *KINDS["short"][1:])
    runs: dict[str, list[Took]] = {}
    for _ in range(repeats):
        for workers in (1, 2):
            took = classify(work, source, out, workers, "--model", MODEL)
            runs.setdefault(f"guardkit, {workers} workers", []).append(took)
    rows = {name: summed(lines, own) for name, own in runs.items()}
    return {
        "lines": lines,
        "line_bytes": line_bytes,
        "model": MODEL,
        "rows": rows,
        "times_one_worker": times(rows, "guardkit, 1 workers"),
    }


def memory(work: Path, repeats: int, scale: float) -> Record:
    """Measure the peak memory of all processes together, over few lines and many."""
    _, *shape = KINDS["short"]
    rows: dict[str, Record] = {}
    for lines in MEMORY_LINES:
        lines, source = int(lines * scale), work / "memory.jsonl"
        write_input(source, lines, *shape)
        for workers in (1, 2):
            out = work / "out.jsonl"
            taken = [
                classify(work, source, out, workers, "--policy", "policy.yaml", watched=True)
                for _ in range(repeats)
            ]
            peak = statistics.median(took.peak_bytes for took in taken)
            rows.setdefault(f"{workers} workers", {})[str(lines)] = peak
    growth = {name: max(row.values()) / min(row.values()) - 1 for name, row in rows.items()}
    return {"rows": rows, "growth": growth}


def classify(
    work: Path, source: Path, out: Path, workers: int, *by: str, watched: bool = False
) -> Took:
    out.unlink(missing_ok=True)
    command = [sys.executable, "-m", "guardkit", "classify", source, *by, "--out", out]
    command += ["--workers", str(workers)]
    return run(command, workers, cwd=work, modules=[work / "site", PLUGIN], watched=watched)


def summed(lines: int, runs: Sequence[Took]) -> Record:
    """Return the medians of repeated runs, and every run's seconds."""
    seconds = [one.seconds for one in runs]
    median = statistics.median(seconds)
    return {
        "lines_per_s": lines / median,
        "cpu_us_per_line": 1e6 * statistics.median(one.cpu_seconds for one in runs) / lines,
        "seconds": seconds,
    }


def times(rows: Record, other: str, one: str = "guardkit, 2 workers") -> float:
    """Return how many times as fast as ``other`` ``one`` was: of runs that followed each other,
    which met the same machine, the median."""
    pairs = zip(rows[other]["seconds"], rows[one]["seconds"], strict=True)
    return statistics.median(a / b for a, b in pairs)


def _version(package: str) -> str:
    from importlib.metadata import version

    return version(package)


if __name__ == "__main__":
    typer.run(main)
