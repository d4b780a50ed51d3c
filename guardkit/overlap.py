"""Text to measure or fit on must not be what a model was trained on."""

from __future__ import annotations

import json

from guardkit import artefact
from guardkit.data import split_by_group
from guardkit.errors import DataError
from guardkit.models import Model, texts_hash
from guardkit.train import HELD_OUT_SHARE
from guardkit.types import UNLABELLED, Examples


def refuse_training_texts(member: str, model: Model, examples: Examples) -> None:
    """Raise DataError where ``model``'s record says it was trained on these very examples."""
    path = model.path / artefact.METRICS
    record = json.loads(path.read_text("utf-8")).get("data", {}) if path.is_file() else {}
    # all of them, or what `guardkit train` kept of them to train on
    for part in (examples, split_by_group(examples, HELD_OUT_SHARE, seed=0)[0]):
        labelled = texts_hash(part.texts, [str(y) for y in part.labels_N])
        bare = texts_hash(part.texts, [str(UNLABELLED)] * len(part))
        if {labelled, bare} & {record.get("train"), record.get("pretrain")}:
            raise DataError(
                f"{member!r} ({model.path}) was trained on these examples, where it looks "
                "better than it is; fit on others, such as its validation split"
            )
