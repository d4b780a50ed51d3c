"""Whether a model has seen a set of examples before, as far as its record tells.

A model remembers each set it learnt from as one hash, so the very same set is recognised, or
what ``guardkit train`` makes of it; a set that overlaps in part is not.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from guardkit.data.hashes import examples_hash, texts_hash
from guardkit.data.splits import HELD_OUT_SHARE, halve, hold_out, split_by_group
from guardkit.errors import DataError
from guardkit.model import artefact
from guardkit.model.loaded import Model
from guardkit.types import UNLABELLED, Examples

#: What a set was to a model, as messages say it.
USES = {
    "train": "trained on",
    "pretrain": "trained on",
    "validation": "stopped early by",
    "calibration": "calibrated on",
}


def use_of(examples: Examples, model: Path, uses: Sequence[str] = tuple(USES)) -> str | None:
    """Return what the model in folder ``model`` was made of ``examples`` for, one of the values
    of ``USES`` whose key is in ``uses``; None where its record knows nothing of them."""
    record = dict(_read(model / artefact.METRICS).get("data", {}))
    record["calibration"] = _read(model / artefact.CALIBRATION).get("data")
    hashes = {h for one in _sets(examples) for h in _hashes(one)}
    return next((USES[use] for use in uses if record.get(use) in hashes), None)


def refuse_training_texts(member: str, model: Model, examples: Examples) -> None:
    """Raise DataError where ``model``'s record says that it was trained on these very examples."""
    if use := use_of(examples, model.path, ("train", "pretrain")):
        raise DataError(
            f"member {member!r} ({model.path}) was {use} these examples, where it looks better "
            "than it is; take others, such as its validation split"
        )


def _sets(examples: Examples) -> Iterator[Examples]:
    """Yield the examples and what ``guardkit train`` divides such a set into, or did before it
    counted the texts of each label."""
    yield examples
    for divide in (_divided, _divided_by_hash_alone):
        kept, held_out = divide(examples, HELD_OUT_SHARE)
        yield kept
        for whole in (examples, held_out):  # a validation split is halved as what is held out
            yield from divide(whole, None)


def _divided(examples: Examples, share: float | None) -> tuple[Examples, Examples]:
    return hold_out(examples) if share else halve(examples)


def _divided_by_hash_alone(examples: Examples, share: float | None) -> tuple[Examples, Examples]:
    return split_by_group(examples, share or 0.5, seed=0 if share else 1)


def _hashes(examples: Examples) -> tuple[str, str]:
    """Return the hash with labels and that without any, as text to pretrain on has."""
    return (
        examples_hash(examples),
        texts_hash(examples.texts, [str(UNLABELLED)] * len(examples)),
    )


def _read(path: Path) -> dict[str, Any]:
    return dict(json.loads(path.read_text("utf-8"))) if path.is_file() else {}
