"""A model loads only if it is what it says, and a text that cannot be scored fails alone."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from guardkit.errors import ArtefactError, ClassifierError, PluginError
from guardkit.model import artefact
from guardkit.model.loaded import Model, load_model
from guardkit.model.scored import Scored
from guardkit.types import RawScores
from tests.support.fake_models import FakeFamily, Panic, plugins_of, write_model


def logits_of(model: str, text: str) -> list[float]:
    if text == "bad":
        raise MemoryError("too long")
    return [0.0, len(text)]


FAMILY = FakeFamily(logits_of)
PLUGINS = plugins_of(FAMILY)


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Model:
    """A model whose second logit is the length of the text, and which raises on "bad"."""
    return load_model(write_model(tmp_path_factory.mktemp("models") / "length"), plugins=PLUGINS)


@dataclass
class Returning:
    """A classifier that returns whatever ``logits`` makes of a batch."""

    logits: Callable[[Sequence[str]], Any]
    labels: tuple[str, ...] = ("benign", "injection")
    id: str = "returning"

    def score(
        self, texts: Sequence[str], *, novelty: bool = False, evidence: bool = False
    ) -> RawScores:
        ones = np.ones(len(texts), np.int64)
        logits_NC = np.asarray(self.logits(texts), np.float32)
        return RawScores(logits_NC, ones, ones, np.zeros(len(texts), bool))


# -- scoring ---------------------------------------------------------------------------------


@settings(deadline=None)
@given(texts=st.lists(st.sampled_from(["bad", "a", "bb", "ccc"]), max_size=12))
def test_a_text_that_raises_fails_alone(model: Model, texts: list[str]) -> None:
    scored = model.score(texts)
    bad = [i for i, text in enumerate(texts) if text == "bad"]
    assert scored.errors == dict.fromkeys(bad, "MemoryError: too long")
    for i, text in enumerate(texts):
        expected = [np.nan, np.nan] if text == "bad" else [0.0, len(text)]
        assert scored.logits_NC[i].tolist() == pytest.approx(expected, nan_ok=True)
    assert len(scored.tokens_N) == len(scored.windows_N) == len(scored.truncated_N) == len(texts)


def test_a_batch_without_trouble_is_scored_in_one_call(model: Model) -> None:
    FAMILY.calls.clear()
    model.score(["a", "b", "c"])
    assert FAMILY.calls == [("length", ["a", "b", "c"])]


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_a_row_that_is_not_finite_fails_alone_and_whole(model: Model, value: float) -> None:
    scores = [[0.0, 1.0], [0.0, value], [0.0, 1.0]]
    scored = replace(model, classifier=Returning(lambda texts: scores)).score(["a", "b", "c"])
    assert list(scored.errors) == [1]
    assert "not finite" in scored.errors[1]
    assert np.isnan(scored.logits_NC[1]).all()
    assert scored.logits_NC[[0, 2]].tolist() == [[0.0, 1.0], [0.0, 1.0]]


@pytest.mark.parametrize(
    "logits",
    [
        lambda texts: np.zeros((len(texts), 3)),
        lambda texts: np.zeros((len(texts) + 1, 2)),
        lambda texts: np.zeros(len(texts)),
    ],
    ids=["labels", "texts", "dimensions"],
)
def test_logits_of_the_wrong_shape_are_no_scores(model: Model, logits: Any) -> None:
    scored = replace(model, classifier=Returning(logits)).score(["a", "b"])
    assert scored.logits_NC.shape == (2, 2)
    assert np.isnan(scored.logits_NC).all()
    assert sorted(scored.errors) == [0, 1]
    assert "ClassifierError: logits of shape" in scored.errors[0]


@pytest.mark.parametrize("name", ["tokens_N", "windows_N", "truncated_N"])
def test_counts_of_the_wrong_shape_are_no_scores(model: Model, name: str) -> None:
    class Miscounting(Returning):
        def score(self, texts: Sequence[str], **options: bool) -> RawScores:
            return replace(super().score(texts), **{name: np.zeros(7, np.int64)})

    wrong = Miscounting(lambda texts: np.zeros((len(texts), 2)))
    scored = replace(model, classifier=wrong).score(["a"])
    assert f"ClassifierError: {name} of shape" in scored.errors[0]


@pytest.mark.parametrize("error", [Panic("a None value"), SystemExit(0), BaseException("odd")])
def test_a_library_that_panics_fails_the_one_text(model: Model, error: BaseException) -> None:
    def panicking(texts: Sequence[str]) -> Any:
        if "bad" in texts:
            raise error
        return np.zeros((len(texts), 2))

    scored = replace(model, classifier=Returning(panicking)).score(["a", "bad", "c"])
    assert list(scored.errors) == [1]
    assert scored.errors[1].startswith(type(error).__name__)
    assert np.isfinite(scored.logits_NC[[0, 2]]).all()


@pytest.mark.parametrize("error", [Panic("a None value"), SystemExit(0), ValueError("damaged")])
def test_a_library_that_panics_as_it_loads_a_model_is_a_failure_of_that_model(
    tmp_path: Path, error: BaseException, monkeypatch: pytest.MonkeyPatch
) -> None:
    family = FakeFamily(lambda *_: [0.0, 0.0])

    def panicking(*_: Any, **__: Any) -> Any:
        raise error

    monkeypatch.setattr(family, "load", panicking)
    write_model(tmp_path / "model")
    said = f"model: plugin 'fake' cannot load it: {type(error).__name__}: {error}"
    with pytest.raises(ClassifierError, match=re.escape(said)) as raised:
        load_model(tmp_path / "model", plugins=plugins_of(family))
    assert raised.value.exit_code == 3


def test_a_stop_by_the_user_is_no_failure_of_a_text(model: Model) -> None:
    def stopped(texts: Sequence[str]) -> Any:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        replace(model, classifier=Returning(stopped)).score(["a"])


def test_no_texts_need_no_classifier(model: Model) -> None:
    def refuse(texts: Sequence[str]) -> Any:
        raise ValueError("an empty batch")

    unasked = replace(model, classifier=Returning(refuse))
    assert unasked.score([]).logits_NC.shape == unasked.probabilities([]).shape == (0, 2)


# -- novelty -----------------------------------------------------------------------------------


@dataclass
class Strange(Returning):
    """Also returns ``novelty_N``, whatever it is, or raises it."""

    novelty_N: Any = None

    def score(
        self, texts: Sequence[str], *, novelty: bool = False, evidence: bool = False
    ) -> RawScores:
        if novelty and isinstance(self.novelty_N, Exception):
            raise self.novelty_N
        return replace(super().score(texts), novelty_N=self.novelty_N if novelty else None)


def strange(model: Model, novelty_N: Any) -> Scored:
    classifier = Strange(lambda texts: [[0.0, 1.0]] * len(texts), novelty_N=novelty_N)
    asked = replace(model, classifier=classifier)
    assert asked.score(["a", "b"]).novelty_N is None  # not asked for
    scored = asked.score(["a", "b"], novelty=True)
    assert scored.logits_NC.tolist() == [[0.0, 1.0]] * 2
    assert not scored.errors
    return scored


def test_novelty_is_given_where_it_is_asked_for(model: Model) -> None:
    scored = strange(model, np.array([1.5, -2.0]))
    assert scored.novelty_N is not None
    assert scored.novelty_N.tolist() == [1.5, -2.0]
    assert scored.novelty_errors == {}


@pytest.mark.parametrize(
    ("novelty_N", "known", "reason"),
    [
        (np.array([1.0, np.nan]), 1, "a novelty that is not finite"),
        (np.array([1.0, -np.inf]), 1, "a novelty that is not finite"),
        (np.array([1.0]), 0, r"novelty_N of shape (1,), expected (2,)"),
        (None, 0, "fake gives no novelty"),
        (RuntimeError("boom"), 0, "RuntimeError: boom"),
    ],
    ids=["nan", "inf", "shape", "none", "raises"],
)
def test_a_novelty_that_fails_leaves_the_score_as_it_is(
    model: Model, novelty_N: Any, known: int, reason: str
) -> None:
    scored = strange(model, novelty_N)
    assert scored.novelty_N is not None
    assert np.isfinite(scored.novelty_N).sum() == known
    assert sorted(scored.novelty_errors) == list(range(known, 2))
    assert reason in scored.novelty_errors[1]


@settings(deadline=None)
@given(texts=st.lists(st.sampled_from(["bad", "a", "bb", "odd"]), max_size=8))
def test_a_text_without_a_score_has_no_novelty_and_one_that_raises_fails_alone(
    tmp_path_factory: pytest.TempPathFactory, texts: list[str]
) -> None:
    def novelty(model: str, text: str) -> float:
        if text == "odd":
            raise ValueError("odd")
        return float(len(text))

    folder = write_model(tmp_path_factory.mktemp("models") / "m", novelty=[0.0, 1.5, 3.0])
    own = load_model(folder, plugins=plugins_of(FakeFamily(logits_of, novelty=novelty)))
    scored = own.score(texts, novelty=True)
    assert sorted(scored.errors) == [i for i, t in enumerate(texts) if t == "bad"]
    assert dict(scored.novelty_errors) == {
        i: "MemoryError: too long" if t == "bad" else "ValueError: odd"
        for i, t in enumerate(texts)
        if t in ("bad", "odd")
    }
    expected = [{"a": 0.75, "bb": 0.5}.get(t, np.nan) for t in texts]
    assert own.novelty_p_values(scored).tolist() == pytest.approx(expected, nan_ok=True)


def test_a_model_without_a_record_of_novelty_gives_no_p_value(model: Model) -> None:
    assert model.novelty is None
    with pytest.raises(ArtefactError, match=r"has no novelty\.json.*`guardkit calibrate`"):
        model.novelty_p_values(strange(model, np.zeros(2)))


# -- probabilities ---------------------------------------------------------------------------


@settings(deadline=None, max_examples=40)
@given(
    rows=st.lists(
        st.lists(st.floats(-80, 80, width=32), min_size=3, max_size=3), min_size=1, max_size=5
    )
)
def test_probabilities_of_one_text_sum_to_one(
    tmp_path_factory: pytest.TempPathFactory, rows: list[list[float]]
) -> None:
    folder = tmp_path_factory.mktemp("models") / "abc"
    write_model(folder, labels=["a", "b", "c"], bias=[0, 1, 2])
    family = FakeFamily(lambda model, text: rows[int(text)])
    p_NC = load_model(folder, plugins=plugins_of(family)).probabilities(
        [str(i) for i in range(len(rows))]
    )
    z_NC = np.array(rows) + np.arange(3)
    e_NC = np.exp(z_NC - z_NC.max(1, keepdims=True))
    assert p_NC == pytest.approx(e_NC / e_NC.sum(1, keepdims=True), abs=1e-5)
    assert p_NC.sum(1) == pytest.approx(np.ones(len(rows)), abs=1e-5)


def test_a_text_that_cannot_be_scored_has_no_probability(model: Model) -> None:
    with pytest.raises(ClassifierError, match="text 1: MemoryError: too long"):
        model.probabilities(["good", "bad"])


def test_a_model_without_calibration_gives_no_probability(tmp_path: Path) -> None:
    folder = write_model(tmp_path / "raw", calibrated=False)
    raw = load_model(folder, plugins=PLUGINS)
    assert raw.score(["four"]).logits_NC.tolist() == [[0.0, 4.0]]
    with pytest.raises(ArtefactError, match="`guardkit train` fits one"):
        raw.probabilities(["four"])


def test_a_classifier_without_evidence_cannot_explain(model: Model) -> None:
    with pytest.raises(ClassifierError, match="fake gives no evidence"):
        model.explain("text")


# -- loading ---------------------------------------------------------------------------------


def test_a_model_loads_with_its_hash_labels_and_calibration(tmp_path: Path) -> None:
    folder = write_model(tmp_path / "model")
    loaded = load_model(folder, family="fake", plugins=PLUGINS)
    assert loaded.hash == artefact.verify(folder)
    assert loaded.labels == ("benign", "injection")
    assert loaded.probabilities([""])[0] == pytest.approx([0.5, 0.5])


def test_a_path_is_relative_to_the_base_it_is_given(tmp_path: Path) -> None:
    folder = write_model(tmp_path / "models" / "one")
    assert load_model("one", base=tmp_path / "models", plugins=PLUGINS).path == folder


def test_a_damaged_model_does_not_load_unless_asked_for(tmp_path: Path) -> None:
    folder = write_model(tmp_path / "model")
    (folder / artefact.CARD).write_text("added later")
    with pytest.raises(ArtefactError, match=r"README\.md: in the folder but not in SHA256SUMS"):
        load_model(folder, plugins=PLUGINS)
    assert load_model(folder, allow_unverified=True, plugins=PLUGINS).hash == "unverified"


def test_a_calibration_for_other_labels_is_refused(tmp_path: Path) -> None:
    folder = write_model(tmp_path / "model")
    other = write_model(tmp_path / "other", labels=["injection", "benign"])
    (other / artefact.CALIBRATION).replace(folder / artefact.CALIBRATION)
    artefact.seal(folder)
    with pytest.raises(ArtefactError, match="calibrated for labels"):
        load_model(folder, plugins=PLUGINS)


def test_a_classifier_with_other_labels_than_its_model_is_refused(tmp_path: Path) -> None:
    class Other(FakeFamily):
        def load(self, path: Path, *, device: str, backend: str) -> Any:
            return Returning(lambda texts: [], labels=("yes", "no"))

    folder = write_model(tmp_path / "model")
    with pytest.raises(ArtefactError, match=r"gives labels \('yes', 'no'\)"):
        load_model(folder, plugins=plugins_of(Other(logits_of)))


def test_a_model_of_another_family_is_refused(tmp_path: Path) -> None:
    folder = write_model(tmp_path / "model", family="other")
    with pytest.raises(ArtefactError, match="made by plugin 'other', asked for as 'fake'"):
        load_model(folder, family="fake", plugins=PLUGINS)
    with pytest.raises(PluginError, match="no classifier family is called 'other'"):
        load_model(folder, plugins=PLUGINS)
