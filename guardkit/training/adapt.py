"""The adapt flow: few examples of something new, a trained model, and what adapting it changed.

    examples of one label -> family.adapt -> measure before and after -> over-defence -> publish

It is ``guardkit train --init MODEL`` on examples that all have one label, one of the model's own.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from guardkit.calibration.maps import Calibration
from guardkit.data.examples import load_examples
from guardkit.data.hashes import texts_hash
from guardkit.errors import ArtefactError, DataError, UsageError
from guardkit.metrics import wilson_interval
from guardkit.model import artefact
from guardkit.model.card import adapted_card
from guardkit.model.chunks import chunks
from guardkit.model.find import BUILTIN
from guardkit.model.loaded import Model, load_model
from guardkit.training.over_defence import bundled
from guardkit.types import (
    UNLABELLED,
    Adapted,
    BeforeAfter,
    Examples,
    FloatArray,
    Progress,
    SupportsAdapt,
)

#: Share of benign texts full of trigger words that an adapted model may flag.
MAX_OVER_DEFENCE = 0.1
#: Where a text counts as flagged: the probability, and the share of held-out texts of other labels
#: that may be flagged by the model as it was.
FLAG_AT, FALSE_POSITIVES = 0.5, 0.01


@dataclass(frozen=True)
class OverDefence:
    """Benign texts that sound like attacks, and the largest share of them that may be flagged."""

    spec: str | None = None  # a data spec; None: the bundled ones
    at_most: float = MAX_OVER_DEFENCE

    def texts(self) -> Sequence[str]:
        if self.spec is None:
            return bundled()
        return [t for part in load_examples(self.spec, need_labels=False).values()
                for t in part.texts]  # fmt: skip

    @property
    def name(self) -> str:
        return self.spec or "bundled benign texts full of trigger words"


def few_examples(init: str | None, data: str) -> Examples | None:
    """Return what of ``data`` the model ``init`` is to be adapted to: its training examples, where
    all have the same label. None where that is not so, or ``init`` is no trained model."""
    if init is None or not _is_model(init):
        return None
    examples = load_examples(data).get("train")
    if examples is None:
        return None
    labelled = examples.select(np.flatnonzero(examples.labels_N != UNLABELLED))
    return labelled if len(set(labelled.labels_N.tolist())) == 1 else None


def _is_model(init: str) -> bool:
    """Tell a trained model from weights of another kind, which may have a config.json too."""
    if init.startswith(BUILTIN):
        return True
    try:
        return "family" in json.loads((Path(init) / artefact.CONFIG).read_text("utf-8"))
    except (OSError, ValueError):
        return False


def adapt_model(
    family: str,
    by: SupportsAdapt,
    init: str,
    examples: Examples,
    out: Path,
    *,
    over_defence: OverDefence,
    device: str,
    progress: Progress,
) -> Mapping[str, Any]:
    """Adapt the model ``init`` of ``family`` to ``examples`` and write it to ``out``; return what
    was measured.

    Raises DataError where the label is not the model's, or where the adapted model flags more of
    the over-defence texts than may be: nothing is written then.
    """
    base = load_model(init, family=family, device=device)
    calibration = base.calibrated()
    label = examples.label_names[int(examples.labels_N[0])]
    if label not in base.labels:
        raise DataError(f"{init}: has no label {label!r}; it has {', '.join(base.labels)}")
    if out.exists():
        raise ArtefactError(f"{out}: exists already; choose another --out or remove it")
    partial = out.with_name(out.name + ".partial")
    if partial.exists():
        raise ArtefactError(f"{partial}: is in the way; remove it, or choose another --out")
    partial.mkdir(parents=True)
    try:
        adapted = by.adapt(base.path, examples, partial, device=device, progress=progress)
        report = _changes(adapted, base, calibration, label, len(examples))
        if label != base.config.neutral and (over_defence.spec or base.config.neutral):
            after = load_model(adapted.folder, device=device, allow_unverified=True)
            report["over_defence"] = found = _over_defence(
                base, after, label, over_defence, progress
            )
            if found["after"]["value"] > over_defence.at_most:
                raise DataError(_refusal(found, over_defence, label))
        _finish(adapted.folder, out, base, examples, report)
    finally:
        shutil.rmtree(partial, ignore_errors=True)
    return report


def _changes(
    adapted: Adapted, base: Model, calibration: Calibration, label: str, n: int
) -> dict[str, Any]:
    """Return the report: shares of texts that get ``label``, before and after."""
    own = base.labels.index(label)
    held_out, new = adapted.held_out, adapted.examples
    odds = {name: _log_odds(calibration, part, own) for name, part in
            {"held_out": held_out, "new": new}.items()}  # fmt: skip
    rest_N = held_out.labels_N != own
    at_fpr = float(np.quantile(odds["held_out"][0][rest_N], 1 - FALSE_POSITIVES))

    def row(name: str, which_N: np.ndarray) -> dict[str, Any]:
        before_N, after_N = (z_N[which_N] for z_N in odds[name])
        return {
            "n": int(which_N.sum()),
            "before": _share(before_N >= 0.0),  # FLAG_AT, in log-odds
            "after": _share(after_N >= 0.0),
            "before_at_fpr": _share(before_N > at_fpr),
            "after_at_fpr": _share(after_N > at_fpr),
        }

    rows = {"new examples, each scored without itself": row("new", np.ones(n, bool))}
    for c, known in enumerate(base.labels):
        if (which_N := held_out.labels_N == c).any():
            rows[f"held out: {known}"] = row("held_out", which_N)
    sources_N = np.array(held_out.sources or [""] * len(held_out.labels_N))
    if len(set(held_out.sources)) > 1:
        for source in sorted(set(sources_N[~rest_N].tolist())):
            which_N = ~rest_N & (sources_N == source)
            rows[f"held out: {label}, {source}"] = row("held_out", which_N)
    return {"label": label, "examples": n, "shares": rows}


def _log_odds(
    calibration: Calibration, part: BeforeAfter, label: int
) -> tuple[FloatArray, FloatArray]:
    return (
        calibration.log_odds(part.before_NC, part.tokens_N, [label]),
        calibration.log_odds(part.after_NC, part.tokens_N, [label]),
    )


def _over_defence(
    before: Model, after: Model, label: str, texts: OverDefence, progress: Progress
) -> dict[str, Any]:
    benign, found = list(texts.texts()), {}
    if not benign:
        raise DataError(f"--over-defence {texts.spec}: no texts")
    for when, model in (("before", before), ("after", after)):
        p_N: list[float] = []
        for chunk in chunks(benign, f"over-defence {when}", progress):
            p_N += model.probabilities(chunk)[:, model.labels.index(label)].tolist()
        found[when] = _share(np.array(p_N) >= FLAG_AT)
    return {"texts": texts.name, "n": len(benign), "at_most": texts.at_most, **found}


def _refusal(found: Mapping[str, Any], limit: OverDefence, label: str) -> str:
    return (
        f"not written: the adapted model calls {found['after']['value']:.1%} of {found['n']} "
        f"texts {label!r} ({limit.name}), {limit.at_most:.1%} at most are allowed; it was "
        f"{found['before']['value']:.1%} before. Fewer examples that read like ordinary text, or "
        "another --max-over-defence"
    )


def _share(flagged_N: np.ndarray) -> dict[str, float]:
    """Return a share with its 95% interval."""
    share = int(flagged_N.sum()) / len(flagged_N)
    low, high = wilson_interval(share, len(flagged_N))
    return {"value": share, "low": low, "high": high}


def _finish(
    folder: Path, out: Path, base: Model, examples: Examples, report: Mapping[str, Any]
) -> None:
    known = texts_hash(examples.texts, [report["label"]] * len(examples))
    step = {"label": report["label"], "examples": len(examples), "texts": known, "base": base.hash}
    config = base.config
    training = {**config.training, "adapted": [*config.training.get("adapted", []), step]}
    artefact.write_json(folder / artefact.CONFIG, config.model_copy(update={"training": training}))
    path = folder / artefact.METRICS
    metrics = json.loads(path.read_text("utf-8")) if path.is_file() else {}
    metrics["adapted"] = [*metrics.get("adapted", []), report]
    artefact.write_json(path, metrics)
    card = folder / artefact.CARD
    before = card.read_text("utf-8") if card.is_file() else ""
    card.write_text(adapted_card(before, report), "utf-8")
    artefact.publish(folder, out)


def refuse_training_options(given: Sequence[str]) -> None:
    """Raise UsageError for options of a training, of which adapting has none."""
    if given:
        raise UsageError(
            f"{', '.join(given)}: not for examples that all have one label, to which --init is "
            "adapted; leave it out, or give examples of every label to train on"
        )
