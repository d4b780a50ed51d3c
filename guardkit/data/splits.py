"""Which examples may be used for what: the rule by which a set is divided, and what it is divided
into for a training.

Groups stay whole: near-duplicates, or one author's texts, are all on one side.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from guardkit.data.doubts import (
    LEAST_CALIBRATION_GROUPS,
    few_to_calibrate_on,
    refuse_labels_alike,
    texts_under_two_labels,
)
from guardkit.data.examples import load_examples
from guardkit.data.labels import labelled
from guardkit.data.stratify import Bounds, stratify
from guardkit.errors import DataError
from guardkit.metrics import group_index
from guardkit.types import UNLABELLED, Examples, IntArray

#: What is held out of the training examples where the data has no validation split.
HELD_OUT_SHARE = 0.1
#: Groups of a label that are held out at least, where it has twice as many: two to stop training
#: by and two to calibrate on.
LEAST_HELD_OUT = 4
#: How many rows of a label it takes, by where the calibration set comes from.
NEEDED_TO_HOLD_OUT = (
    "Of each label a tenth is held out (four texts at least, half of them at most), and half of "
    "that calibrates: it takes 4 rows of a label, each with a text or group of its own that is in "
    "no test split, and about 200 for ten; or text of its own, --calibration-data"
)
NEEDED_TO_HALVE = (
    "Half of the validation split calibrates: it takes 2 rows of a label there, each with a text "
    "or group of its own that is in no test split, and about 20 for ten; or text of its own, "
    "--calibration-data"
)
NEEDED_TO_CALIBRATE = "Add such rows there, each with a text or group of its own"
#: Parts that cross-fitting makes of labelled text.
FOLDS = 5


class OneLabelError(DataError):
    """All examples have one ``label``: nothing to train a classifier on."""

    def __init__(self, spec: str, label: str) -> None:
        super().__init__(f"{spec}: one label only, {label}; two are the least")
        self.label = label


@dataclass(frozen=True)
class DataSplits:
    """What each set of examples may be used for. No text that validation, calibration or test
    holds is trained on or calibrated on; of texts in two sets the later one here keeps it."""

    train: Examples  # weights
    validation: Examples  # early stopping
    calibration: Examples  # the probability map; the family never sees it
    test: Examples | None  # measured once, at the end
    pretrain: Examples | None  # text without labels


def load_data_splits(
    data: str,
    pretrain_data: str | None = None,
    calibration_data: str | None = None,
    *,
    note: Callable[[str], None] = lambda _: None,
) -> DataSplits:
    """Load the specs (``data.examples``) and decide what each example may be used for.

    Without a validation split some of the training groups are held out; without
    ``calibration_data`` half of the held-out groups become the calibration set. Raises DataError
    where a label has no example to train on or too few to calibrate on, or differs from another by
    case or space alone; ``note`` is told of what may be a mistake.
    """
    splits = load_examples(data)
    if "train" not in splits:
        raise DataError(f"{data}: no train split; it has {', '.join(splits)}. See ?split=NAME")
    train = labelled(splits["train"])
    if len(train.label_names) < 2:
        raise OneLabelError(data, *train.label_names)
    refuse_labels_alike(data, train.label_names)
    for doubt in texts_under_two_labels(splits, normalised):
        note(doubt)
    needed = NEEDED_TO_HOLD_OUT
    if "validation" in splits:
        held_out, needed = labelled(splits["validation"]), NEEDED_TO_HALVE
    else:
        train, held_out = hold_out(train)
    if calibration_data is None:
        validation, calibration = halve(held_out)
    else:
        validation = held_out
        calibration = load_calibration_set(calibration_data, train.label_names)
        needed = NEEDED_TO_CALIBRATE
    test = labelled(splits["test"]) if "test" in splits else None

    tested = _texts(test)
    calibration = _without(calibration, tested)
    validation = _without(validation, tested | _texts(calibration))
    reserved = tested | _texts(calibration) | _texts(validation)
    train = _without(train, reserved)
    if missing := _unseen_labels(train):
        raise DataError(
            f"{data}: no example labelled {missing[0]!r} to train on, once texts that stand in a "
            "later set are left out"
        )
    if len(calibration) > 1:
        refuse_one_group(group_names(calibration))
    for doubt in few_to_calibrate_on(
        calibration_data or data, calibration, group_names(calibration), needed
    ):
        note(doubt)
    pretrain = _pretrain_texts(splits["train"], pretrain_data, reserved)
    return DataSplits(train, validation, calibration, test, pretrain)


def load_calibration_set(spec: str, label_names: tuple[str, ...]) -> Examples:
    """Join the splits of ``spec``. Raises DataError where its labels are not ``label_names``."""
    texts: list[str] = []
    labels: list[int] = []
    groups: list[str] = []
    for examples in load_examples(spec).values():
        if unknown := set(examples.label_names) - set(label_names):
            raise DataError(
                f"{spec}: labels {sorted(unknown)} are not the model's: {', '.join(label_names)}"
            )
        place = [label_names.index(name) for name in examples.label_names]
        known = labelled(examples)
        texts += known.texts
        labels += [place[y] for y in known.labels_N]
        groups += group_names(known)
    joined = Examples(texts, np.array(labels, np.int64), label_names, groups)
    if missing := _unseen_labels(joined):
        raise DataError(f"{spec}: no example labelled {missing[0]!r} to calibrate on")
    refuse_one_group(groups)
    return joined


def refuse_one_group(groups: Sequence[str]) -> None:
    """Raise DataError where nothing would be left to judge a calibration by."""
    if len(set(groups)) < 2:
        raise DataError(
            "the calibration data is one group; it needs two at least, one to fit to and one to "
            "judge by. Name another column with ?group=, or add text"
        )


def hold_out(train: Examples) -> tuple[Examples, Examples]:
    """Return (rest, held out) of training examples that come without a validation split."""

    def bounds(n: int) -> tuple[int, int]:
        low = min(max(LEAST_HELD_OUT, math.ceil(HELD_OUT_SHARE * n / 2)), n // 2)
        return low, max(low, min(math.ceil(HELD_OUT_SHARE * n * 2), n // 2))

    return split_by_group(train, HELD_OUT_SHARE, seed=0, bounds=bounds)


def halve(held_out: Examples) -> tuple[Examples, Examples]:
    """Return (validation, calibration) of what is held out."""

    def bounds(n: int) -> tuple[int, int]:
        low = min(max(LEAST_CALIBRATION_GROUPS, math.ceil(n / 4)), n)
        return low, max(low, n - max(LEAST_HELD_OUT - LEAST_CALIBRATION_GROUPS, math.ceil(n / 4)))

    # another seed: by the same one every held-out group would fall on one side
    return split_by_group(held_out, 0.5, seed=1, bounds=bounds)


def split_by_group(
    examples: Examples, share: float, *, seed: int, bounds: Bounds | None = None
) -> tuple[Examples, Examples]:
    """Return (rest, chosen), with about ``share`` of the groups in ``chosen``, by hash alone, or
    with as many of each label as ``bounds`` allow.

    A group goes whole to one side, by a hash of the seed and its name, so rows added later
    move nobody else. Where there are no groups each distinct text is one.
    """
    index: dict[str, int] = {}
    group_N = np.array([index.setdefault(g, len(index)) for g in group_names(examples)], np.int64)
    hashes = [_hash(seed, name) for name in index]
    chosen_G = np.array([h < share * 2**64 for h in hashes], np.bool_)
    if bounds is not None:
        hash_G = np.array(hashes, np.uint64)
        stratify(chosen_G, hash_G, group_N, examples.labels_N, share, bounds)
    chosen_N = chosen_G[group_N]
    return examples.select(np.flatnonzero(~chosen_N)), examples.select(np.flatnonzero(chosen_N))


def _hash(seed: int, name: str) -> int:
    digest = hashlib.sha256(f"{seed}:{name}".encode("utf-8", "surrogatepass")).digest()
    return int.from_bytes(digest[:8], "big")


def group_folds(
    labels_N: npt.NDArray[np.integer], groups: Sequence[str], *, seed: int, folds: int = FOLDS
) -> IntArray:
    """Return each text's fold: whole groups, every kind of group spread evenly over the folds."""
    group_N = group_index(groups)
    size_G = np.bincount(group_N)
    # sorted by their shares of the labels, then dealt out in turn; chance orders equal ones
    shares = [np.bincount(group_N, labels_N == c) / size_G for c in range(1, labels_N.max() + 1)]
    order = np.lexsort([np.random.default_rng(seed).random(len(size_G)), *shares])
    fold_G = np.empty(len(order), np.int64)
    fold_G[order] = np.arange(len(order)) % folds
    return fold_G[group_N]


