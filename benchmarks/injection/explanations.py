"""Is the evidence that ``guardkit explain`` shows faithful to the deployed score?

    python -m benchmarks.injection.explanations MODEL PATH/TO/injection

Deletes from the texts of the test split that MODEL flags, attacks and benign ones apart, the
pieces with the most evidence for the flagged label, and asks MODEL again, as deployed: other
readings, windows and calibration included. Against as many pieces drawn at random (the mean of
several draws) and as many with the least evidence. A piece is what the page colours: a token, or
the tokens that are bytes of one character. -> benchmarks/results/explanations.json
"""

from __future__ import annotations

import json
import math
import random
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import typer

from benchmarks.lib.detection import SEED, log_odds, share
from benchmarks.lib.paths import ROOT
from benchmarks.lib.provenance import commit, machine
from guardkit.data.examples import load_examples
from guardkit.data.splits import group_names
from guardkit.evaluation.explanation import Explanation, Piece, explain
from guardkit.model.loaded import Model, load_model
from guardkit.types import FloatArray

RESULTS = ROOT / "benchmarks" / "results" / "explanations.json"
DRAWS, TEXTS = 5, 200
SHORTEST, LONGEST = 8, 256  # pieces
#: Pieces to delete, as a number or as a share of the text's.
DELETED: tuple[int | float, ...] = (1, 2, 4, 8, 0.1, 0.2)
LABEL = "injection"
CHUNK = 500


@dataclass(frozen=True)
class Flagged:
    """A text that the model flags, the log-odds it was flagged with, and why."""

    explanation: Explanation
    odds: float
    group: str


def main(model: str, injection: Path, texts: int = TEXTS, out: Path = RESULTS) -> None:
    loaded = load_model(model)
    record: dict[str, Any] = {"script": "benchmarks/injection/explanations.py", "models": {}}
    if out.is_file():
        record = json.loads(out.read_text("utf-8"))
    flagged = {kind: flagged_texts(loaded, injection, kind, texts) for kind in (LABEL, "benign")}
    first = next((f for found in flagged.values() for f in found), None)
    if first is None:
        raise typer.BadParameter(f"{model} flags none of the test split's texts")
    record["models"][model] = {
        "commit": commit(), "machine": machine(), "hash": loaded.hash, "seed": SEED,
        "scorer": first.explanation.scorer, "label": first.explanation.label, "draws": DRAWS,
        "conditions": f"texts of {SHORTEST} to {LONGEST} pieces of the test split, at most {texts} "
        f"of a kind, and at least twice as many pieces as are deleted; bootstrap over groups of "
        f"near-duplicates, seed {SEED}",
        "kinds": {kind: measured(loaded, found) for kind, found in flagged.items() if found},
    }  # fmt: skip
    out.write_text(json.dumps(record, indent=1) + "\n", "utf-8")


def flagged_texts(model: Model, injection: Path, kind: str, most: int) -> list[Flagged]:
    """Return up to ``most`` texts labelled ``kind`` that the model flags at probability 0.5."""
    test = load_examples(str(injection))["test"]
    own = [i for i, y in enumerate(test.labels_N) if test.label_names[y] == kind]
    random.Random(SEED).shuffle(own)
    groups, found = group_names(test), list[Flagged]()
    for start in range(0, len(own), CHUNK):
        part = own[start : start + CHUNK]
        odds_N = log_odds(model, [test.texts[i] for i in part])
        for i, value in zip(part, odds_N.tolist(), strict=True):
            if value > 0 and len(found) < most:
                explanation = explain(model, test.texts[i])
                if SHORTEST <= len(explanation.pieces) <= LONGEST:
                    found.append(Flagged(explanation, value, groups[i]))
    return found


def measured(model: Model, flagged: Sequence[Flagged]) -> dict[str, Any]:
    rows = []
    for much in DELETED:
        usable = [f for f in flagged if 2 * how_many(much, f) <= len(f.explanation.pieces)]
        if not usable:
            continue
        row = deleted(model, usable, much)
        rows.append(row)
        shown = {name: row["drop"][name]["value"] for name in row["drop"]}
        print(model.path.name, much, len(usable), shown, flush=True)
    return {"texts": len(flagged), "rows": rows}


def deleted(model: Model, flagged: Sequence[Flagged], much: int | float) -> dict[str, Any]:
    """Return how far log-odds fall, and how many texts are no longer flagged, for each choice of
    the pieces to delete; ``gain`` compares two choices on the same texts."""
    rng = random.Random(SEED)
    drops, chars = dict[str, FloatArray](), dict[str, float]()
    for choice, draws in (("top", 1), ("random", DRAWS), ("lowest", 1)):
        cut = [without(f.explanation.text, chosen(f, choice, much, rng))
               for f in flagged for _ in range(draws)]  # fmt: skip
        before_ND = np.repeat([f.odds for f in flagged], draws).reshape(-1, draws)
        drops[choice] = before_ND - scores(model, cut).reshape(-1, draws)
        lengths = [len(f.explanation.text) for f in flagged for _ in range(draws)]
        chars[choice] = float(np.mean([1 - len(c) / n for c, n in zip(cut, lengths, strict=True)]))
    odds_N1 = np.array([[f.odds] for f in flagged])
    flips = {name: (drop_ND >= odds_N1).mean(1) for name, drop_ND in drops.items()}
    drop = {name: drop_ND.mean(1) for name, drop_ND in drops.items()}
    groups = [f.group for f in flagged]
    return {
        "delete": much, "texts": len(flagged), "characters": chars,
        "drop": {name: share(x_N, groups) for name, x_N in drop.items()},
        "flips": {name: share(x_N, groups) for name, x_N in flips.items()},
        "gain": {
            of: {other: share(x["top"] - x[other], groups) for other in ("random", "lowest")}
            for of, x in (("drop", drop), ("flips", flips))
        },
    }  # fmt: skip


def how_many(much: int | float, flagged: Flagged) -> int:
    pieces = len(flagged.explanation.pieces)
    return much if isinstance(much, int) else math.ceil(much * pieces)


def chosen(flagged: Flagged, choice: str, much: int | float, rng: random.Random) -> Sequence[Piece]:
    pieces, k = flagged.explanation.pieces, how_many(much, flagged)
    if choice == "random":
        return rng.sample(list(pieces), k)
    return sorted(pieces, key=lambda p: p.value, reverse=choice == "top")[:k]


def without(text: str, pieces: Sequence[Piece]) -> str:
    """Return ``text`` with the characters of ``pieces`` gone."""
    for piece in sorted(pieces, key=lambda p: -p.start):
        text = text[: piece.start] + text[piece.end :]
    return text


def scores(model: Model, texts: Sequence[str]) -> FloatArray:
    chunks = [log_odds(model, texts[i : i + CHUNK]) for i in range(0, len(texts), CHUNK)]
    return np.concatenate(chunks)


if __name__ == "__main__":
    typer.run(main)
