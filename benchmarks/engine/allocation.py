"""What keeping freed memory is worth (guardkit/model/allocation.py), scoring on a CPU.

    python -m benchmarks.engine.allocation run  # -> benchmarks/results/allocation.json
    python -m benchmarks.tables.fill            # -> docs/results/engine.md

The same texts in processes of their own, in turn: with malloc as glibc comes, and as guardkit sets
it. Seconds are of the processor, user's and system's: other work on the machine moves them less.
"""

from __future__ import annotations

import json
import os
import platform
import resource
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
import typer

import guardkit
from benchmarks.lib.paths import ROOT, SAMPLE
from benchmarks.lib.provenance import commit, machine
from guardkit.data.examples import load_examples

RESULTS = ROOT / "benchmarks" / "results" / "allocation.json"
#: An empty GLIBC_TUNABLES changes nothing but that guardkit leaves malloc alone.
WAYS: Mapping[str, Mapping[str, str]] = {"as glibc comes": {"GLIBC_TUNABLES": ""}, "kept": {}}
Record = dict[str, Any]
app = typer.Typer(add_completion=False)


@app.command()
def run(model: str = "builtin:mdlm/injection", repeats: int = 5, out: Path = RESULTS) -> None:
    """Measure MODEL both ways, on one thread, and store the figures."""
    torch.set_num_threads(1)
    malloc = {k for k in os.environ if k.startswith("MALLOC_")} | {"GLIBC_TUNABLES"}
    env = {k: v for k, v in os.environ.items() if k not in malloc}
    runs: dict[str, list[Record]] = {way: [] for way in WAYS}
    for _ in range(repeats):
        for way, more in WAYS.items():
            done = subprocess.run(
                [sys.executable, "-m", __spec__.name, "once", model],
                cwd=ROOT, env={**env, **more}, stdout=subprocess.PIPE, check=True,
            )  # fmt: skip
            runs[way].append(json.loads(done.stdout.splitlines()[-1]))
            print(way, runs[way][-1], flush=True)
    record = {
        "script": "benchmarks/engine/allocation.py",
        "commit": commit(),
        "machine": machine(),
        "versions": {"python": platform.python_version(), "torch": torch.__version__,
                     "libc": " ".join(platform.libc_ver())},
        "model": model,
        "runs": runs,
    }  # fmt: skip
    out.write_text(json.dumps(record, indent=1) + "\n", "utf-8")
    print(f"written: {out}")


@app.command()
def once(model: str) -> None:
    """Score the sample's training texts; print seconds, page faults and peak memory."""
    torch.set_num_threads(1)
    loaded = guardkit.load_model(model, device="cpu")
    texts = load_examples(str(SAMPLE))["train"].texts
    loaded.probabilities(texts[:16])
    before = resource.getrusage(resource.RUSAGE_SELF)
    loaded.probabilities(texts)
    after = resource.getrusage(resource.RUSAGE_SELF)
    system = after.ru_stime - before.ru_stime
    print(json.dumps({
        "texts": len(texts),
        "seconds": after.ru_utime - before.ru_utime + system,
        "system_s": system,
        "page_faults": after.ru_minflt - before.ru_minflt,
        "peak_mib": after.ru_maxrss / 1024,
    }))  # fmt: skip


if __name__ == "__main__":
    app()
