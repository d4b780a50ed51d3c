"""A text that fails says why without a second call, and a classifier that is down is left alone."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from guardkit.errors import MemberDown, TextError
from guardkit.model.artefact import ArtefactConfig
from guardkit.model.asking import REST_S, Circuit
from guardkit.model.loaded import Model
from guardkit.model.score_cache import with_score_cache
from guardkit.types import RawScores

LABELS = ["benign", "injection"]


def lengths(texts: Sequence[str], errors: Mapping[int, str] | None = None) -> RawScores:
    ones = np.ones(len(texts), np.int64)
    logits_NC = np.array([[0.0, len(text)] for text in texts], np.float32)
    return RawScores(logits_NC, ones, ones, np.zeros(len(texts), bool), errors=errors or {})


@dataclass
class Answering:
    """A classifier that answers as it is told, and counts the texts of each call."""

    answer: Callable[[Sequence[str]], RawScores]
    calls: list[int] = field(default_factory=list)
    labels: tuple[str, ...] = tuple(LABELS)
    id: str = "answering"

    def score(
        self, texts: Sequence[str], *, novelty: bool = False, evidence: bool = False
    ) -> RawScores:
        self.calls.append(len(texts))
        raw = self.answer(texts)
        return replace(raw, novelty_N=np.zeros(len(texts), np.float32)) if novelty else raw


def model_of(answer: Callable[[Sequence[str]], RawScores], **more: Circuit) -> Model:
    config = ArtefactConfig(family="fake", labels=LABELS, network={})
    return Model(Answering(answer), config, None, "0" * 64, Path("m"), **more)


def calls_of(model: Model) -> list[int]:
    inner = getattr(model.classifier, "inner", model.classifier)
    assert isinstance(inner, Answering)
    return inner.calls


def with_reasons(texts: Sequence[str]) -> RawScores:
    return lengths(texts, {i: f"no {text}" for i, text in enumerate(texts) if "bad" in text})


def one_at_a_time(texts: Sequence[str]) -> RawScores:
    for i, text in enumerate(texts):
        if "bad" in text:
            raise TextError(i, f"no {text}")
    return lengths(texts)


WORDS = st.lists(st.sampled_from(["a", "bad", "bb", "bad two", "ccc"]), max_size=9)


@pytest.mark.parametrize("cached", [False, True], ids=["plain", "cached"])
@pytest.mark.parametrize("novelty", [False, True], ids=["scores", "novelty"])
@given(texts=WORDS)
def test_texts_with_a_reason_fail_alone_and_cost_no_second_call(
    cached: bool, novelty: bool, texts: list[str]
) -> None:
    model = model_of(with_reasons)
    if cached:
        model = with_score_cache(model)
    scored = model.score(texts, novelty=novelty)
    assert scored.errors == {i: f"no {text}" for i, text in enumerate(texts) if "bad" in text}
    assert len(calls_of(model)) == (1 if texts else 0)
    for i, text in enumerate(texts):
        expected = [np.nan] * 2 if "bad" in text else [0.0, len(text)]
        assert scored.logits_NC[i].tolist() == pytest.approx(expected, nan_ok=True)


@pytest.mark.parametrize("cached", [False, True], ids=["plain", "cached"])
@given(texts=WORDS)
def test_a_text_that_an_exception_names_is_left_out_of_the_next_call(
    cached: bool, texts: list[str]
) -> None:
    model = model_of(one_at_a_time)
    if cached:
        model = with_score_cache(model)
    scored = model.score(texts)
    bad = {i: f"no {text}" for i, text in enumerate(texts) if "bad" in text}
    assert scored.errors == bad
    assert np.isfinite(scored.logits_NC[[i for i in range(len(texts)) if i not in bad]]).all()
    assert len(calls_of(model)) <= len(bad) + 1
    again = model.score(texts)
    np.testing.assert_array_equal(again.logits_NC, scored.logits_NC)
    assert again.errors == scored.errors


def test_a_thousand_texts_at_fault_are_named_one_by_one() -> None:
    scored = model_of(one_at_a_time).score([f"bad {i}" for i in range(1000)])
    assert scored.errors == {i: f"no bad {i}" for i in range(1000)}


def test_an_exception_that_names_no_text_of_the_batch_is_any_other_exception() -> None:
    def lost(texts: Sequence[str]) -> RawScores:
        raise TextError(7, "which one?")

    assert model_of(lost).score(["a", "b"]).errors == dict.fromkeys((0, 1), "TextError: which one?")


def test_a_value_that_is_not_finite_without_a_reason_is_still_a_failure() -> None:
    def silent(texts: Sequence[str]) -> RawScores:
        raw = lengths(texts, {0: "said why"})
        raw.logits_NC[1] = np.nan
        return raw

    scored = model_of(silent).score(["a", "b", "c"])
    assert scored.errors == {
        0: "said why",
        1: "the classifier returned a value that is not finite",
    }
    assert scored.down == frozenset()


def test_a_reason_for_a_text_that_is_not_there_is_no_score() -> None:
    scored = model_of(lambda texts: lengths(texts, {5: "who?"})).score(["a", "b"])
    assert set(scored.errors) == {0, 1}
    assert "errors: has 5, no position among 1 texts" in scored.errors[0]


# -- down ------------------------------------------------------------------------------------


@dataclass
class Clock:
    now: float = 0.0

    def __call__(self) -> float:
        return self.now


def refusing(texts: Sequence[str]) -> RawScores:
    raise MemberDown("connection\nrefused")


def test_a_classifier_that_is_down_fails_the_batch_in_one_call_and_then_rests() -> None:
    clock = Clock()
    model = model_of(refusing, circuit=Circuit(clock))
    for _ in range(3):
        scored = model.score(list("abcdefgh"))
        assert scored.errors == dict.fromkeys(range(8), "it is down: connection refused")
        assert scored.down == frozenset(range(8))
        assert np.isnan(scored.logits_NC).all()
    assert calls_of(model) == [8]
    clock.now = REST_S
    model.score(["a"])
    assert calls_of(model) == [8, 1], "it is asked again after its rest"


def test_a_classifier_that_is_up_again_is_asked_as_ever() -> None:
    clock, down = Clock(), [True]

    def sometimes(texts: Sequence[str]) -> RawScores:
        if down[0]:
            raise MemberDown("away")
        return lengths(texts)

    model = model_of(sometimes, circuit=Circuit(clock))
    assert model.score(["a"]).down
    down[0], clock.now = False, REST_S
    assert model.score(["a"]).errors == {}
    assert model.score(["a"]).errors == {}


@pytest.mark.parametrize("cached", [False, True], ids=["plain", "cached"])
@pytest.mark.parametrize("novelty", [False, True], ids=["scores", "novelty"])
def test_what_was_answered_before_it_went_down_stands(cached: bool, novelty: bool) -> None:
    def halfway(texts: Sequence[str]) -> RawScores:
        raw = lengths(texts, {i: "odd" for i, text in enumerate(texts) if text == "bad"})
        raw.logits_NC[2:] = np.nan
        raise MemberDown("budget spent", raw)

    model = model_of(halfway)
    if cached:
        model = with_score_cache(model)
    scored = model.score(["a", "bad", "ccc", "d"], novelty=novelty)
    assert scored.errors == {1: "odd"} | dict.fromkeys((2, 3), "it is down: budget spent")
    assert scored.down == {2, 3}
    assert scored.logits_NC[0].tolist() == [0.0, 1.0]
