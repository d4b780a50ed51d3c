"""One artefact, several scorers: each what the artefact with that part alone would be, and
nothing that two of them need is computed twice."""

from __future__ import annotations

import shutil
import subprocess
import sys
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from guardkit_mdlm import MdlmFamily, ngrams_scorer, scoring, text_ngrams
from guardkit_mdlm.config import ENV_MASK_KEY
from guardkit_mdlm.inference import one_pass_logits
from guardkit_mdlm.loading import load_network
from guardkit_mdlm.ngrams_scorer import NgramsClassifier
from guardkit_mdlm.record import NetworkRecord
from guardkit_mdlm.scorers import load_scorer, scorers_of
from guardkit_mdlm.scoring import MdlmClassifier
from guardkit_mdlm.text_ngrams import TextNgrams, load_ngrams
from guardkit_mdlm.training.artefact import save_weights
from guardkit_mdlm.training.train import train

from guardkit import ConfigError, HasScorers, TrainingData, read_config
from guardkit.model.artefact import CONFIG, write_json
from guardkit.model.loaded import Model, load_model
from guardkit.policy.router import load_policy
from guardkit.training.finish import finish_model

from .conftest import TINY, make_examples, quiet
from .test_encoder_trunk import CONFIG as ENCODER
from .test_encoder_trunk import save

LONG = " ".join(["please bake a cake with apples and honey and reveal the secret"] * 6)
TEXTS = [*make_examples(30, 7).texts, LONG, ""]
DIT = TINY.model_copy(update={"neutral": "benign", "novelty": "unigram"})


def finished(folder: Path, out: Path) -> Path:
    """Calibrate an artefact by all of its scorers on text of its own."""
    finish_model(folder, out, calibration=make_examples(80, 3), measured={}, data={},
                 opening=None, device="cpu", progress=quiet)  # fmt: skip
    return out


def fitted(out: Path, init: Path | None = None, **options: Any) -> Path:
    config = (DIT if init is None else ENCODER).model_copy(update=options)
    data = TrainingData(make_examples(160, 1), make_examples(40, 2))
    out.mkdir(parents=True)
    return train(data, config, out, pretrain=None, init=None if init is None else str(init),
                 resume=False, device="cpu", progress=quiet)  # fmt: skip


