"""The worst reading of a text stands: what hides it from one reading shows it in another."""

from __future__ import annotations

import base64
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from guardkit.model.artefact import ArtefactConfig
from guardkit.model.loaded import Model, load_model
from guardkit.text.readings import readings
from tests.support.fake_models import FakeFamily, plugins_of, write_model

WIDE = "\uff45\uff56\uff49\uff4c\uff45\uff4d\uff50\uff49\uff52\uff45"  # evilempire, fullwidth
PACKED = base64.b64encode(b"an evil empire").decode()
MAX = {"neutral": "benign", "window_pooling": "max"}


def logits_of(model: str, text: str) -> list[float]:
    if "break" in text:
        raise ValueError("cannot read that")
    return [1.0, 6.0 if "evil" in text else len(text) % 3 - 1.0]


def loaded(folder: Path, family: FakeFamily, **more: object) -> Model:
    write_model(folder, **MAX, **more)  # type: ignore[arg-type]
    return load_model(folder, plugins=plugins_of(family))


@pytest.fixture
def family() -> FakeFamily:
    return FakeFamily(logits_of, novelty=lambda model, text: float(len(text)))


@pytest.fixture
def model(tmp_path: Path, family: FakeFamily) -> Model:
    return loaded(tmp_path / "m", family, also_read=["canonical", "decoded"])


def leads(model: Model, texts: list[str]) -> list[float]:
    logits_NC = model.score(texts).logits_NC
    return (logits_NC[:, 1] - logits_NC[:, 0]).tolist()  # type: ignore[no-any-return]


@pytest.mark.parametrize("text", [WIDE, PACKED, f"\u200b{PACKED}"])
def test_a_hidden_attack_scores_as_the_open_one_does(model: Model, text: str) -> None:
    assert leads(model, [text]) == leads(model, ["evil"])


def test_an_open_attack_is_not_hidden_by_what_it_decodes_to(model: Model) -> None:
    harmless = base64.b64encode(b"what a lovely day").decode()
    assert leads(model, [f"evil {harmless}"]) == leads(model, ["evil"])


def test_a_model_that_reads_raw_text_alone_is_not_asked_for_more(
    tmp_path: Path, family: FakeFamily
) -> None:
    plain = loaded(tmp_path / "plain", family)
    assert leads(plain, [WIDE]) == [logits_of("", WIDE)[1] - 1]
    assert family.calls == [("plain", [WIDE])]


def test_text_without_another_reading_is_read_once(model: Model, family: FakeFamily) -> None:
    texts = ["plain words", "more of them"]
    assert model.score(texts).windows_N.tolist() == [1, 1]
    assert family.calls == [("m", texts)]


def test_every_reading_counts_as_windows_and_the_tokens_are_the_texts_own(model: Model) -> None:
    scored = model.score(["plain", f"\u200b{PACKED}"], novelty=True)
    assert scored.windows_N.tolist() == [1, 3]
    assert scored.tokens_N.tolist() == [1, 1]
    assert scored.novelty_N is not None
    assert scored.novelty_N.tolist() == [5, 1 + len(PACKED)]


def test_a_text_one_of_whose_readings_fails_has_failed_and_its_neighbour_has_not(
    model: Model,
) -> None:
    hidden = base64.b64encode(b"this will break it").decode()
    scored = model.score([hidden, "evil"])
    assert scored.errors == {0: "another reading of it: ValueError: cannot read that"}
    assert np.isnan(scored.logits_NC[0]).all()
    assert np.isfinite(scored.logits_NC[1]).all()


PIECES = st.sampled_from(["evil", WIDE, PACKED, "fine", "\u200bx", "\u00e9t\u00e9", "break", ""])


@settings(deadline=None)
@given(texts=st.lists(st.lists(PIECES, max_size=3).map(" ".join), max_size=6))
def test_the_score_is_the_worst_of_the_readings_scored_one_at_a_time(texts: list[str]) -> None:
    classifier = FakeFamily(logits_of)
    config = ArtefactConfig(
        family="fake", labels=["benign", "injection"], network={}, neutral="benign",
        window_pooling="max", also_read=["canonical", "decoded"],
    )  # fmt: skip
    from tests.support.fake_models import FakeClassifier

    model = Model(
        FakeClassifier(classifier, "m", ("benign", "injection")), config, None, "", Path()
    )
    scored = model.score(texts)
    for i, text in enumerate(texts):
        every = [text, *readings(text)]
        if any("break" in reading for reading in every):
            assert i in scored.errors
            continue
        worst = max(logits_of("m", reading)[1] - logits_of("m", reading)[0] for reading in every)
        lead = scored.logits_NC[i, 1] - scored.logits_NC[i, 0]
        assert lead == pytest.approx(worst)


def test_a_long_text_is_read_line_by_line_too_and_a_short_one_is_not(tmp_path: Path) -> None:
    family = FakeFamily(lambda _, text: [1.0, 6.0 if text.startswith("evil") else 0.0])
    model = loaded(tmp_path / "m", family, also_read=["lines"])
    news = ["one line of harmless news", "  another line of harmless news ", "short"]
    text = "\n".join(news)
    assert model.score([text]).windows_N.tolist() == [1]
    assert family.calls == [("m", [text])]
    family.windows = 2
    assert model.score([text, "news"]).windows_N.tolist() == [6, 2]
    assert family.calls[1:] == [
        ("m", [text, "news"]), ("m", [news[0], news[1].strip()]),
    ]  # fmt: skip
    planted = f"{text}\n\nevil that somebody put in here\n"
    assert leads(model, [text, planted]) == [-1.0, 5.0]
    every, scored = model.read(planted)
    assert every == [planted, *news[:1], news[1].strip(), "evil that somebody put in here"]
    lead_R = scored.logits_NC[:, 1] - scored.logits_NC[:, 0]
    assert lead_R.tolist() == [-1.0, -1.0, -1.0, 5.0]


def test_a_model_without_a_neutral_label_cannot_have_a_worst_reading() -> None:
    with pytest.raises(ValueError, match="also_read needs window_pooling 'max'"):
        ArtefactConfig(family="fake", labels=["a", "b"], network={}, also_read=["canonical"])
