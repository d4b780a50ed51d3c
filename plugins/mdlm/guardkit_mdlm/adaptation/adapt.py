"""A trained model that learns something new from few examples: its network and one row more."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np

from guardkit import (
    Adapted,
    BeforeAfter,
    ConfigError,
    DataError,
    Examples,
    Progress,
    pick_device,
    pick_dtype,
    read_config,
)
from guardkit_mdlm.adaptation.class_rows import AddedRows, Contrast, fit_row, load_rows
from guardkit_mdlm.adaptation.remembered import Windows, load_remembered, read_windows
from guardkit_mdlm.loading import load_network
from guardkit_mdlm.record import NetworkRecord
from guardkit_mdlm.text_ngrams import load_text_ngrams
from guardkit_mdlm.tokenizer import encode, read_tokenizer

#: Remembered texts of other labels without which no row is fitted: its bounds are quantiles.
LEAST_OTHERS = 100


def adapt(base: Path, examples: Examples, out: Path, *, device: str, progress: Progress) -> Adapted:
    """Add a row to the model in ``base``; see ``SupportsAdapt.adapt``.

    What the examples are worth to the new model is measured without them: each is scored under
    the row that all others make.
    """
    config = read_config(base)
    record = NetworkRecord.of(base, config)
    if record.scorer != "one_pass":
        raise ConfigError(
            f"{base}: its scorer is {record.scorer!r}; rows are added to what one_pass reads"
        )
    remembered = load_remembered(base)
    (label,) = {config.labels.index(examples.label_names[y]) for y in examples.labels_N}
    others = int((remembered.labels_N != label).sum())
    if others < LEAST_OTHERS:
        raise DataError(
            f"{base}: remembers {others} held-out texts of other labels than "
            f"{config.labels[label]!r}; {LEAST_OTHERS} are needed to tell new examples from"
        )
    where = pick_device(device)
    net = load_network(base).to(where, pick_dtype(record.dtype, where))
    how = (config.window_pooling, config.neutral_index)
    ngrams = load_text_ngrams(base, record)
    progress("read examples", 0, len(examples))
    new = read_windows(
        net.eval(),
        encode(read_tokenizer(base), examples.texts),
        np.full(len(examples), label),
        window=record.window_tokens,
        overlap=record.overlap_tokens,
        device=where,
        beside_NC=None if ngrams is None else ngrams.logits(examples.texts, *how),
    )
    progress("read examples", len(examples), len(examples))
    rows = load_rows(base) or AddedRows(0)
    new, remembered = _with(rows, new), _with(rows, remembered)
    contrast = Contrast(remembered, label, *how)

    left_out_NC = new.pooled(*how)  # what a single example is worth to itself: nothing new
    for i in range(len(new) if len(new) > 1 else 0):
        progress("measure", i, len(new))
        others_N = [j for j in range(len(new)) if j != i]
        without_it = fit_row(new.of_texts(others_N), contrast, rows)
        left_out_NC[i] = _with(without_it, new.of_texts([i]), after=len(rows)).pooled(*how)
    progress("measure", len(new), len(new))

    more = fit_row(new, contrast, rows)
    folder = out / "artefact"
    shutil.copytree(base, folder, ignore=shutil.ignore_patterns("SHA256SUMS", "model.onnx"))
    more.save(folder)
    return Adapted(
        folder,
        BeforeAfter(
            remembered.pooled(*how),
            _with(more, remembered, after=len(rows)).pooled(*how),
            remembered.tokens_N,
            remembered.labels_N,
            remembered.sources,
        ),
        BeforeAfter(new.pooled(*how), left_out_NC, new.tokens_N, new.labels_N),
    )


def _with(rows: AddedRows, texts: Windows, *, after: int = 0) -> Windows:
    """Return texts with ``rows`` in their logits, the first ``after`` of which are there."""
    added = rows.since(after)
    return replace(texts, logits_WC=added.of(texts.logits_WC, texts.sketch_WK))
