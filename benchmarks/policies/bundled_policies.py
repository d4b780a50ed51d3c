"""The policy commands on the bundled policies, run as a user runs them over labelled injections.

    python -m benchmarks.policies.bundled_policies PATH/TO/injection  # -> results/policies.json
    python -m benchmarks.tables.fill                                  # -> docs/results/policies.md

PATH/TO/injection is the folder that ``injection/bundled_models.py`` takes. No model learnt from a
text of the files used here; of those whose name begins with ``ood_`` no source is known to any.
Every command runs in a folder that holds ``policies`` and, as ``data/injection``, that data, so
that what is stored is what a reader sees who types it. The picture of ``policy frontier`` goes to
docs/results. Texts are quoted from ``QUOTED`` alone. An interrupted run goes on where it was, at
one commit.
"""

from __future__ import annotations

import json
import os
import platform
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch
import typer

from benchmarks.lib.paths import ROOT
from benchmarks.lib.provenance import commit, machine
from guardkit import load_policy
from guardkit.model.artefact import write_json

RESULTS = ROOT / "benchmarks" / "results" / "policies.json"
PICTURE = ROOT / "docs" / "results" / "frontier.svg"
POLICIES = ROOT / "policies"
BUILD = ROOT / "build" / "policies"
#: The longest texts (BIPIA, jackhhao) are left to ``bundled_models.py``, which reads them once.
SETS = ("test", "ood_deepset_test", "ood_safeguard", "ood_notinject")
#: Those with negatives and positives enough for ``policy frontier``.
SWEPT = ("test", "ood_safeguard")
#: Whose sweep is drawn, and of which a few texts are quoted: no model knows its source.
QUOTED = "ood_safeguard"
#: Not about injections, or with a member that is somewhere else.
ELSEWHERE = ("mdlm-with-llm", "medical-abstracts")
OLD, NEW = "default", "mdlm-with-backup"
COLUMNS = 120  # characters a line
SEED = 0  # the commands' own
#: What a sweep tried, thousands of points: left out of what is stored.
TRIED = ("points", "better")

Record = dict[str, Any]


def main(injection: Path, out: Path = RESULTS, picture: Path = PICTURE) -> None:
    with TemporaryDirectory() as temporary:
        folder = Path(temporary)
        (folder / "data").mkdir()
        (folder / "data" / "injection").symlink_to(injection.resolve(strict=True))
        (folder / "policies").symlink_to(POLICIES)
        record = {
            "script": "benchmarks/policies/bundled_policies.py",
            "commit": commit(),
            "machine": machine(),
            "versions": {"python": platform.python_version(), "torch": torch.__version__},
            "seed": SEED,
            **identities(),
            "check": [run(folder, "check", policy(name)) for name in bundled()],
            "test": [
                once(f"test-{name}-{data}", partial(tested, folder, name, data))
                for name in bundled()
                for data in SETS
            ],
            "diff": [once(f"diff-{data}", partial(compared, folder, data)) for data in SETS],
            "frontier": [
                once(f"frontier-{data}", partial(swept, folder, data, picture)) for data in SWEPT
            ],
        }
    out.write_text(json.dumps(record, indent=1, ensure_ascii=False) + "\n", "utf-8")


def once(name: str, make: Callable[[], Record]) -> Record:
    """Return what ``make`` does, or did in an earlier run at this commit."""
    file = BUILD / commit() / f"{name}.json"
    if not file.is_file():
        file.parent.mkdir(parents=True, exist_ok=True)
        partial_file = file.with_suffix(".partial")
        write_json(partial_file, make())
        partial_file.replace(file)
    made: Record = json.loads(file.read_text("utf-8"))
    return made


def bundled() -> list[str]:
    """Return the policies about injections."""
    return sorted(path.stem for path in POLICIES.glob("*.yaml") if path.stem not in ELSEWHERE)


def policy(name: str) -> str:
    return f"policies/{name}.yaml"


def identities() -> Record:
    """Return the hash of every policy, and of every model they name."""
    routers = {name: load_policy(POLICIES / f"{name}.yaml") for name in bundled()}
    models = {
        f"{router.policy.members[member].plugin}/{router.sources[member].folder.name}": found
        for router in routers.values()
        for member, found in router.model_hashes().items()
    }
    hashes = {name: router.hash for name, router in routers.items()}
    return {"policies": hashes, "models": dict(sorted(models.items()))}


def run(folder: Path, *words: str, hidden: tuple[str, ...] = ()) -> Record:
    """Run ``guardkit policy``; return the command, without what is ``hidden``, and its output."""
    print(f"guardkit policy {' '.join(words)}", file=sys.stderr, flush=True)
    started = time.monotonic()
    done = subprocess.run(
        [sys.executable, "-m", "guardkit", "policy", *words, *hidden],
        cwd=folder, check=True, stdout=subprocess.PIPE, text=True, encoding="utf-8",
        env=os.environ | {"COLUMNS": str(COLUMNS)},
    )  # fmt: skip
    return {
        "command": f"guardkit policy {' '.join(words)}",
        "seconds": round(time.monotonic() - started, 1),
        "output": done.stdout.rstrip(),
    }


def tested(folder: Path, name: str, data: str) -> Record:
    result = run(folder, "test", policy(name), "--data", file_of(data))
    figures = list(measured(result["output"]))
    return {"policy": name, "set": data, **result, "categories": figures}


def measured(output: str) -> Iterator[Record]:
    """Yield the figures of what ``policy test --data`` printed, a record a category."""
    table = output[output.index("┃ category") :]
    for line in table.splitlines():
        cells = [cell.strip() for cell in line.strip("│").split("│")]
        if len(cells) == 6:
            name, positives, recall, of_recall, fpr, of_fpr = cells
            yield {
                "category": name,
                "positives": int(positives.replace(",", "")),
                "recall": _interval(recall, of_recall),
                "fpr": _interval(fpr, of_fpr),
            }


def _interval(value: str, ends: str) -> Record:
    if value == "-":
        return dict.fromkeys(("value", "low", "high"))
    low, high = map(float, ends.split(" to "))
    return {"value": float(value), "low": low, "high": high}


def compared(folder: Path, data: str) -> Record:
    stored = folder / "diff.json"
    shown = "4" if data == QUOTED else "0"
    words = ("diff", policy(OLD), policy(NEW), "--data", file_of(data), "--show", shown)
    result = run(folder, *words, hidden=("--json", str(stored)))
    found = json.loads(stored.read_text("utf-8"))
    kept = {key: found[key] for key in ("rows", "categories")}
    return {"set": data, **result, **kept, "flips": len(found["flips"])}


def swept(folder: Path, data: str, picture: Path) -> Record:
    drawn = folder / "frontier"
    # scored anew, so that the times are this run's
    hidden = ("--cache", str(folder / "cache"), "--out", str(drawn))
    result = run(folder, "frontier", policy(NEW), "--data", file_of(data), hidden=hidden)
    load = os.getloadavg()[1]  # of five minutes: what the times are worth
    lines = [line for line in result["output"].splitlines() if str(drawn) not in line]
    found = json.loads((drawn / "frontier.json").read_text("utf-8"))
    kept = {key: value for key, value in found.items() if key not in (*TRIED, "policy")}
    counts = {key: len(found[key]) for key in TRIED}
    if data == QUOTED:
        picture.write_bytes((drawn / "frontier.svg").read_bytes())
    return {"set": data, **result, "output": "\n".join(lines), "load": load, **kept, **counts}


def file_of(data: str) -> str:
    return f"data/injection/{data}.parquet"


if __name__ == "__main__":
    typer.run(main)
