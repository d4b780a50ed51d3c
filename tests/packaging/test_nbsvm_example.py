"""The NB-SVM example agrees with a plain reading of Wang and Manning 2012."""

from __future__ import annotations

import importlib
import math
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from sklearn.svm import LinearSVC

from guardkit import ConfigError, Examples, TrainingData, read_config

from .conftest import ROOT

TEXTS = [
    "good film , good end",
    "a bad film",
    "Good! Truly good...",
    "bad bad bad",
    "a film",
    "dull and long",
    "long and GOOD",
    "dull, dull end",
]
TWO = np.array([1, 0, 1, 0, 1, 0, 1, 0])
THREE = np.array([1, 0, 1, 0, 1, 2, 1, 2])


@pytest.fixture(scope="module")
def nbsvm() -> Any:
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(ROOT / "examples" / "guardkit-nbsvm"))
        yield importlib.import_module("guardkit_nbsvm")


def trained(nbsvm: Any, out: Path, labels_N: np.ndarray, **options: Any) -> Any:
    names = ("negative", "positive", "tedious")[: labels_N.max() + 1]
    examples = Examples(TEXTS, labels_N, names)
    family, data = nbsvm.NBSVM(), TrainingData(examples, examples)
    folder = family.train(
        data, nbsvm.NBSVMConfig(**options), out, pretrain=None, init=None, resume=False,
        device="cpu", progress=lambda *_: None,
    )  # fmt: skip
    assert read_config(folder).labels == list(names)
    return family.load(folder, device="cpu", backend="torch")


def margins(positive_N: np.ndarray, texts: list[str], C: float, alpha: float) -> list[float]:
    """NB-SVM written out, one term at a time."""

    def terms(text: str) -> set[str]:
        for mark in '.,!?;:"()':
            text = text.replace(mark, f" {mark} ")
        words = text.lower().split()
        return set(words) | {" ".join(pair) for pair in pairwise(words)}

    vocabulary = sorted(set().union(*(terms(text) for text in TEXTS)))
    counts = {True: dict.fromkeys(vocabulary, alpha), False: dict.fromkeys(vocabulary, alpha)}
    for text, positive in zip(TEXTS, positive_N, strict=True):
        for term in terms(text):
            counts[bool(positive)][term] += 1
    totals = {side: sum(counts[side].values()) for side in counts}
    ratio = {
        term: math.log(counts[True][term] / totals[True] / (counts[False][term] / totals[False]))
        for term in vocabulary
    }

    def features(texts: list[str]) -> list[list[float]]:
        return [[ratio[t] if t in terms(text) else 0.0 for t in vocabulary] for text in texts]

    svm = LinearSVC(C=C, random_state=0, max_iter=10_000, tol=1e-8)
    svm.fit(features(TEXTS), positive_N)
    result: list[float] = svm.decision_function(features(texts)).tolist()
    return result


UNSEEN = [*TEXTS, "good and bad", "entirely unknown words", ""]


@pytest.mark.parametrize(("C", "alpha"), [(0.03, 1.0), (1.0, 0.5)])
def test_two_labels_are_told_apart_by_one_svm(
    nbsvm: Any, tmp_path: Path, C: float, alpha: float
) -> None:
    raw = trained(nbsvm, tmp_path, TWO, C=C, alpha=alpha).score(UNSEEN)
    expected = margins(TWO == 1, UNSEEN, C, alpha)
    assert raw.logits_NC[:, 1] == pytest.approx(expected, abs=2e-3)
    assert raw.logits_NC[:, 0] == pytest.approx(-raw.logits_NC[:, 1])


def test_more_labels_are_each_told_apart_from_the_rest(nbsvm: Any, tmp_path: Path) -> None:
    raw = trained(nbsvm, tmp_path, THREE).score(UNSEEN)
    for label in range(3):
        expected = margins(label == THREE, UNSEEN, 0.03, 1.0)
        assert raw.logits_NC[:, label] == pytest.approx(expected, abs=2e-3)


@pytest.mark.parametrize("labels_N", [TWO, THREE], ids=["two labels", "three labels"])
def test_evidence_and_bias_add_up_to_the_logits(
    nbsvm: Any, tmp_path: Path, labels_N: np.ndarray
) -> None:
    classifier = trained(nbsvm, tmp_path, labels_N)
    texts = [*UNSEEN, "Good<br />good, GOOD; İ bad (bad)"]
    raw = classifier.score(texts, evidence=True)
    for text, logits_C, evidence in zip(texts, raw.logits_NC, raw.evidence, strict=True):
        assert evidence.values_TC.sum(0) + classifier.bias == pytest.approx(logits_C, abs=1e-5)
        tokens = [text[start:end] for start, end in evidence.spans]
        assert "".join(tokens) == "".join(text.split()).replace("<br/>", "<br />")


def test_a_text_is_read_whole_whatever_its_length(nbsvm: Any, tmp_path: Path) -> None:
    raw = trained(nbsvm, tmp_path, TWO).score(["good " * 50_000, ""])
    assert raw.tokens_N.tolist() == [50_000, 0]
    assert raw.windows_N.tolist() == [1, 1]
    assert not raw.truncated_N.any()


def test_training_twice_gives_the_same_files(nbsvm: Any, tmp_path: Path) -> None:
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
        trained(nbsvm, tmp_path / name, THREE)
    for path in (tmp_path / "one").iterdir():
        assert path.read_bytes() == (tmp_path / "two" / path.name).read_bytes()


def test_a_model_to_start_from_is_refused(nbsvm: Any, tmp_path: Path) -> None:
    examples = Examples(TEXTS, TWO, ("negative", "positive"))
    with pytest.raises(ConfigError, match="leave out init 'gpt2'"):
        nbsvm.NBSVM().train(
            TrainingData(examples, examples), nbsvm.NBSVMConfig(), tmp_path, pretrain=None,
            init="gpt2", resume=False, device="cpu", progress=lambda *_: None,
        )  # fmt: skip


def test_the_median_is_not_carried_by_one_broken_member(nbsvm: Any) -> None:
    log_odds_MN = np.array([[-2.0, 3.0], [-1.0, 2.0], [90.0, -90.0]], np.float32)
    merged = nbsvm.median(log_odds_MN, np.zeros(3, np.float32))
    assert merged.tolist() == [-1.0, 2.0]
    assert merged.dtype == np.float32


def test_the_examples_stay_as_short_as_their_descriptions_say() -> None:
    lines = (ROOT / "examples" / "guardkit-nbsvm" / "guardkit_nbsvm.py").read_text("utf-8")
    assert lines.count("\n") < 150
