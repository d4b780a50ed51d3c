"""A text is scored once, in one run or in several; a bad cache costs time and nothing else."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from guardkit.model.artefact import ArtefactConfig
from guardkit.model.loaded import Model, load_model
from guardkit.model.score_cache import CachedClassifier, default_cache, with_score_cache
from guardkit.types import RawScores
from tests.support.fake_models import FakeClassifier, FakeFamily, plugins_of, write_model


def logits_of(model: str, text: str) -> list[float]:
    if "BROKEN" in text:
        raise ValueError("cannot score this")
    return [0.0, float(len(text))]


def loaded(folder: Path, family: FakeFamily) -> Model:
    if not folder.exists():
        write_model(folder)
    return load_model(folder, plugins=plugins_of(family))


def asked(family: FakeFamily) -> list[str]:
    return [text for _, texts in family.calls for text in texts]


def remembered(model: Model) -> CachedClassifier:
    assert isinstance(model.classifier, CachedClassifier)
    return model.classifier


@given(
    st.lists(st.lists(st.sampled_from(["", "a", "bb", "BROKEN", "ccc", "BROKEN 2"]), max_size=6))
)
def test_scores_are_those_of_the_model_and_no_text_is_read_twice(batches: list[list[str]]) -> None:
    family = FakeFamily(logits_of)
    plain = Model(family_classifier(family), *MODEL_PARTS)
    seen: list[str] = []
    inner = FakeFamily(lambda model, text: (seen.append(text), logits_of(model, text))[1])
    model = with_score_cache(Model(family_classifier(inner), *MODEL_PARTS))
    for texts in batches:
        expected, got = plain.score(texts), model.score(texts)
        np.testing.assert_array_equal(got.logits_NC, expected.logits_NC)
        assert got.errors.keys() == expected.errors.keys()
        np.testing.assert_array_equal(got.truncated_N, expected.truncated_N)
    assert set(seen) == {text for texts in batches for text in texts}
    if not any("BROKEN" in text for text in seen):  # whose neighbours are asked again, in halves
        assert len(seen) == len(set(seen))


def family_classifier(family: FakeFamily) -> FakeClassifier:
    return FakeClassifier(family, "m", ("benign", "injection"))


CONFIG = ArtefactConfig(family="fake", labels=["benign", "injection"], network={})
MODEL_PARTS = (CONFIG, None, "0" * 64, Path("m"))


def test_a_second_run_reads_the_file_and_not_the_texts(tmp_path: Path) -> None:
    family = FakeFamily(logits_of)
    texts = ["one", "three", "seven"]
    first = with_score_cache(loaded(tmp_path / "m", family), tmp_path / "cache", device="cpu")
    scores = first.score(texts)
    remembered(first).save()
    family.calls.clear()
    second = with_score_cache(loaded(tmp_path / "m", family), tmp_path / "cache", device="cpu")
    again = second.score([*texts, "new"])
    assert asked(family) == ["new"]
    np.testing.assert_array_equal(again.logits_NC[:3], scores.logits_NC)
    np.testing.assert_array_equal(remembered(second).ms(texts), remembered(first).ms(texts))
    assert remembered(second).scored == 1


def test_novelty_is_kept_beside_the_scores_and_asked_for_by_itself(tmp_path: Path) -> None:
    def novelty(model: str, text: str) -> float:
        if text == "one":
            raise ValueError("no idea")
        return float(len(text))

    family = FakeFamily(logits_of, novelty=novelty)
    texts = ["one", "three", "seventeen"]
    first = with_score_cache(loaded(tmp_path / "m", family), tmp_path / "cache")
    first.score(["three"])  # without novelty: another call, kept by itself
    scores = first.score(texts, novelty=True)
    remembered(first).save()
    family.calls.clear()
    second = with_score_cache(loaded(tmp_path / "m", family), tmp_path / "cache")
    again = second.score(texts[1:], novelty=True)
    second.score(["three", "one"])
    assert asked(family) == []
    np.testing.assert_array_equal(again.novelty_N, [5.0, 9.0])
    np.testing.assert_array_equal(again.logits_NC, scores.logits_NC[1:])
    for novel in (False, True):
        kept, ms_N = remembered(second), remembered(first).ms(texts, novelty=novel)
        np.testing.assert_array_equal(kept.ms(texts, novelty=novel), ms_N)
    # where novelty failed the text was read without: that time counts
    assert not np.isnan(remembered(second).ms(texts, novelty=True)).any()
    assert np.isnan(remembered(second).ms(["seventeen"])).all()


def test_another_model_or_device_has_a_cache_of_its_own(tmp_path: Path) -> None:
    family = FakeFamily(logits_of)
    model = with_score_cache(loaded(tmp_path / "m", family), tmp_path / "cache", device="cpu")
    model.score(["text"])
    remembered(model).save()
    family.calls.clear()
    write_model(tmp_path / "other", scale=2.0)
    other = load_model(tmp_path / "other", plugins=plugins_of(family))
    with_score_cache(other, tmp_path / "cache", device="cpu").score(["text"])
    with_score_cache(loaded(tmp_path / "m", family), tmp_path / "cache", device="cuda").score(
        ["text"]
    )
    assert asked(family) == ["text", "text"]


@pytest.mark.parametrize(
    "spoil",
    [
        lambda data: b"",
        lambda data: data[: len(data) // 2],
        lambda data: data[:-1],
        lambda data: b"not a zip" * 20,
        lambda data: data[:60] + bytes([data[60] ^ 0xFF]) + data[61:],
        lambda data: data[:300] + b"\0" * 50 + data[350:],
    ],
    ids=["empty", "half", "one byte short", "garbage", "a byte flipped", "zeros in the middle"],
)
def test_a_damaged_file_is_ignored_and_written_anew(
    tmp_path: Path, spoil: Callable[[bytes], bytes]
) -> None:
    family = FakeFamily(logits_of)
    texts = ["one", "three"]
    first = with_score_cache(loaded(tmp_path / "m", family), tmp_path / "cache")
    scores = first.score(texts)
    remembered(first).save()
    (file,) = (tmp_path / "cache").iterdir()
    whole = file.read_bytes()
    file.write_bytes(spoil(whole))
    family.calls.clear()
    second = with_score_cache(loaded(tmp_path / "m", family), tmp_path / "cache")
    np.testing.assert_array_equal(second.score(texts).logits_NC, scores.logits_NC)
    assert asked(family) == texts
    remembered(second).save()
    family.calls.clear()
    with_score_cache(loaded(tmp_path / "m", family), tmp_path / "cache").score(texts)
    assert asked(family) == []
    assert [path.name for path in (tmp_path / "cache").iterdir()] == [file.name]


def test_a_file_with_the_wrong_shapes_is_ignored(tmp_path: Path) -> None:
    family = FakeFamily(logits_of)
    first = with_score_cache(loaded(tmp_path / "m", family), tmp_path / "cache")
    first.score(["one"])
    remembered(first).save()
    (file,) = (tmp_path / "cache").iterdir()
    with np.load(file) as stored:
        arrays = dict(stored)
    arrays["logits_NC"] = np.zeros((1, 5), np.float32)
    np.savez(file, **arrays)
    family.calls.clear()
    with_score_cache(loaded(tmp_path / "m", family), tmp_path / "cache").score(["one"])
    assert asked(family) == ["one"]


def test_what_another_run_has_added_meanwhile_is_kept(tmp_path: Path) -> None:
    family = FakeFamily(logits_of)
    one = with_score_cache(loaded(tmp_path / "m", family), tmp_path / "cache")
    two = with_score_cache(loaded(tmp_path / "m", family), tmp_path / "cache")
    one.score(["a", "b"])
    two.score(["b", "c"])
    remembered(one).save()
    remembered(two).save()
    family.calls.clear()
    with_score_cache(loaded(tmp_path / "m", family), tmp_path / "cache").score(["a", "b", "c"])
    assert asked(family) == []


def test_a_text_that_fails_is_never_written(tmp_path: Path) -> None:
    family = FakeFamily(logits_of)
    model = with_score_cache(loaded(tmp_path / "m", family), tmp_path / "cache")
    scored = model.score(["one", "BROKEN"])
    assert list(scored.errors) == [1]
    assert np.isnan(remembered(model).ms(["one", "BROKEN"])).tolist() == [False, True]
    remembered(model).save()
    again = with_score_cache(loaded(tmp_path / "m", family), tmp_path / "cache").score(
        ["BROKEN", "one"]
    )
    assert list(again.errors) == [0]


def test_time_is_shared_out_by_tokens_and_warming_up_is_not_counted(tmp_path: Path) -> None:
    class Slow:
        id, labels = "slow", ("benign", "injection")
        calls = 0

        def score(self, texts: list[str], *, novelty: bool = False, evidence: bool = False):  # type: ignore[no-untyped-def]
            self.calls += 1
            tokens_N = np.array([len(t) for t in texts])
            n = len(texts)
            return RawScores(
                np.zeros((n, 2), np.float32), tokens_N, np.ones(n, int), np.zeros(n, bool)
            )

    inner = Slow()
    model = CachedClassifier(inner)
    model.warm_up(["a", "bbb"])
    assert inner.calls == 1
    assert np.isnan(model.ms(["a", "bbb"])).all()
    model.score(["a", "bbb"])
    a, b = model.ms(["a", "bbb"])
    assert b == pytest.approx(3 * a)
    assert a > 0
    model.warm_up(["a", "bbb"])  # nothing is new
    assert inner.calls == 2


def test_the_cache_is_where_the_system_wants_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", "/somewhere")
    assert default_cache() == Path("/somewhere/guardkit/scores")
    monkeypatch.delenv("XDG_CACHE_HOME")
    assert default_cache() == Path.home() / ".cache" / "guardkit" / "scores"
