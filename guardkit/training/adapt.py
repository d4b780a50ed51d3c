"""The adapt flow: few examples of something new, a trained model, and what adapting it changed.

examples of one label -> family.adapt -> measure before and after -> over-defence -> publish
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from guardkit.calibration.maps import Calibration
from guardkit.data.examples import load_examples
from guardkit.data.hashes import texts_hash
from guardkit.data.labels import labelled
from guardkit.errors import DataError, PluginError
from guardkit.metrics import wilson_interval
from guardkit.model import artefact
from guardkit.model.card import adapted_card
from guardkit.model.chunks import chunks
from guardkit.model.loaded import Model, load_model
from guardkit.plugins import installed_plugins
from guardkit.training.over_defence import bundled
from guardkit.types import (
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
        splits = load_examples(self.spec, need_labels=False)
        return [text for examples in splits.values() for text in examples.texts]

    @property
    def name(self) -> str:
        return self.spec or "bundled benign texts full of trigger words"


def adapt_model(
    ref: str,
    data: str,
    out: Path,
    *,
    over_defence: OverDefence | None = None,
    device: str = "auto",
    progress: Progress,
) -> Mapping[str, Any]:
    """Adapt the model ``ref`` to the training examples of the data spec ``data``, which all have
    one label, one of the model's own, and write it to ``out``; return what was measured.

    Raises DataError where the examples have another label or several, or where the adapted model
    flags more of the ``over_defence`` texts than may be: nothing is written then.
    """
    over_defence = over_defence or OverDefence()
    artefact.refuse_to_replace(out)
    examples = _of_one_label(data)
    base = load_model(ref, device=device)
    family = installed_plugins().family(base.config.family)
    if not isinstance(family, SupportsAdapt):
        raise PluginError(f"{ref}: plugin {family.name!r} adapts no models")
    calibration = base.calibrated()
    label = examples.label_names[int(examples.labels_N[0])]
    if label not in base.labels:
        raise DataError(f"{ref}: has no label {label!r}; it has {', '.join(base.labels)}")
    with artefact.workspace(out) as work:
        adapted = family.adapt(base.path, examples, work, device=device, progress=progress)
        report = _changes(adapted, base, calibration, label, len(examples))
        if label != base.config.neutral and (over_defence.spec or base.config.neutral):
            after = load_model(adapted.folder, device=device, allow_unverified=True)
            report["over_defence"] = found = _over_defence(
                base, after, label, over_defence, progress
            )
            if found["after"]["value"] > over_defence.at_most:
                raise DataError(_refusal(found, over_defence, label))
        _finish(adapted.folder, out, base, examples, report)
    return report


def _of_one_label(data: str) -> Examples:
    """Return the labelled training examples of ``data``. Raises DataError."""
    splits = load_examples(data)
    if "train" not in splits:
        raise DataError(f"{data}: no train split; it has {', '.join(splits)}. See ?split=NAME")
    examples = labelled(splits["train"])
    names = [examples.label_names[c] for c in np.unique(examples.labels_N)]
    if len(names) != 1:
        raise DataError(
            f"{data}: examples of {len(names)} labels ({', '.join(names)}); a model is adapted to "
            "those of one. Keep some with ?where=label:NAME, or train on all of them"
        )
    return examples


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

    def shares(name: str, which_N: np.ndarray) -> dict[str, Any]:
        before_N, after_N = (z_N[which_N] for z_N in odds[name])
        return {
            "n": int(which_N.sum()),
            "before": _share(before_N >= 0.0),  # FLAG_AT, in log-odds
            "after": _share(after_N >= 0.0),
            "before_at_fpr": _share(before_N > at_fpr),
            "after_at_fpr": _share(after_N > at_fpr),
        }

    found = {"new examples, each scored without itself": shares("new", np.ones(n, bool))}
    for c, known in enumerate(base.labels):
        if (which_N := held_out.labels_N == c).any():
            found[f"held out: {known}"] = shares("held_out", which_N)
    sources_N = np.array(held_out.sources or [""] * len(held_out.labels_N))
    if len(set(held_out.sources)) > 1:
        for source in sorted(set(sources_N[~rest_N].tolist())):
            which_N = ~rest_N & (sources_N == source)
            found[f"held out: {label}, {source}"] = shares("held_out", which_N)
    return {"label": label, "examples": n, "shares": found}


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
