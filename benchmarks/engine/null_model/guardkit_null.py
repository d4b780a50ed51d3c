"""A plugin whose model costs nothing, so that all else can be measured: it draws its logits.

``io_null.py`` makes it known to its own runs alone.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from pydantic import BaseModel

from guardkit import ClassifierFamily, RawScores, hookimpl


class NullClassifier:
    id = "null"
    labels = ("benign", "injection")

    def score(
        self, texts: Sequence[str], *, novelty: bool = False, evidence: bool = False
    ) -> RawScores:
        """Return the same draws for every batch, its texts unread."""
        n = len(texts)
        ones_N = np.ones(n, np.int64)
        logits_NC = np.zeros((n, 2), np.float32)
        logits_NC[:, 1] = np.random.default_rng(0).normal(-2, 2, n)
        return RawScores(logits_NC, ones_N, ones_N, np.zeros(n, bool))


class NullFamily:
    name = "null"
    summary = "draws its answers"
    config = BaseModel
    presets: Mapping[str, Mapping[str, Any]] = {}
    builtin = None

    def train(self, *_: Any, **__: Any) -> Path:
        raise NotImplementedError("only scores")

    def load(self, path: Path, *, device: str, backend: str) -> NullClassifier:
        return NullClassifier()


@hookimpl
def register_classifiers() -> Sequence[ClassifierFamily]:
    return [NullFamily()]
