"""``guardkit calibrate``: what becomes of the copy, what is printed, what is refused."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest

from guardkit.calibration.maps import read_calibration
from guardkit.classify.records import by_model
from guardkit.cli.main import main
from guardkit.data.hashes import texts_hash
from guardkit.errors import ArtefactError
from guardkit.evaluation.measure import evaluate_model
from guardkit.model import artefact
from guardkit.model.artefact import CALIBRATION, CARD, METRICS, seal, write_json
from guardkit.model.loaded import load_model
from guardkit.policy.router import load_policy
from guardkit.types import Examples, RawScores, Row
from tests.support.fake_models import (
    FakeClassifier,
    FakeFamily,
    ScorersFamily,
    plugins_of,
    write_model,
)

LABELS = ("benign", "injection")
CALIBRATE = ["calibrate", "--model", "model", "--data", "mail.jsonl", "--out", "new"]
CARD_TEXT = """\
# model

## Results

| set | texts |

## Calibration

Fitted on 9 texts.

## Limits

- Some.
"""


class Counting(FakeClassifier):
    """A text's tokens are its words."""

    def score(
        self, texts: Sequence[str], *, novelty: bool = False, evidence: bool = False
    ) -> RawScores:
        scores = super().score(texts)
        return RawScores(
            scores.logits_NC,
            np.array([len(text.split()) for text in texts]),
            scores.windows_N,
            scores.truncated_N,
        )


class Family(FakeFamily):
    def load(self, path: Path, *, device: str, backend: str) -> Counting:
        loaded = super().load(path, device=device, backend=backend)
        return Counting(self, loaded.id, loaded.labels)


class Scored(ScorersFamily):
    """A family with scorers, whose tokens are words."""

    def load(self, path: Path, *, device: str, backend: str) -> Counting:
        loaded = super().load(path, device=device, backend=backend)
        return Counting(self, loaded.id, loaded.labels)


def answer(model: str, text: str) -> list[float]:
    """A text begins with the score of its injection label."""
    if text.startswith("BROKEN"):
        return [float("nan")] * 2
    return [0.0, float(text.split()[0])]


def rows(n: int, *, exponent: float = 0.0, seed: int = 0) -> list[dict[str, str]]:
    """Return texts whose score is four times too sure at 30 words."""
    rng = np.random.default_rng(seed)
    lines = []
    for i in range(n):
        z, words = rng.normal(scale=8), int(rng.integers(3, 300))
        p = 1 / (1 + np.exp(-z / 4 * (words / 30) ** -exponent))
        text = " ".join([f"{z:.4f}", f"text{seed}.{i}", *["word"] * (words - 2)])
        lines.append({"text": text, "label": LABELS[int(rng.random() < p)]})
    return lines


def write(lines: list[dict[str, str]], path: str = "mail.jsonl") -> Examples:
    Path(path).write_text("".join(json.dumps(line) + "\n" for line in lines))
    labels_N = np.array([LABELS.index(line["label"]) for line in lines])
    return Examples([line["text"] for line in lines], labels_N, LABELS)