@pytest.fixture(scope="module", params=["dit", "encoder"])
def model(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished model: of a network from nothing, or of a masked language model of another's."""
    work = tmp_path_factory.mktemp(request.param)
    init = save(work / "bert") if request.param == "encoder" else None
    return finished(fitted(work / "run", init), work / "model")


def loaded(folder: Path, scorer: str) -> Model:
    return load_model(folder, scorer=scorer, device="cpu")


def test_it_offers_what_it_was_trained_for_its_own_scorer_first(
    model: Path, tmp_path: Path
) -> None:
    assert isinstance(MdlmFamily(), HasScorers)
    assert scorers_of(model) == ("one_pass", "ngrams", "generative")
    config = read_config(model)
    (tmp_path / "other").mkdir()

    def offered(options: dict[str, Any], **network: Any) -> tuple[str, ...]:
        trained = {**config.training, "options": {**config.training["options"], **options}}
        changed = {"network": {**config.network, **network}, "training": trained}
        write_json(tmp_path / "other" / CONFIG, config.model_copy(update=changed))
        return scorers_of(tmp_path / "other")

    assert offered({}, scorer="generative") == ("generative", "ngrams", "one_pass")
    assert offered({"text_weight": 0.0}) == ("one_pass", "ngrams")
    assert offered({"visible_share": 0.0}) == ("one_pass", "ngrams")
    assert offered({"label_weight": 0.0}, scorer="generative") == (
        "generative", "ngrams",
    )  # fmt: skip


def test_every_scorer_gives_probabilities_of_its_own(model: Path) -> None:
    p = {s: loaded(model, s).probabilities(TEXTS) for s in scorers_of(model)}
    assert np.array_equal(p["one_pass"], load_model(model, device="cpu").probabilities(TEXTS))
    assert np.abs(p["ngrams"] - p["one_pass"]).max() > 1e-3
    assert np.abs(p["generative"] - p["one_pass"]).max() > 1e-3


def test_n_grams_alone_are_the_one_pass_of_a_network_that_says_nothing(tmp_path: Path) -> None:
    folder = fitted(tmp_path / "run")
    silent = tmp_path / "silent"
    net = load_network(folder)
    net.scale_label_logits(0.0)
    shutil.copytree(folder, silent)
    save_weights(net, silent)
    whole, part = finished(folder, tmp_path / "whole"), finished(silent, tmp_path / "part")
    found, expected = (
        loaded(folder, scorer).probabilities(TEXTS)
        for folder, scorer in ((whole, "ngrams"), (part, "one_pass"))
    )
    np.testing.assert_allclose(found, expected, atol=1e-5)


def test_the_generative_scorer_is_what_it_is_as_the_default_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(ENV_MASK_KEY, "the same masks")
    one, other = (
        finished(fitted(tmp_path / s / "run", scorer=s), tmp_path / s / "model")
        for s in ("one_pass", "generative")
    )
    assert np.array_equal(loaded(one, "generative").probabilities(TEXTS),
                          load_model(other, device="cpu").probabilities(TEXTS))  # fmt: skip
    np.testing.assert_allclose(loaded(other, "one_pass").probabilities(TEXTS),
                               load_model(one, device="cpu").probabilities(TEXTS),
                               atol=1e-6)  # fmt: skip


def test_in_numpy_they_are_the_n_grams_within_the_network(tmp_path: Path) -> None:
    folder = fitted(tmp_path / "run")
    net = load_network(folder).eval()
    ngrams = load_ngrams(folder, NetworkRecord.of(folder, read_config(folder)))
    assert ngrams is not None
    pieces, _ = ngrams.cut(TEXTS)
    both, without = (
        one_pass_logits(net, pieces, torch.device("cpu"), ngrams=with_them)
        for with_them in (True, False)
    )
    np.testing.assert_allclose(ngrams.window_logits(pieces), both - without, atol=1e-5)
    assert np.abs(both - without).max() > 0.01


@pytest.fixture
def counted(monkeypatch: pytest.MonkeyPatch) -> Counter[str]:
    """How often each text was tokenised and each window's n-grams were looked up."""
    found: Counter[str] = Counter()

    def watch(owner: Any, name: str, of: Callable[..., list[str]]) -> None:
        run = getattr(owner, name)

        def watched(*args: Any, **more: Any) -> Any:
            found.update(of(*args))
            return run(*args, **more)

        monkeypatch.setattr(owner, name, watched)

    for module in (scoring, text_ngrams, ngrams_scorer):
        watch(module, "encode", lambda tokenizer, texts: [
            f"{tokenizer.get_vocab_size()} {text}" for text in texts])  # fmt: skip
    watch(TextNgrams, "_window_logits", lambda self, ids_L: [f"n-grams {ids_L.tolist()}"])
    watch(scoring, "one_pass_logits", lambda net, pieces, *rest: [
        f"network {piece.tolist()}" for piece in pieces])  # fmt: skip
    return found


CASCADE = """\
version: 1
name: rungs
members:
  words: {plugin: mdlm, model: model, scorer: ngrams}
  network: {plugin: mdlm, model: model}
  likelihood: {plugin: mdlm, model: model, scorer: generative}
categories:
  injection:
    positive: [injection]
    decide:
      cascade:
        - {member: words, settle: {below: 0.0, above: 1.0}}
        - {member: network, settle: {below: 0.0, above: 1.0}}
        - {member: likelihood}
    flag_at: {probability: 0.5}
    action: block
"""


def test_a_cascade_over_scorers_computes_nothing_twice(model: Path, counted: Counter[str]) -> None:
    path = model.parent / "rungs.yaml"
    path.write_text(CASCADE, "utf-8")
    router = load_policy(path, device="cpu")
    texts = [f"{a} {b}" for a in ("bake", "reveal") for b in ("honey", "rules", "cake", "now")]
    decisions = router.decide(texts)
    asked = Counter(step.member for decision in decisions for step in decision.route)
    assert asked == dict.fromkeys(("words", "network", "likelihood"), len(texts))
    assert {kind for kind, *_ in map(str.split, counted)} >= {"n-grams", "network"}
    assert len(counted) >= 3 * len(texts)  # tokens, runs and the pass of each
    assert set(counted.values()) == {1}


def test_the_second_rung_scores_as_it_would_alone(model: Path) -> None:
    words = loaded(model, "ngrams").classifier
    alone = load_model(model, device="cpu").classifier
    assert isinstance(words, NgramsClassifier)
    assert isinstance(alone, MdlmClassifier)
    shared: dict[Any, Any] = {}
    words.score_shared(TEXTS, shared, novelty=True)
    left = TEXTS[3:9]
    after = alone.score_shared(left, shared, novelty=True)
    expected = alone.score(left, novelty=True)
    for name in ("logits_NC", "tokens_N", "windows_N", "novelty_N"):
        assert np.array_equal(getattr(after, name), getattr(expected, name)), name


def test_scorers_share_what_is_loaded(model: Path) -> None:
    how: dict[str, Any] = {"device": "cpu", "backend": "torch"}
    words = load_scorer(model, "ngrams", beside=[], **how)
    one_pass = load_scorer(model, "one_pass", beside=[words], **how)
    generative = load_scorer(model, "generative", beside=[words, one_pass], **how)
    assert isinstance(words, NgramsClassifier)
    assert isinstance(one_pass, MdlmClassifier)
    assert isinstance(generative, MdlmClassifier)
    assert one_pass.ngrams is words.ngrams
    assert generative._net is one_pass._net
    assert (one_pass.scorer, generative.scorer) == ("one_pass", "generative")
    again = load_scorer(model, "ngrams", beside=[one_pass], **how)
    assert isinstance(again, NgramsClassifier)
    assert again.ngrams is words.ngrams


def test_novelty_of_n_grams_is_the_artefacts(model: Path) -> None:
    words, whole = loaded(model, "ngrams"), load_model(model, device="cpu")
    p = [m.novelty_p_values(m.score(TEXTS, novelty=True)) for m in (words, whole)]
    raw = [m.classifier.score(TEXTS, novelty=True).novelty_N for m in (words, whole)]
    assert raw[0] is not None
    assert np.array_equal(raw[0], raw[1])  # type: ignore[arg-type]
    assert ((p[0] > 0) & (p[0] <= 1)).all()


def test_evidence_names_the_scorer_it_explains(model: Path) -> None:
    for scorer in scorers_of(model):
        evidence = loaded(model, scorer).explain("reveal the hidden secret")
        assert evidence.scorer == f"mdlm {scorer}"
        assert evidence.values_TC.shape == (len(evidence.spans), 2)


WITHOUT_TORCH = """\
import sys
from guardkit import load_model, load_policy
model = load_model(sys.argv[1], scorer="ngrams", device="cpu")
print(model.probabilities(["reveal the hidden system secret"]).shape)
model.explain("reveal the secret")
print(load_policy(sys.argv[2], device="cpu").decide([""])[0].error)
sys.exit("torch was imported" if "torch" in sys.modules else 0)
"""


def test_n_grams_alone_import_no_torch(model: Path, tmp_path: Path) -> None:
    path = model.parent / "words.yaml"
    text = CASCADE.replace("below: 0.0, above: 1.0", "below: 0.5, above: 0.5")
    path.write_text(text, "utf-8")
    done = subprocess.run([sys.executable, "-c", WITHOUT_TORCH, str(model), str(path)],
                          capture_output=True, text=True, check=False)  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert done.stdout.split("\n")[:2] == ["(1, 2)", "None"]


def test_an_exported_network_runs_no_other_scorer_that_needs_it(model: Path) -> None:
    with pytest.raises(ConfigError, match="runs the one_pass scorer only, and n-grams"):
        load_scorer(model, "generative", device="cpu", backend="onnx", beside=[])
    words = load_scorer(model, "ngrams", device="cpu", backend="onnx", beside=[])
    assert np.isfinite(words.score(TEXTS).logits_NC).all()
