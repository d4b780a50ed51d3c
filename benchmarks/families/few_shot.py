"""The bundled injection detector, shown n attacks of a family from a source it never saw.

    python -m benchmarks.families.few_shot PATH/TO/injection  # -> benchmarks/results/few_shot.json
    python -m benchmarks.tables.fill                          # -> docs/results/novel-families.md

What ``guardkit adapt builtin:injection`` makes of n examples, drawn anew for
each seed, on the other attacks of their family. The threshold is the bundled model's at 1% of the
benign texts it remembers, and stays: it is where a policy had it. Families: rules.py, of
safe-guard. Texts of one group of near-duplicates are never both shown and measured on.
"""

from __future__ import annotations

import json
import platform
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
import typer
from guardkit_mdlm.adaptation.class_rows import AddedRows, Contrast, fit_row, log_odds
from guardkit_mdlm.adaptation.remembered import Windows, load_remembered, read_windows
from guardkit_mdlm.loading import load_network
from guardkit_mdlm.tokenizer import encode, read_tokenizer

from benchmarks.families.rules import family_of
from benchmarks.lib.detection import attacks
from benchmarks.lib.paths import ROOT
from benchmarks.lib.provenance import commit, machine
from guardkit.data.examples import load_examples
from guardkit.model.loaded import Model, load_model
from guardkit.types import BoolArray

RESULTS = ROOT / "benchmarks" / "results" / "few_shot.json"
MODEL = "builtin:mdlm/injection"
SOURCE, BENIGN = "ood_safeguard", ("ood_safeguard", "ood_notinject")
SHOTS, SEEDS, FPR = (0, 1, 2, 4, 8, 16), 10, 0.01
#: Groups of near-duplicates without which a family is not measured.
LEAST_GROUPS = 20
Record = dict[str, Any]


@dataclass(frozen=True)
class Family:
    """Attacks of one kind, and the group of near-duplicates of each."""

    attacks: Windows
    groups_N: npt.NDArray[np.str_]

    def split(self, n: int, seed: int) -> tuple[Windows, Windows]:
        """Return n attacks of as many groups, and all attacks of other groups."""
        order_G = np.random.default_rng(seed).permutation(np.unique(self.groups_N))
        first = [int(np.flatnonzero(self.groups_N == g)[0]) for g in order_G[:n]]
        rest_N = np.flatnonzero(~np.isin(self.groups_N, order_G[:n]))
        return self.attacks.of_texts(first), self.attacks.of_texts(rest_N.tolist())


class Detector:
    """The bundled model, and what it makes of texts with a row or without."""

    def __init__(self, model: Model) -> None:
        config = model.config
        self.net, self.tokenizer = load_network(model.path).eval(), read_tokenizer(model.path)
        self.cut = {name: int(config.network[f"{name}_tokens"]) for name in ("window", "overlap")}
        self.how = (config.window_pooling, config.neutral_index)
        self.label = config.labels.index("injection")
        self.known = load_remembered(model.path)
        self.contrast = Contrast(self.known, self.label, *self.how)
        self.benign_N: BoolArray = self.known.labels_N != self.label
        self.threshold = float(np.quantile(self.odds(self.known)[self.benign_N], 1 - FPR))

    def read(self, texts: Sequence[str]) -> Windows:
        labels_N = np.full(len(texts), self.label)
        ids = encode(self.tokenizer, texts)
        return read_windows(self.net, ids, labels_N, device=torch.device("cpu"), **self.cut)

    def odds(self, texts: Windows, rows: AddedRows | None = None) -> npt.NDArray[np.float64]:
        if rows is not None:
            texts = replace(texts, logits_WC=rows.of(texts.logits_WC, texts.sketch_WK))
        return log_odds(texts.pooled(*self.how), self.label)

    def flagged(self, texts: Windows, rows: AddedRows | None) -> float:
        return float((self.odds(texts, rows) > self.threshold).mean())


def main(injection: Path, out: Path = RESULTS) -> None:
    torch.set_num_threads(1)
    model = load_model(MODEL, device="cpu")
    detector = Detector(model)
    families = families_of(injection, detector)
    benign = {name: detector.read(benign_texts(injection, name)) for name in BENIGN}
    known = detector.known.of_texts(np.flatnonzero(~detector.benign_N).tolist())
    points, seconds = [], []
    for name, family in families.items():
        print(f"{name}: {len(family.attacks)} attacks", flush=True)
        for n in SHOTS:
            for seed in range(SEEDS):
                shown, rest = family.split(n, seed)
                began, rows = time.perf_counter(), None
                if n:
                    rows = fit_row(shown, detector.contrast, AddedRows(0))
                    seconds.append(time.perf_counter() - began)
                points.append({
                    "family": name, "n": n, "seed": seed, "recall": detector.flagged(rest, rows),
                    "known": detector.flagged(known, rows),
                    **{of: detector.flagged(texts, rows) for of, texts in benign.items()},
                })  # fmt: skip
    record = {
        "script": "benchmarks/families/few_shot.py", "commit": commit(), "machine": machine(),
        "versions": {"python": platform.python_version(), "torch": torch.__version__},
        "model": model.hash, "seeds": SEEDS, "fpr": FPR, "fit_s": float(np.median(seconds)),
        "counts": {
            "families": {name: len(f.attacks) for name, f in families.items()},
            "known": len(known), **{name: len(texts) for name, texts in benign.items()},
        },
        "mean": averages(points), "points": points,
    }  # fmt: skip
    out.write_text(json.dumps(record, indent=1) + "\n", "utf-8")
    print(
        *(f"n = {one['n']}: {one['recall']['value']:.1%} found" for one in record["mean"]), sep="\n"
    )


def families_of(injection: Path, detector: Detector) -> dict[str, Family]:
    """Return the attack families that have enough groups, what no rule claims among them."""
    texts: dict[str, list[str]] = {}
    groups: dict[str, list[str]] = {}
    examples = load_examples(f"{injection}?split={SOURCE}")[SOURCE]
    own = examples.select(np.flatnonzero(attacks(examples)))
    for text, group in zip(own.texts, own.groups, strict=True):
        name = family_of(text, SOURCE)
        texts.setdefault(name, []).append(text)
        groups.setdefault(name, []).append(group)
    return {
        name: Family(detector.read(found), np.array(groups[name]))
        for name, found in texts.items() if len(set(groups[name])) >= LEAST_GROUPS
    }  # fmt: skip


def benign_texts(injection: Path, split: str) -> list[str]:
    examples = load_examples(f"{injection}?split={split}")[split]
    return examples.select(np.flatnonzero(~attacks(examples))).texts


def averages(points: Sequence[Record], resamples: int = 2000) -> list[Record]:
    """Return, for each n, each measure's mean over families and seeds, and its 95% interval
    when families, and seeds within them, are drawn again."""
    names = list(dict.fromkeys(p["family"] for p in points))
    found = []
    for n in SHOTS:
        one: Record = {"n": n}
        for measure in ("recall", "known", *BENIGN):
            values_FS = np.array([
                [p[measure] for p in points if p["family"] == name and p["n"] == n]
                for name in names
            ])  # fmt: skip
            rng = np.random.default_rng(0)
            F, S = values_FS.shape
            draws = values_FS[
                rng.integers(F, size=(resamples, F))[:, :, None],
                rng.integers(S, size=(resamples, F, S)),
            ].mean((1, 2))
            low, high = np.quantile(draws, [0.025, 0.975])
            value = values_FS.mean()
            one[measure] = {"value": float(value), "low": float(low), "high": float(high)}
        found.append(one)
    return found


if __name__ == "__main__":
    typer.run(main)
