"""benchmarks/imdb on two hundred made-up reviews."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from benchmarks.imdb import scorers
from benchmarks.imdb.experiment import Experiment
from benchmarks.imdb.measure import SHOWN, measure
from benchmarks.imdb.rows import ROWS
from benchmarks.imdb.scorers import kept
from guardkit.data.examples import load_split
from guardkit.data.splits import load_data_splits
from guardkit.evaluation.measure import evaluate_model
from guardkit.model.loaded import load_model
from guardkit.training.train import Recipe, train_model
from guardkit.types import FloatArray, IntArray

COMMON = ["plot", "acting", "film", "the", "a"]
WORDS = {"neg": ["dull", "slow", "bad", *COMMON], "pos": ["fine", "warm", "good", *COMMON]}
OPTIONS = {
    "vocab_size": "300", "hidden_dim": "32", "n_blocks": "1", "n_heads": "2", "cond_dim": "8",
    "window_tokens": "24", "overlap_tokens": "6", "batch_tokens": "512", "epochs": "1",
}  # fmt: skip


@pytest.fixture(scope="module")
def reviews(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A folder laid out like the IMDB set: two reviews a film."""
    folder = tmp_path_factory.mktemp("imdb")
    rng = np.random.default_rng(0)
    for split, n in (("train", 400), ("test", 80)):
        rows = []
        for i in range(n):
            label = ("neg", "pos")[i % 2]
            words = rng.choice(WORDS[label], rng.integers(4, 40))
            rows.append({"text": " ".join(words), "label": label, "movie": f"{split}{i // 2}"})
        lines = "".join(json.dumps(row) + "\n" for row in rows)
        (folder / f"{split}.jsonl").write_text(lines, "utf-8")
    return str(folder)


@pytest.fixture(scope="module")
def model(reviews: str, tmp_path_factory: pytest.TempPathFactory) -> Path:
    result = train_model(
        Recipe("mdlm", reviews, overrides=OPTIONS),
        tmp_path_factory.mktemp("models") / "tiny",
        device="cpu",
        progress=lambda *_: None,
    )
    assert result is not None
    return result.path


@pytest.fixture
def experiment(tmp_path: Path) -> Experiment:
    return Experiment(tmp_path, tmp_path / "imdb.json")


def results(experiment: Experiment) -> dict[str, Any]:
    stored = json.loads(experiment.results.read_text("utf-8"))
    rows = {row["name"]: row["runs"].get("0") for row in stored["rows"]}
    return rows | {"gains": stored["gains"]}


def test_every_row_that_can_be_made_is_and_the_others_are_named_as_not_run(
    experiment: Experiment, reviews: str, model: Path
) -> None:
    measure(experiment, reviews, ["random", "nbsvm-all", "nbsvm", "tfidf"])
    alone = ["mdlm-naive-bayes", "mdlm-wide", "mdlm-ngrams", "mdlm-network", "mdlm-generative"]
    measure(experiment, reviews, ["mdlm-one-pass", *alone], model=model, evaluations=2)
    measure(experiment, reviews, ["mdlm-both", "stacked-nbsvm", "stacked-all"])
    rows = results(experiment)
    assert {name for name in ROWS if rows[name]} == {
        "random", "nbsvm-all", "nbsvm", "tfidf", "mdlm-one-pass", *alone, "mdlm-both",
        "stacked-nbsvm",
    }  # fmt: skip
    assert rows["tfidf"]["accuracy"]["value"] > 0.9 > rows["random"]["accuracy"]["value"]
    assert rows["nbsvm-all"]["options"]["reviews"] > rows["nbsvm"]["options"]["reviews"]
    assert rows["mdlm-generative"]["options"]["evaluations"] == 2
    pairs = {(gain["first"], gain["second"]) for gain in rows["gains"]}
    assert ("mdlm-one-pass", "mdlm-ngrams") in pairs
    gain = next(g for g in rows["gains"] if g["second"] == "mdlm-wide")["accuracy"]["value"]
    network, wide = (rows[n]["accuracy"]["value"] for n in ("mdlm-network", "mdlm-wide"))
    assert gain == pytest.approx(network - wide)


def test_the_row_of_the_network_alone_is_its_one_pass_without_n_grams(
    experiment: Experiment, reviews: str, model: Path
) -> None:
    from guardkit.calibration.fit import fit_calibration

    measure(experiment, reviews, ["mdlm-one-pass", "mdlm-ngrams", "mdlm-network"], model=model)
    loaded, parts = load_model(model), load_data_splits(reviews, None, None)
    classifier: Any = loaded.classifier
    classifier._net.ngrams = classifier._ngrams = None
    assert parts.test is not None
    raw = [loaded.score(part.texts) for part in (parts.calibration, parts.test)]
    fitted = fit_calibration(
        raw[0].logits_NC, parts.calibration.labels_N, parts.train.label_names, data=""
    )
    alone = fitted.log_odds_NC(raw[1].logits_NC, raw[1].tokens_N)
    row = kept(experiment.row("mdlm-network", 0)).log_odds["test"]
    whole = kept(experiment.row("mdlm-one-pass", 0)).log_odds["test"]
    np.testing.assert_allclose(row, alone, atol=1e-2)
    assert np.abs(row - whole).max() > 0.1