def group_names(examples: Examples) -> Sequence[str]:
    """Return each example's group, or its text in lower case and single spaces if it has none."""
    groups = examples.groups or [""] * len(examples)
    return [g or normalised(t) for g, t in zip(groups, examples.texts, strict=True)]


def normalised(text: str) -> str:
    """Return ``text`` in lower case and single spaces: what makes two texts the same."""
    return " ".join(text.lower().split())


def _texts(examples: Examples | None) -> set[str]:
    return {normalised(text) for text in examples.texts} if examples else set()


def _without(examples: Examples, reserved: set[str]) -> Examples:
    """Leave out texts that another set holds, compared without case and white space."""
    kept = [i for i, text in enumerate(examples.texts) if normalised(text) not in reserved]
    return examples.select(kept)


def _pretrain_texts(train: Examples, spec: str | None, reserved: set[str]) -> Examples | None:
    """Gather text without labels: unlabelled training examples, and every split of the spec but
    test; nothing that is ``reserved``."""
    texts = [t for t, y in zip(train.texts, train.labels_N, strict=True) if y == UNLABELLED]
    if spec is not None:
        for name, examples in load_examples(spec, need_labels=False).items():
            if name != "test":
                texts += examples.texts
    if not texts:
        return None
    unlabelled = Examples(texts, np.full(len(texts), UNLABELLED), train.label_names)
    return _without(unlabelled, reserved)


def _unseen_labels(examples: Examples) -> list[str]:
    counts_C = np.bincount(examples.labels_N, minlength=len(examples.label_names))
    return [examples.label_names[c] for c in np.flatnonzero(counts_C == 0)]
