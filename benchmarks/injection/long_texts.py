"""Is an attack still found inside a long document?

    python -m benchmarks.injection.long_texts PATH/TO/injection [MODEL]     # -> results/
    python -m benchmarks.injection.long_texts PATH/TO/injection --no-lines  # windows alone
    python -m benchmarks.tables.fill                                        # -> docs/results/

Attacks of the test split, of at most 64 tokens and under 400 characters, stand at the start, in
the middle and at the end of harmless news of 500 to 100,000 tokens (AG News, whose test file lies
beside the injection set as sets/ag-news). A text is flagged above MODEL's score at a
false-positive rate of 1% on benign validation text; recall is against that of the attacks by
themselves. News without an attack says how often so long a text is flagged for nothing.
"""

from __future__ import annotations

import json
import random
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import pyarrow.parquet as pq
import typer

from benchmarks.lib.detection import (
    FPR,
    RESAMPLES,
    SEED,
    attacks,
    benign_validation,
    log_odds,
    share,
    threshold_of,
    without_lines,
)
from benchmarks.lib.paths import ROOT
from benchmarks.lib.provenance import commit, machine
from guardkit import load_model
from guardkit.data.examples import load_examples
from guardkit.types import FloatArray

RESULTS = ROOT / "benchmarks" / "results"
#: Tokens of the document: how many attacks are tried in it.
LENGTHS = {500: 100, 2_000: 60, 10_000: 20, 100_000: 4}
PLACES = {"start": 0.0, "middle": 0.5, "end": 1.0}
MOST_TOKENS = 64


def main(
    injection: Path,
    model: Annotated[str, typer.Argument()] = "builtin:mdlm/injection",
    lines: bool = True,
    out: Path | None = None,
) -> None:
    """Measure MODEL; with --no-lines as it were without its reading of a text line by line."""
    loaded, rng = load_model(model, device="cpu"), random.Random(SEED)
    loaded = loaded if lines else without_lines(loaded)

    def score(texts: Sequence[str]) -> FloatArray:
        return log_odds(loaded, texts)

    benign = benign_validation(injection)
    threshold = threshold_of(score(benign))
    test = load_examples(str(injection))["test"]
    short = [text for text in test.select(np.flatnonzero(attacks(test))).texts if len(text) < 400]
    tokens_N = loaded.score(short).tokens_N
    short = [t for t, n in zip(short, tokens_N, strict=True) if n <= MOST_TOKENS]
    rng.shuffle(short)
    news = pq.read_table(injection.parent / "sets" / "ag-news" / "test.parquet")
    stories = [str(text) for text in news.column("text").to_pylist()]
    per_story = float(np.mean(loaded.score(stories[:200]).tokens_N))

    rows = []
    for length, n in LENGTHS.items():
        chosen = short[:n]
        alone_N = score(chosen) > threshold
        documents = [rng.sample(stories, round(length / per_story)) for _ in chosen]
        row: dict[str, Any] = {
            "tokens": length, "attacks": len(chosen), "alone": share(alone_N),
            "without": share(score(["\n".join(d) for d in documents]) > threshold),
        }  # fmt: skip
        for place, at in PLACES.items():
            texts = [planted(a, d, at) for a, d in zip(chosen, documents, strict=True)]
            found_N = score(texts) > threshold
            row[place] = {
                "recall": share(found_N),
                "of_found_alone": share(found_N[alone_N]) if alone_N.any() else None,
            }
        rows.append(row)
        print(row, flush=True)
    record = {
        "script": "benchmarks/injection/long_texts.py", "commit": commit(), "machine": machine(),
        "model": model, "model_hash": loaded.hash, "most_tokens": MOST_TOKENS,
        "window_pooling": loaded.config.window_pooling, "also_read": loaded.config.also_read,
        "conditions": f"threshold at {FPR:.0%} of {len(benign):,} benign validation texts; "
        f"bootstrap of {RESAMPLES}, seed {SEED}",
        "rows": rows,
    }  # fmt: skip
    out = out or RESULTS / ("long_texts.json" if lines else "long_texts_no_lines.json")
    out.write_text(json.dumps(record, indent=1) + "\n", "utf-8")


def planted(attack: str, stories: Sequence[str], at: float) -> str:
    """Return the stories with the attack between them, a line of its own."""
    place = round(at * len(stories))
    return "\n".join([*stories[:place], attack, *stories[place:]])


if __name__ == "__main__":
    typer.run(main)
