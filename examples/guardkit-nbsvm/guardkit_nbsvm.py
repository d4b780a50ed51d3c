"""NB-SVM on word uni- and bigrams: Wang and Manning 2012, "Baselines and Bigrams".

A linear SVM on which words and word pairs a text has, each scaled by its naive-Bayes log-count
ratio. Shape letters: N texts, V terms, C labels, T tokens of one text.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from pydantic import BaseModel, Field
from safetensors.numpy import load_file, save_file

import guardkit
from guardkit import Evidence, Examples, Progress, RawScores, TrainingData, hookimpl

# Words and punctuation as Mesnil et al. 2015 split them for their IMDB results. (They delete
# <br />; here a tag is a token too, so that every feature has its place in the text.)
TOKEN = re.compile(r"""</?\w+ ?/?>|[.,"()!?;:<]|[^\s.,"()!?;:<]+""")


class NBSVMConfig(BaseModel, extra="forbid", frozen=True):
    C: float = Field(default=0.03, gt=0, description="larger: fit the training texts more closely")
    alpha: float = Field(default=1.0, gt=0, description="added to every count before the log ratio")
    min_count: int = Field(default=1, ge=1, description="leave out terms in fewer texts")


class NBSVM:
    name: str = "nbsvm"
    summary: str = "linear SVM on words and word pairs, scaled by naive Bayes; CPU, a minute"
    config: type[BaseModel] = NBSVMConfig
    presets: Mapping[str, Mapping[str, Any]] = {}
    builtin: Path | None = None

    def train(
        self, data: TrainingData, config: NBSVMConfig, out: Path, *, pretrain: Examples | None,
        init: str | None, resume: bool, device: str, progress: Progress,
    ) -> Path:  # fmt: skip
        """Fit one SVM per label against the rest. ``resume`` starts afresh: it is quick."""
        from sklearn.svm import LinearSVC

        if init is not None:
            raise guardkit.ConfigError(f"nbsvm cannot start from a model: leave out init {init!r}")
        labels = list(data.label_names)
        vectorizer = _vectorizer(min_df=config.min_count)
        x_NV = vectorizer.fit_transform(data.train.texts)
        weights_VC = np.zeros((x_NV.shape[1], len(labels)), np.float32)
        bias_C = np.zeros(len(labels), np.float32)
        # one SVM tells two labels apart: the first label's weights mirror the second's
        targets = [1] if len(labels) == 2 else list(range(len(labels)))
        for done, label in enumerate(targets):
            progress("svm", done, len(targets), labels[label])
            y_N = data.train.labels_N == label
            p_V = config.alpha + np.asarray(x_NV[y_N].sum(0)).ravel()
            q_V = config.alpha + np.asarray(x_NV[~y_N].sum(0)).ravel()
            ratio_V = np.log(p_V / p_V.sum()) - np.log(q_V / q_V.sum())
            svm = LinearSVC(C=config.C, random_state=0, max_iter=10_000)
            svm.fit(x_NV.multiply(ratio_V).tocsr(), y_N)
            weights_VC[:, label], bias_C[label] = ratio_V * svm.coef_[0], svm.intercept_[0]
        if len(labels) == 2:
            weights_VC[:, 0], bias_C[0] = -weights_VC[:, 1], -bias_C[1]
        progress("svm", len(targets), len(targets))

        save_file({"weights": weights_VC, "bias": bias_C}, out / "model.safetensors")
        terms = vectorizer.get_feature_names_out().tolist()
        guardkit.write_json(out / "vocabulary.json", {"terms": terms})
        pooling, neutral = guardkit.choose_pooling(labels, None, "auto")
        about = guardkit.ArtefactConfig(
            family=self.name, labels=labels, neutral=neutral, window_pooling=pooling,
            network={"terms": len(terms)}, training=config.model_dump(),
        )  # fmt: skip
        guardkit.write_json(out / "config.json", about)
        return out

    def load(self, path: Path, *, device: str, backend: str) -> NBSVMClassifier:
        """Load from ``path``. It runs on the CPU, whatever ``device`` and ``backend`` say."""
        terms = json.loads((path / "vocabulary.json").read_text("utf-8"))["terms"]
        weights, labels = load_file(path / "model.safetensors"), guardkit.read_config(path).labels
        vectorizer = _vectorizer(vocabulary={term: v for v, term in enumerate(terms)})
        return NBSVMClassifier(path.name, tuple(labels), vectorizer, **weights)


@dataclass(frozen=True)
class NBSVMClassifier:
    id: str
    labels: tuple[str, ...]
    vectorizer: Any
    weights: np.ndarray  # (V, C)
    bias: np.ndarray  # (C,)

    def score(
        self, texts: Sequence[str], *, novelty: bool = False, evidence: bool = False
    ) -> RawScores:
        """Return the SVM margins. A text is read whole, in one window, however long."""
        return RawScores(
            logits_NC=self.vectorizer.transform(texts) @ self.weights + self.bias,
            tokens_N=np.array([len(TOKEN.findall(text)) for text in texts], np.int64),
            windows_N=np.ones(len(texts), np.int64),
            truncated_N=np.zeros(len(texts), bool),
            evidence=[self._evidence(text) for text in texts] if evidence else None,
        )

    def _evidence(self, text: str) -> Evidence:
        """Share each term's weight among its tokens: with the bias they add up to the logits."""
        spans = [match.span() for match in TOKEN.finditer(text)]
        values_TC = np.zeros((len(spans), len(self.labels)), np.float32)
        for term, places in _terms(text).items():
            if (v := self.vectorizer.vocabulary.get(term)) is not None:
                np.add.at(values_TC, places, self.weights[v] / len(places))
        return Evidence(scorer="nbsvm", spans=spans, values_TC=values_TC)


def _terms(text: str) -> dict[str, list[int]]:
    """Return the words and word pairs of ``text``, each with the positions of its tokens."""
    places: dict[str, list[int]] = {}
    words = [token.lower() for token in TOKEN.findall(text)]
    for t, word in enumerate(words):
        places.setdefault(word, []).append(t)
        if t > 0:
            places.setdefault(f"{words[t - 1]} {word}", []).extend((t - 1, t))
    return places


def _vectorizer(**options: Any) -> Any:
    from sklearn.feature_extraction.text import CountVectorizer

    return CountVectorizer(analyzer=_terms, binary=True, dtype=np.float32, **options)


def median(log_odds_MN: np.ndarray, prior_log_odds_M: np.ndarray) -> np.ndarray:
    """Of three members or more, one that is broken cannot carry the text."""
    return np.asarray(np.median(log_odds_MN, axis=0), np.float32)


@hookimpl
def register_classifiers() -> Sequence[guardkit.ClassifierFamily]:
    return [NBSVM()]


@hookimpl
def register_combiners() -> Mapping[str, guardkit.Combiner]:
    return {"median": median}
