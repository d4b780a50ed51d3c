"""benchmarks/imdb/estimators.py on a tiny network and some dozens of texts."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from guardkit_mdlm.estimators import ESTIMATORS, Scheme
from guardkit_mdlm.training.train import train

from benchmarks.imdb import estimators
from benchmarks.tables import fill
from guardkit import Examples, TrainingData, load_model
from guardkit.model.artefact import seal

from ..mdlm.conftest import TINY, make_examples, quiet

ROOT = Path(__file__).parents[2]
LABELS = ("neg", "pos")


@pytest.fixture(scope="module")
def reviews() -> Examples:
    return make_examples(60, 5, LABELS)


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A trained artefact whose windows are averaged, as reviews' are."""
    data = TrainingData(make_examples(160, 1, LABELS), make_examples(40, 2, LABELS))
    folder = train(
        data, TINY.model_copy(update={"window_pooling": "mean"}),
        tmp_path_factory.mktemp("estimators"), pretrain=None, init=None, resume=False,
        device="cpu", progress=quiet,
    )  # fmt: skip
    seal(folder)
    return folder


@pytest.fixture(scope="module")
def data(reviews: Examples, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("reviews") / "test.jsonl"
    rows = zip(reviews.texts, reviews.labels_N, strict=True)
    lines = [json.dumps({"text": text, "label": LABELS[y]}) for text, y in rows]
    path.write_text("\n".join(lines), "utf-8")
    return path


@pytest.fixture(scope="module")
def record(model: Path, data: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """What a run stores."""
    out = tmp_path_factory.mktemp("out") / "record.json"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(estimators, "LIMIT_PAIRS", 4)
        estimators.main(model, str(data), texts=50, curve_texts=20, seed=1, out=out)
    stored: dict[str, Any] = json.loads(out.read_text("utf-8"))
    return stored


def test_a_row_has_the_accuracy_that_the_classifier_has(
    record: dict[str, Any], model: Path, data: Path
) -> None:
    bench = estimators.prepare(model, str(data), 50, 1)
    classifier: Any = load_model(model).classifier

    def accuracy(scorer: str, evaluations: int = 2) -> float:
        classifier.scorer, classifier.scheme = scorer, Scheme("half_pairs", evaluations)
        logits_NC = classifier.score(bench.examples.texts).logits_NC
        return float((logits_NC.argmax(1) == bench.labels_N).mean())

    rows = record["rows"]
    for n in (2, 4, 8):
        assert rows[f"half_pairs_{n}"]["accuracy"]["value"] == accuracy("generative", n)
    assert rows["one_pass"]["accuracy"]["value"] == accuracy("one_pass")


def test_the_experiments_rule_is_the_mean_of_three_repeats(record: dict[str, Any]) -> None:
    row = record["rows"]["experiment"]
    assert len(row["repeats"]) == 3
    assert row["accuracy"]["value"] == pytest.approx(np.mean(row["repeats"]))
    gap = record["gaps"]["sharing"]
    best = record["rows"]["half_pairs_8"]["accuracy"]["value"]
    assert gap["value"] == pytest.approx(best - row["accuracy"]["value"])
    assert gap["low"] <= gap["value"] <= gap["high"]


def test_every_estimator_is_on_both_curves(record: dict[str, Any]) -> None:
    assert record["data"]["texts"] == 50
    assert record["curve"]["texts"] == 20
    points = record["curve"]["points"]
    for shared in (True, False):
        found = {p["estimator"]: [] for p in points}  # type: ignore[var-annotated]
        for p in points:
            if p["shared"] == shared:
                found[p["estimator"]].append(p["evaluations"])
        assert list(found) == list(ESTIMATORS)
        assert found["bernoulli"] == [1, 2, 4, 8]
        assert found["half_pairs"] == [2, 4, 8]
        assert found["partition"] == [4, 8]
    assert all(p["texts_per_s"] > 0 and abs(p["correlation"]) <= 1 for p in points)
    stopping = record["early_stopping"]
    assert 2 <= stopping["evaluations"] <= stopping["cap"]


def test_the_page_is_made_of_the_stored_figures(
    record: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    page = (ROOT / "docs" / "results" / "estimators.md").read_text("utf-8")
    monkeypatch.setattr(fill, "RESULTS", tmp_path)
    assert fill.filled(page).count("Not measured yet") == 5
    (tmp_path / "estimators_imdb.json").write_text(json.dumps(record), "utf-8")
    filled = fill.filled(page)
    assert "Not measured yet" not in filled
    assert fill.filled(filled) == filled
    best = record["rows"]["half_pairs_8"]["accuracy"]["value"]
    assert f"half pairs, shared masks, 8 evaluations | {best:.1%}" in filled
    assert filled.count("\n| half_pairs | ") == 3
