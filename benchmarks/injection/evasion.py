"""Can an attack be smuggled past a detector, and do the defences cost honest people anything?

    python -m benchmarks.injection.evasion PATH/TO/injection MODEL [--locales DIR]

The transforms (``disguises.py``) of 200 attacks of the test split: how many are undone to the
letter, and the recall of MODEL on plain attacks and on hidden ones, reading raw text alone and
reading what it also reads. The same transforms on 250 benign texts of the test split; and
benign sentences in many scripts: DIR is where Django is installed, whose translations they are
(``pip install --no-deps django polib``). A text is flagged above MODEL's score at a
false-positive rate of 1% on 2,000 plain benign test texts. -> benchmarks/results/evasion.json
"""

from __future__ import annotations

import json
import random
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import typer

from benchmarks.injection.disguises import HIDING, REWRITING
from benchmarks.lib.detection import FPR, RESAMPLES, SEED, log_odds, reading, share
from benchmarks.lib.paths import ROOT
from benchmarks.lib.provenance import commit, machine
from guardkit.data.examples import load_examples
from guardkit.model.loaded import load_model
from guardkit.text.canonical import canonical
from guardkit.text.readings import ALL, readings
from guardkit.types import BoolArray

RESULTS = ROOT / "benchmarks" / "results" / "evasion.json"
ATTACKS, BENIGN, LOCALE_TEXTS = 200, 2000, 2000
HIDDEN_BENIGN = 250
LONGEST = 1500  # characters: a transform makes up to eight of one


def main(
    injection: Path,
    model: str,
    locales: Annotated[Path | None, typer.Option()] = None,
    out: Path = RESULTS,
) -> None:
    scripts = sentences(locales) if locales is not None else []  # what is missing fails here
    loaded = load_model(model)
    also, raw = reading(loaded, ALL), reading(loaded, [])
    test = load_examples(str(injection))["test"]
    label_N = np.array([test.label_names[y] for y in test.labels_N])
    usable_N = np.array([len(text) <= LONGEST for text in test.texts])
    rng = random.Random(SEED)

    def drawn(label: str, most: int) -> list[str]:
        found = [test.texts[i] for i in np.flatnonzero((label_N == label) & usable_N)]
        return rng.sample(found, min(most, len(found)))

    attacks, benign = drawn("injection", ATTACKS), drawn("benign", BENIGN)
    to_hide = benign[:HIDDEN_BENIGN]
    plain_N = log_odds(also, benign)
    thresholds = {
        "also_read": float(np.quantile(plain_N, 1 - FPR)),
        "raw": float(np.quantile(log_odds(raw, benign), 1 - FPR)),
    }

    def flagged(texts: Sequence[str], which: str) -> BoolArray:
        return log_odds(also if which == "also_read" else raw, texts) > thresholds[which]

    open_N = flagged(attacks, "raw")
    transforms = []
    for name, hide in {**HIDING, **REWRITING}.items():
        hidden, hidden_benign = [hide(t) for t in attacks], [hide(t) for t in to_hide]
        undone_N = [undone(t, h) for t, h in zip(attacks, hidden, strict=True)]
        row: dict[str, Any] = {"name": name, "lossless": name in HIDING,
                               "undone": float(np.mean(undone_N))}  # fmt: skip
        for which in ("raw", "also_read"):
            found_N = flagged(hidden, which)
            row[which] = {
                "recall": share(found_N),
                "recall_lost": share(open_N.astype(float) - found_N),
                "benign_flagged": share(flagged(hidden_benign, which)),
            }
        transforms.append(row)
        print(name, row["undone"], row["raw"]["recall"]["value"],
              row["also_read"]["recall"]["value"], row["also_read"]["benign_flagged"]["value"],
              flush=True)  # fmt: skip

    record: dict[str, Any] = {
        "script": "benchmarks/injection/evasion.py", "commit": commit(), "machine": machine(),
        "model": model, "model_hash": loaded.hash,
        "conditions": f"threshold at {FPR:.0%} false positives on {len(benign):,} plain benign "
        f"texts; texts of at most {LONGEST:,} characters; bootstrap of {RESAMPLES}, seed {SEED}",
        "attacks": len(attacks), "benign": len(to_hide), "recall": share(open_N),
        "transforms": transforms,
    }  # fmt: skip
    if scripts:
        before_N, after_N = flagged(scripts, "raw"), log_odds(also, scripts) > thresholds["raw"]
        record["scripts"] = {
            "texts": len(scripts), "with_another_reading": sum(bool(readings(t)) for t in scripts),
            "flagged_raw": share(before_N), "flagged_also": share(after_N),
            "rise": share(after_N.astype(float) - before_N),
        }  # fmt: skip
        print(record["scripts"])
    out.write_text(json.dumps(record, indent=1) + "\n", "utf-8")


def undone(text: str, hidden: str) -> bool:
    """Return whether a reading of ``hidden`` holds the letters of ``text``: all but white space,
    and case where the transform knows none."""

    def letters(text: str) -> str:
        return "".join(canonical(text).split()).casefold()

    return any(letters(text) in letters(reading) for reading in readings(hidden))


def sentences(django: Path) -> list[str]:
    """Return benign sentences, as many of each language as there are: Django's translations."""
    import polib

    by_language: dict[str, list[str]] = {}
    for path in sorted(django.rglob("locale/*/LC_MESSAGES/django.po")):
        texts = [entry.msgstr for entry in polib.pofile(str(path)) if len(entry.msgstr) >= 20]
        by_language.setdefault(path.parts[-3], []).extend(texts)
    rng, found = random.Random(SEED), dict[str, None]()
    for texts in by_language.values():
        rng.shuffle(texts)
    most = max(map(len, by_language.values()))
    for i in range(most):
        found |= dict.fromkeys(own[i] for own in by_language.values() if i < len(own))
    return list(found)[:LOCALE_TEXTS]


if __name__ == "__main__":
    typer.run(main)
