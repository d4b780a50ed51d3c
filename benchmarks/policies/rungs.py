"""What each rung of the mission's picture is worth: n-grams, the network, GPT-2 behind it.

    python -m benchmarks.policies.rungs PATH/TO/injection   # -> benchmarks/results/rungs.json
    python -m benchmarks.tables.fill                        # -> docs/results/network.md

``guardkit policy frontier`` on the default policy (the network behind the n-grams) and on
mdlm-with-backup (GPT-2, which has learnt from the same text, behind the network), over safe-guard,
a source that no model has learnt from. The scores are kept in ~/.cache, as the command keeps them.
"""

from __future__ import annotations

import json
import platform
from pathlib import Path
from tempfile import TemporaryDirectory

import torch
import typer

from benchmarks.lib.paths import ROOT
from benchmarks.lib.provenance import commit, machine
from benchmarks.policies.bundled_policies import POLICIES, QUOTED, TRIED, file_of, policy, run

RESULTS = ROOT / "benchmarks" / "results" / "rungs.json"
CASCADES = ("default", "mdlm-with-backup")


def main(injection: Path, out: Path = RESULTS) -> None:
    found = {}
    with TemporaryDirectory() as temporary:
        folder = Path(temporary)
        (folder / "data").mkdir()
        (folder / "data" / "injection").symlink_to(injection.resolve(strict=True))
        (folder / "policies").symlink_to(POLICIES)
        for name in CASCADES:
            drawn = folder / name
            words = ("frontier", policy(name), "--data", file_of(QUOTED))
            run(folder, *words, hidden=("--out", str(drawn)))
            swept = json.loads((drawn / "frontier.json").read_text("utf-8"))
            found[name] = {key: value for key, value in swept.items() if key not in TRIED}
    record = {
        "script": "benchmarks/policies/rungs.py",
        "commit": commit(), "machine": machine(),
        "versions": {"python": platform.python_version(), "torch": torch.__version__},
        "set": QUOTED, "cascades": found,
    }  # fmt: skip
    out.write_text(json.dumps(record, indent=1) + "\n", "utf-8")


if __name__ == "__main__":
    typer.run(main)
