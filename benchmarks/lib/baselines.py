"""Linear models of words that the networks are compared with."""

from __future__ import annotations

import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy.typing as npt
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import Pipeline, make_pipeline

from benchmarks.lib.paths import NBSVM_EXAMPLE
from guardkit import Classifier, Examples, TrainingData


def words_and_pairs() -> TfidfVectorizer:
    """Return TF-IDF of words and pairs of words that two texts have, not fitted yet."""
    return TfidfVectorizer(ngram_range=(1, 2), sublinear_tf=True, min_df=2)


def fit_tfidf(texts: Sequence[str], labels_N: npt.ArrayLike, **options: Any) -> Pipeline:
    """Fit a logistic regression, ``options`` its own, on TF-IDF of words and pairs of words."""
    model = make_pipeline(words_and_pairs(), LogisticRegression(C=10.0, **options))
    return model.fit(texts, labels_N)


def fit_nbsvm(train: Examples) -> tuple[Classifier, dict[str, Any]]:
    """Fit examples/guardkit-nbsvm, and return it with its options, which are the defaults."""
    if str(NBSVM_EXAMPLE) not in sys.path:
        sys.path.append(str(NBSVM_EXAMPLE))  # an example of a plugin that nobody installed
    from guardkit_nbsvm import register_classifiers

    (family,) = register_classifiers()
    options = family.config()
    with tempfile.TemporaryDirectory() as work:
        folder = family.train(
            TrainingData(train, train), options, Path(work), pretrain=None, init=None,
            resume=False, device="cpu", progress=lambda *_: None,
        )  # fmt: skip
        classifier: Classifier = family.load(folder, device="cpu", backend="torch")
    return classifier, options.model_dump()
