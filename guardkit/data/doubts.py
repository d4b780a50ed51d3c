"""What about labelled examples is surely or probably a mistake: refused, or noted."""

from __future__ import annotations

import unicodedata
from collections.abc import Callable, Iterator, Mapping, Sequence

from guardkit.errors import DataError
from guardkit.metrics import count_groups, wilson_interval
from guardkit.types import UNLABELLED, Examples

#: Groups of each label that a calibration is fitted to and judged by: fewer are refused.
LEAST_CALIBRATION_GROUPS = 2
#: Fewer are noted: one for a parameter of the simplest map is the rule of thumb.
FEW_CALIBRATION_GROUPS = 10
_SHOWN = 60


def refuse_labels_alike(spec: str, labels: Sequence[str]) -> None:
    """Raise DataError where two labels differ by case or space alone: one is a slip."""
    seen: dict[str, str] = {}
    for label in labels:
        key = " ".join(unicodedata.normalize("NFKC", label).casefold().split())
        if (other := seen.setdefault(key, label)) != label:
            raise DataError(
                f"{spec}: labels {other!r} and {label!r} differ by case or space alone; write them "
                "alike, or keep the rows of one with ?where=label:NAME"
            )


def texts_under_two_labels(
    splits: Mapping[str, Examples], normalised: Callable[[str], str]
) -> Iterator[str]:
    """Say of each split how many texts stand there under two labels, and show the first."""
    for split, examples in splits.items():
        label_of: dict[int, int] = {}  # by the hash of the text: a million texts fit
        first, twice = "", set()
        for text, label in zip(examples.texts, examples.labels_N.tolist(), strict=True):
            if label == UNLABELLED:
                continue
            key = hash(normalised(text))
            other = label_of.setdefault(key, label)
            if other != label:
                shown = text if len(text) <= _SHOWN else f"{text[:_SHOWN]}..."
                names = f"{examples.label_names[other]!r} and {examples.label_names[label]!r}"
                first = first or f"{shown!r} is {names}"
                twice.add(key)
        if twice:
            n = len(twice)
            yield (
                f"{n:,} text{'s' * (n > 1)} of the {split} split (compared without case and white "
                f"space) stand{'s' * (n == 1)} under two labels; the first: {first}. Such rows "
                "teach nothing but doubt: mend or drop them"
            )


def few_to_calibrate_on(
    spec: str, examples: Examples, groups: Sequence[str], needed: str
) -> Iterator[str]:
    """Say of each label that has few calibration texts what its probabilities are worth.

    Raises DataError where a label has too few; ``needed`` says how many rows it takes.
    """
    for c, name in enumerate(examples.label_names):
        n = count_groups(groups, examples.labels_N == c)
        texts = f"{n} text{'s' * (n != 1)} to calibrate on (a group counts once)"
        if n < LEAST_CALIBRATION_GROUPS:
            has = f"label {name!r} has {texts}"
            if n == 0:
                has = f"no example labelled {name!r} to calibrate on"
            raise DataError(
                f"{spec}: {has}; {LEAST_CALIBRATION_GROUPS} are the least, and "
                f"{FEW_CALIBRATION_GROUPS} for figures that mean something. {needed}"
            )
        if n < FEW_CALIBRATION_GROUPS:
            lowest = wilson_interval(1.0, n)[0]
            yield (
                f"label {name!r} has {texts}, so its probabilities are worth little: were all {n} "
                f"judged right, the share judged right in truth could still be {lowest:.0%} "
                f"(95%). {FEW_CALIBRATION_GROUPS} give rough figures, some hundreds good ones: add "
                "rows, or name text of its own, --calibration-data"
            )
