"""benchmarks/injection/explanations.py on a model of ten words, evidence right, wrong or noise."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from benchmarks.injection import explanations
from guardkit.calibration.maps import Calibration
from guardkit.model.artefact import ArtefactConfig
from guardkit.model.loaded import Model
from guardkit.types import Evidence, RawScores

LABELS = ("benign", "injection")
WEIGHTS = dict(zip("abcdefghij", np.linspace(-1, 2, 10).tolist(), strict=True))
Told = Callable[[Sequence[float]], Sequence[float]]


class Words:
    """Adds up the weights of a text's words, and tells ``told`` of them as its evidence."""

    id, labels = "words", LABELS

    def __init__(self, told: Told) -> None:
        self.told = told

    def score(
        self, texts: Sequence[str], *, novelty: bool = False, evidence: bool = False
    ) -> RawScores:
        weights = [[WEIGHTS[word] for word in text.split()] for text in texts]
        ones = np.ones(len(texts), np.int64)
        logits_NC = np.array([[0.0, sum(own)] for own in weights], np.float32)
        found = None
        if evidence:
            found = [
                Evidence(
                    "sum of words",
                    [m.span() for m in re.finditer(r"\S+", text)],
                    np.array([[0.0, v] for v in self.told(own)], np.float32),
                )
                for text, own in zip(texts, weights, strict=True)
            ]
        return RawScores(logits_NC, ones, ones, np.zeros(len(texts), bool), evidence=found)


def noise(weights: Sequence[float]) -> list[float]:
    values: list[float] = np.random.default_rng(len(weights)).normal(size=len(weights)).tolist()
    return values


TOLD: dict[str, Told] = {
    "right": lambda weights: weights,
    "backwards": lambda weights: [-w for w in weights],
    "noise": noise,
}


def model(told: Told) -> Model:
    config = ArtefactConfig(family="words", labels=list(LABELS), neutral="benign", network={})
    calibration = Calibration(
        task="multiclass", labels=list(LABELS), scale=[1.0, 1.0], bias=[0.0, 0.0],
        prior=[0.5, 0.5], n=100, data="0" * 64, ece_before=0.0, ece_after=0.0,
        log_loss_before=0.0, log_loss_after=0.0,
    )  # fmt: skip
    return Model(Words(told), config, calibration, "hash", Path("words"))


@pytest.fixture(scope="module")
def injection(tmp_path_factory: pytest.TempPathFactory) -> Path:
    rng = np.random.default_rng(0)
    texts = [" ".join(rng.choice([*WEIGHTS], rng.integers(9, 30))) for _ in range(150)]
    rows = [{"text": text, "label": LABELS[i % 2]} for i, text in enumerate(texts)]
    folder = tmp_path_factory.mktemp("injection")
    lines = "".join(json.dumps(row) + "\n" for row in rows)
    (folder / "test.jsonl").write_text(lines, "utf-8")
    return folder


@pytest.fixture
def run(injection: Path, tmp_path: Path) -> Callable[[str], Any]:
    """Return f(told): the rows for attacks, by how much was deleted."""

    def run(told: str) -> Any:
        out = tmp_path / "explanations.json"
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(explanations, "load_model", lambda _: model(TOLD[told]))
            explanations.main(told, injection, texts=60, out=out)
        kind = json.loads(out.read_text("utf-8"))["models"][told]["kinds"]["injection"]
        return {row["delete"]: row for row in kind["rows"]}

    return run


def test_evidence_that_is_right_moves_the_score_by_what_it_says(run: Callable[[str], Any]) -> None:
    rows = run("right")
    assert rows[1]["drop"]["top"]["value"] == pytest.approx(2.0, abs=0.2)  # j is in most texts
    for row in rows.values():
        assert row["gain"]["drop"]["random"]["low"] > 0
        assert row["gain"]["drop"]["lowest"]["low"] > 0
    assert rows[0.2]["flips"]["top"]["value"] > rows[0.2]["flips"]["random"]["value"]


def test_evidence_that_is_backwards_is_found_out(run: Callable[[str], Any]) -> None:
    for row in run("backwards").values():
        assert row["gain"]["drop"]["random"]["high"] < 0


def test_evidence_that_is_noise_is_not_called_faithful(run: Callable[[str], Any]) -> None:
    row = run("noise")[0.2]
    gain = row["gain"]["drop"]["random"]
    assert gain["low"] < 0 < gain["high"]


def test_all_choices_delete_as_many_pieces_and_a_text_too_short_is_left_out(
    run: Callable[[str], Any],
) -> None:
    rows = run("right")
    assert rows[8]["texts"] < rows[1]["texts"]
    for row in rows.values():
        top, *others = (row["characters"][name] for name in ("top", "random", "lowest"))
        assert others == pytest.approx([top, top])  # every word here is one letter
    text = "say 日本 twice"
    pieces = [explanations.Piece(3, 4, 0.0), explanations.Piece(5, 6, 0.0)]
    assert explanations.without(text, pieces) == "say日 twice"