def test_the_one_pass_row_is_what_guardkit_evaluate_says_to_the_digit(
    experiment: Experiment, reviews: str, model: Path
) -> None:
    measure(experiment, reviews, ["mdlm-one-pass"], model=model)
    report = evaluate_model(load_model(model), load_split(reviews, None)[1])
    row = results(experiment)["mdlm-one-pass"]
    assert {name: row[name] for name in SHOWN} == {name: report["metrics"][name] for name in SHOWN}


def test_the_naive_bayes_row_is_the_generative_score_of_an_untrained_network(
    experiment: Experiment, reviews: str, model: Path, tmp_path: Path
) -> None:
    import torch
    from guardkit_mdlm.loading import load_network
    from guardkit_mdlm.record import NetworkRecord
    from guardkit_mdlm.scoring import MdlmClassifier
    from guardkit_mdlm.tokenizer import encode, read_tokenizer
    from guardkit_mdlm.training.start import start_from_naive_bayes

    from guardkit import read_config

    parts = load_data_splits(reviews, None, None)
    tokenizer = read_tokenizer(model)
    net = load_network(model)
    fresh = type(net)(net.shape)
    start_from_naive_bayes(fresh, encode(tokenizer, parts.train.texts), parts.train.labels_N)
    config = read_config(model)
    record = NetworkRecord.of(model, config)
    classifier = MdlmClassifier("fresh", config, record, fresh.eval(), tokenizer, None)
    classifier._net = fresh.to(torch.float32)  # what is compared is the formula
    classifier.scorer = "generative"
    assert parts.test is not None
    texts = parts.test.texts[:20]
    logits_NC = classifier.score(texts).logits_NC
    bias_NC, _ = scorers.linear(model, "naive_bayes").score(texts)
    np.testing.assert_allclose(
        logits_NC[:, 1] - logits_NC[:, 0], bias_NC[:, 1] - bias_NC[:, 0], atol=0.02
    )


def test_an_interrupted_row_goes_on_where_it_was(
    experiment: Experiment, reviews: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(scorers, "CHUNK_TEXTS", 16)
    monkeypatch.setattr(scorers, "SAVE_S", 0.0)
    parts = load_data_splits(reviews, None, None)
    seen: list[int] = []

    def scorer(stop_at: int) -> Any:
        def score(texts: Sequence[str]) -> tuple[FloatArray, IntArray]:
            if len(seen) == stop_at:
                raise KeyboardInterrupt
            seen.append(len(texts))
            lengths_N = np.array([len(t) for t in texts])
            return np.stack([0 * lengths_N, lengths_N], 1).astype(np.float32), lengths_N

        return scorers.Scorer("by length", score)

    with pytest.raises(KeyboardInterrupt):
        scorers.calibrated(scorer(3), parts, tmp_path / "row.npz")
    opinion = scorers.calibrated(scorer(1000), parts, tmp_path / "row.npz")
    sets = (parts.calibration, parts.validation, parts.test)
    assert sum(seen) == sum(len(e) for e in sets if e)
    assert not np.isnan(opinion.log_odds["test"]).any()


def test_a_stack_is_fitted_on_the_calibration_reviews_alone() -> None:
    from sklearn.linear_model import LogisticRegression

    rng = np.random.default_rng(0)
    y_N = rng.integers(0, 2, 3000)
    parts: Any = SimpleNamespace(calibration=SimpleNamespace(labels_N=y_N))

    def opinion(noise: float) -> Any:
        z_N = (2 * y_N - 1) + noise * rng.normal(size=len(y_N))
        odds_NC = np.stack([-z_N, z_N], axis=1).astype(np.float32)
        other = rng.normal(size=(50, 2)).astype(np.float32)
        sets = {"calibration": odds_NC, "validation": other, "test": other}
        return scorers.Opinion(sets, 1.0)

    members = {"a": opinion(2.0), "b": opinion(3.0)}
    joined, _ = scorers.stacked(members, parts)
    x = {
        name: np.stack([o.log_odds[name][:, 1] for o in members.values()], axis=1)
        for name in ("calibration", "test")
    }
    expected = LogisticRegression(C=np.inf).fit(x["calibration"], y_N)
    np.testing.assert_allclose(
        joined.log_odds["test"][:, 1], expected.decision_function(x["test"]), atol=0.01
    )
    assert joined.seconds == 2.0