@pytest.fixture(autouse=True)
def model(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Work in a folder with a model whose calibration changes nothing."""
    plugins = plugins_of(Family(answer))
    for module in ("model.loaded", "policy.router", "training.train"):
        monkeypatch.setattr(f"guardkit.{module}.installed_plugins", lambda: plugins)
    monkeypatch.chdir(tmp_path)
    folder = write_model(tmp_path / "model", LABELS)
    (folder / CARD).write_text(CARD_TEXT)
    write_json(folder / METRICS, {"data": {"train": "0"}})
    (folder / "weights.json").write_text("[1, 2]")
    seal(folder)
    return folder


def test_a_copy_gets_the_new_calibration_and_keeps_all_else(
    model: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    before = {path.name: path.read_bytes() for path in model.iterdir()}
    examples = write(rows(400))
    assert main(CALIBRATE) == 0
    new = load_model("new")  # its hashes hold
    assert new.hash != load_model("model").hash
    assert {path.name: path.read_bytes() for path in model.iterdir()} == before
    assert Path("new/weights.json").read_bytes() == before["weights.json"]
    calibration = read_calibration(Path("new", CALIBRATION))
    assert calibration.method == "platt"
    assert calibration.scale[0] == pytest.approx(0.25, rel=0.25)
    assert calibration.n == 400
    assert calibration.data == texts_hash(examples.texts, [str(y) for y in examples.labels_N])
    assert calibration.replaces == "0" * 64
    assert json.loads(Path("new", METRICS).read_text()) == {
        "data": {"train": "0"},
        "recalibrated_from": load_model("model").hash,
    }
    out = capsys.readouterr().out
    assert "400 texts (benign" in out
    assert "log-loss saved: 0." in out
    assert "not shown" not in out
    assert "the model is in new" in out


def test_the_card_says_how_it_was_calibrated_and_is_else_the_same() -> None:
    write(rows(400))
    assert main(CALIBRATE) == 0
    card = Path("new", CARD).read_text()
    start, end = CARD_TEXT.split("Fitted on 9 texts.")
    assert card.startswith(start)
    assert card.endswith(end)
    assert "Calibrated anew" in card
    assert "Fitted on 400 texts" in card
    assert "Method: platt" in card
    again = ["calibrate", "--model", "new", "--data", "more.jsonl", "--out", "newer"]
    write(rows(300, seed=5), "more.jsonl")
    assert main(again) == 0
    card = Path("newer", CARD).read_text()
    assert card.count("## Calibration") == card.count("## Limits") == 1
    assert "Fitted on 400 texts" not in card


def test_every_scorer_is_calibrated_on_the_same_texts(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def halved(model: str, text: str) -> list[float]:
        return [z / 2 if model.endswith("/cheap") else z for z in answer(model, text)]

    offered = dict.fromkeys(("model", "new"), ("own", "cheap"))
    plugins = plugins_of(Scored(halved, offered=offered))
    monkeypatch.setattr("guardkit.model.loaded.installed_plugins", lambda: plugins)
    write(rows(400))
    assert main(CALIBRATE) == 0
    calibration = read_calibration(Path("new", CALIBRATION))
    cheap = calibration.of("cheap")
    assert cheap is not None
    assert (cheap.n, cheap.data, cheap.replaces) == (400, calibration.data, None)
    assert cheap.scale[0] == pytest.approx(2 * calibration.scale[0], rel=1e-2)
    texts = ["3 one text", "-8 another text"]
    own, other = (load_model("new", scorer=x).probabilities(texts) for x in ("own", "cheap"))
    np.testing.assert_allclose(own, other, atol=1e-2)
    assert "| `cheap` | platt |" in Path("new", CARD).read_text()
    assert "cheap" in capsys.readouterr().out


def test_a_model_without_probabilities_gets_some(capsys: pytest.CaptureFixture[str]) -> None:
    write_model(Path("raw"), LABELS, calibrated=False)
    write(rows(200))
    command = ["calibrate", "--model", "raw", "--data", "mail.jsonl", "--out", "new"]
    assert main(command) == 0
    assert "before: no calibration" in capsys.readouterr().out
    new = load_model("new")
    assert new.calibrated().replaces is None
    assert new.probabilities(["0 a text"]).sum() == pytest.approx(1.0)
    assert "Calibrated anew" not in Path("new", CARD).read_text()


def test_the_models_own_folder_is_replaced_whole_when_asked_for(model: Path) -> None:
    write(rows(200))
    old = load_model("model").hash
    assert main([*CALIBRATE[:-1], "model"]) == 0
    assert load_model("model").hash != old
    assert load_model("model").calibrated().n == 200
    assert sorted(path.name for path in model.parent.iterdir()) == ["mail.jsonl", "model"]


def test_another_folder_that_exists_is_not_touched(capsys: pytest.CaptureFixture[str]) -> None:
    write(rows(200))
    Path("new").mkdir()
    assert main(CALIBRATE) == 2
    assert "new: exists already" in capsys.readouterr().err
    assert list(Path("new").iterdir()) == []


def test_the_labels_of_the_data_may_stand_in_any_order() -> None:
    lines = rows(200)
    write([line for line in lines if line["label"] == "injection"][:1] + lines)
    assert main(CALIBRATE) == 0
    first = load_model("new").calibrated()
    assert first.labels == list(LABELS)
    assert first.scale[0] > 0.1  # columns that were mixed up would leave it at its least


def test_a_length_aware_map_holds_wherever_the_model_is_asked(tmp_path: Path) -> None:
    write(rows(600, exponent=0.8))
    assert main([*CALIBRATE, "--method", "length"]) == 0
    new = load_model("new")
    length = new.calibrated().length
    assert length is not None
    assert length.exponent == pytest.approx(0.8, abs=0.25)
    texts = ["5.0 short text", " ".join(["5.0", *["long"] * 200]), "-3.0 a text in between " * 9]
    scale_N = new.calibrated().scale[0] * length.factor_N(np.array([3, 201, 45]))
    z_N = scale_N * [5.0, 5.0, -3.0] + new.calibrated().bias[1]
    p_N = 1 / (1 + np.exp(-z_N))
    assert p_N[0] > p_N[1] + 0.05

    assert new.probabilities(texts)[:, 1] == pytest.approx(p_N, abs=1e-5)
    records = by_model(new)([Row(i, i, (text,)) for i, text in enumerate(texts)])
    assert [r.probabilities["injection"] for r in records] == pytest.approx(p_N, abs=1e-5)
    examples = Examples(texts, np.array([1, 0, 0]), LABELS)
    brier = evaluate_model(new, examples)["metrics"]["brier"]["value"]
    assert brier == pytest.approx(((p_N - examples.labels_N) ** 2).mean(), abs=1e-5)
    Path("policy.yaml").write_text(
        "version: 1\nname: t\n"
        "members: {first: {plugin: fake, model: model}, second: {plugin: fake, model: new}}\n"
        "categories:\n  c:\n    positive: [injection]\n    action: block\n"
        "    flag_at: {probability: 0.5}\n    decide:\n      cascade:\n"
        "        - {member: first, settle: {below: 0.1, above: 0.999}}\n"
        "        - member: second\n"
    )
    decisions = load_policy(Path("policy.yaml")).decide(texts)
    scores = [d.categories["c"].score for d in decisions]
    assert [d.categories["c"].decided_by for d in decisions] == ["second", "second", "first"]
    assert scores[:2] == pytest.approx(p_N[:2], abs=1e-5)


def test_a_picture_is_drawn_where_one_is_asked_for() -> None:
    write(rows(200))
    assert main([*CALIBRATE, "--picture", "reliability.svg"]) == 0
    assert Path("reliability.svg").read_text().startswith("<svg")
    assert main([*CALIBRATE, "--picture", "nowhere/reliability.svg"]) == 2


def test_what_the_model_was_trained_on_is_refused(
    model: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    examples = write(rows(200))
    trained = texts_hash(examples.texts, [str(y) for y in examples.labels_N])
    write_json(model / METRICS, {"data": {"train": trained}})
    seal(model)
    assert main(CALIBRATE) == 2
    assert "was trained on these examples" in capsys.readouterr().err
    assert not Path("new").exists()


@pytest.mark.parametrize(
    ("lines", "message"),
    [
        ([x for x in rows(100) if x["label"] == "benign"], "0 examples labelled 'injection'"),
        (rows(8), "needs 10 of each label at least"),
        ([x | {"group": "one"} for x in rows(100)], "1 examples labelled 'benign'"),
        ([{**x, "label": "eggs"} for x in rows(30)], "label 'eggs', the model benign, injection"),
        ([*rows(60), {"text": "BROKEN", "label": "benign"}], "calibration text 60: the classifier"),
    ],
)
def test_data_that_cannot_calibrate_is_refused(
    lines: list[dict[str, str]], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    Path("mail.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    assert main(CALIBRATE) in (2, 3)
    assert message in capsys.readouterr().err
    assert not Path("new").exists()


def test_a_damaged_model_is_refused(model: Path) -> None:
    write(rows(200))
    (model / "weights.json").write_text("[1, 3]")
    assert main(CALIBRATE) == 2
    with pytest.raises(ArtefactError):
        artefact.verify(model)
