"""What benchmarks of injection detectors share: texts, scores, and shares of texts."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.lib.paths import SAMPLE
from guardkit.data.examples import load_examples
from guardkit.metrics import Measure, bootstrap
from guardkit.model.loaded import Model
from guardkit.types import BoolArray, Examples, FloatArray

#: The share of benign texts above a detector's threshold.
FPR = 0.01
RESAMPLES, SEED = 1000, 0


def attacks(examples: Examples) -> BoolArray:
    return np.array([examples.label_names[y] == "injection" for y in examples.labels_N])


def benign_validation(injection: Path) -> list[str]:
    """Return the benign texts of both validation sets: every source's, and our own."""
    found: list[str] = []
    for spec in (f"{injection}?split=validation", f"{SAMPLE}?split=validation"):
        examples = load_examples(spec)["validation"]
        found += examples.select(np.flatnonzero(~attacks(examples))).texts
    return found


def threshold_of(benign_N: FloatArray) -> float:
    """Return the least threshold that at most a share ``FPR`` of these scores exceed."""
    return float(np.sort(benign_N)[::-1][int(FPR * len(benign_N))])


def log_odds(model: Model, texts: Sequence[str]) -> FloatArray:
    """Return the log-odds of the one label that is not neutral."""
    scored = model.score(list(texts))
    assert not scored.errors, scored.errors
    column = 1 - (model.config.neutral_index or 0)
    return model.calibrated().log_odds_NC(scored.logits_NC, scored.tokens_N)[:, column]


def without_lines(model: Model) -> Model:
    """Return ``model`` as it were if it did not read a text line by line."""
    return reading(model, [name for name in model.config.also_read if name != "lines"])


def reading(model: Model, also_read: Sequence[str]) -> Model:
    """Return ``model`` with these readings of a text beside the text as it stands."""
    config = model.config.model_copy(update={"also_read": list(also_read)})
    return replace(model, config=config)


def share(x_N: Any, groups: Sequence[str] | None = None) -> dict[str, float | None]:
    """Return the mean of ``x_N`` with its interval, over texts or over ``groups`` of them."""
    x_N = np.asarray(x_N, float)
    measure: Measure = lambda weight_N: {"it": float(weight_N @ x_N / weight_N.sum())}  # noqa: E731
    groups = groups or [str(i) for i in range(len(x_N))]
    return bootstrap(measure, groups, resamples=RESAMPLES, seed=SEED)["it"]
