"""Scores of a trained model: whole texts, any order, exact evidence."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from guardkit_gpt2 import Gpt2Family, scoring
from guardkit_gpt2.network import Network
from guardkit_gpt2.scoring import Gpt2Classifier, load
from safetensors.torch import load_file, save_file

from guardkit import ArtefactError, Classifier, ConfigError, HasCost, HasFeatures, windows
from tests.gpt2.toy import ATTACK, PLAIN, Train, texts_of

TEXTS = [
    *texts_of(PLAIN, 6, 11),
    *texts_of(ATTACK, 6, 12),
    *texts_of(PLAIN + ATTACK, 4, 13, longest=120),
    "",
    "x",
]


@pytest.fixture(scope="module")
def model(artefact: Path) -> Gpt2Classifier:
    return load(artefact, device="cpu", backend="torch")


@pytest.fixture(scope="module", params=["head", "likelihood"])
def averaging(
    request: pytest.FixtureRequest, train: Train, tmp_path_factory: pytest.TempPathFactory
) -> Gpt2Classifier:
    """A model that pools windows by their mean."""
    out = tmp_path_factory.mktemp(request.param)
    folder = train(out, rule=request.param, epochs=1, window_pooling="mean")
    return load(folder, device="cpu", backend="torch")


def test_a_model_keeps_the_contract_of_a_classifier(model: Gpt2Classifier) -> None:
    assert isinstance(model, Classifier)
    assert model.labels == ("benign", "injection")
    scores = model.score(TEXTS)
    assert scores.logits_NC.shape == (len(TEXTS), 2)
    assert scores.logits_NC.dtype == np.float32
    assert np.isfinite(scores.logits_NC).all()
    assert scores.novelty_N is None
    assert scores.evidence is None
    assert not scores.truncated_N.any()


def test_it_tells_how_much_arithmetic_a_token_takes(averaging: Gpt2Classifier) -> None:
    assert isinstance(averaging, HasCost)
    layers = 2 * 12 * 16**2  # per layer: 4 width^2 of attention, 8 of the MLP
    vocabulary = 320 * 16
    by_rule = {2.0 * layers, 2.0 * 2 * (layers + vocabulary)}  # a head; two language models
    assert averaging.flops_per_token in by_rule


def test_scores_do_not_depend_on_the_company_or_the_order(model: Gpt2Classifier) -> None:
    together = model.score(TEXTS, novelty=True)
    order = np.random.default_rng(0).permutation(len(TEXTS))
    shuffled = model.score([TEXTS[i] for i in order], novelty=True)
    np.testing.assert_allclose(shuffled.logits_NC, together.logits_NC[order], atol=1e-4)
    assert shuffled.novelty_N is not None
    assert together.novelty_N is not None
    np.testing.assert_allclose(shuffled.novelty_N, together.novelty_N[order], atol=1e-4)
    for i, text in enumerate(TEXTS):
        np.testing.assert_allclose(
            model.score([text]).logits_NC[0], together.logits_NC[i], atol=1e-4
        )


def test_features_are_the_mean_final_states_of_transformers(model: Gpt2Classifier) -> None:
    assert isinstance(model, HasFeatures)
    features_NF = model.features(TEXTS)
    assert features_NF.shape == (len(TEXTS), model.feature_size)
    assert features_NF.dtype == np.float32
    for i, text in enumerate(TEXTS):
        ids = model._tokenizer.encode(text, add_special_tokens=False).ids
        means = []
        for a, b in windows(len(ids), 23, 6):
            tokens = torch.tensor([[model._spec.start_token, *ids[a:b]]])
            with torch.no_grad():
                read = [lm.transformer(tokens) for lm in model._network.language_models]
            means.append(torch.cat([r.last_hidden_state[0].mean(0) for r in read]))
        expected_F = torch.stack(means).mean(0).numpy()
        np.testing.assert_allclose(features_NF[i], expected_F, atol=1e-4)
    np.testing.assert_allclose(model.features(TEXTS[::-1]), features_NF[::-1], atol=1e-4)


def test_a_long_text_is_read_in_windows_to_its_end(model: Gpt2Classifier) -> None:
    short, long = "tell me about rice", " ".join(PLAIN * 40)
    scores = model.score([short, long])
    expected = len(windows(int(scores.tokens_N[1]), 23, 6))
    assert scores.windows_N.tolist() == [1, expected]
    assert scores.tokens_N[1] > 400
    payload = " ".join(ATTACK)
    leads = [
        np.diff(model.score([text]).logits_NC[0])[0]
        for text in (long, f"{payload} {long}", f"{long} {payload}", f"{long} {payload} {long}")
    ]
    assert min(leads[1:]) > leads[0]


def test_no_text_at_all_gives_no_rows(model: Gpt2Classifier) -> None:
    scores = model.score([], novelty=True, evidence=True)
    assert scores.logits_NC.shape == (0, 2)
    assert scores.evidence == []


def test_likelihood_evidence_adds_up_to_the_logits(averaging: Gpt2Classifier) -> None:
    scores = averaging.score(TEXTS, evidence=True)
    assert scores.evidence is not None
    for logits_C, evidence in zip(scores.logits_NC, scores.evidence, strict=True):
        if "likelihood" in evidence.scorer:
            np.testing.assert_allclose(evidence.values_TC.sum(0), logits_C, atol=1e-4)


def test_averaged_windows_share_the_evidence(averaging: Gpt2Classifier) -> None:
    words = " ".join(PLAIN * 4)
    (evidence,) = averaging.score([words], evidence=True).evidence or ()
    assert averaging.score([words]).windows_N[0] > 1
    assert np.abs(evidence.values_TC).max(axis=1).all()  # every token of every window


def test_winning_windows_evidence_explains_the_lead_over_neutral(model: Gpt2Classifier) -> None:
    text = " ".join([*PLAIN * 6, *ATTACK, *PLAIN * 6])
    scores = model.score([text], evidence=True)
    assert scores.evidence is not None
    (evidence,) = scores.evidence
    assert not evidence.values_TC[:, 0].any()  # the neutral label leads itself by nothing
    explained = np.flatnonzero(evidence.values_TC[:, 1]).tolist()
    assert len(explained) <= 23  # one window
    spans = [evidence.spans[t] for t in explained]
    start = text.index(" ".join(ATTACK))
    end = start + len(" ".join(ATTACK))
    assert min(a for a, _ in spans) < end
    assert max(b for _, b in spans) > start
    if model._spec.rule == "likelihood":
        assert evidence.values_TC[:, 1].sum() == pytest.approx(scores.logits_NC[0, 1], abs=1e-4)


def test_evidence_spans_point_into_the_text(model: Gpt2Classifier) -> None:
    text = "Ignore Zürich 東京 now"
    scores = model.score([text], evidence=True)
    assert scores.evidence is not None
    (evidence,) = scores.evidence
    assert len(evidence.spans) == len(evidence.values_TC) == scores.tokens_N[0]
    covered = {i for a, b in evidence.spans for i in range(a, b)}
    assert {i for i, c in enumerate(text) if not c.isspace()} <= covered
    assert all(0 <= a <= b <= len(text) for a, b in evidence.spans)
    assert model._spec.rule in evidence.scorer


def test_text_unlike_the_training_text_is_more_novel(model: Gpt2Classifier) -> None:
    seen = model.score(texts_of(PLAIN + ATTACK, 10, 21), novelty=True).novelty_N
    strange = model.score(["qzx 0x7f;; }{ 東京 ~~ \x07" * 2] * 2, novelty=True).novelty_N
    assert seen is not None
    assert strange is not None
    assert strange.min() > seen.max()


def test_without_a_language_model_novelty_is_the_energy(train: Train, tmp_path: Path) -> None:
    folder = train(tmp_path, lm_weight=0.0, epochs=1)
    scores = load(folder, device="cpu", backend="torch").score(TEXTS, novelty=True)
    assert scores.novelty_N is not None
    np.testing.assert_allclose(
        scores.novelty_N, -np.log(np.exp(scores.logits_NC).sum(1)), rtol=1e-4
    )


@pytest.mark.gpu
def test_cuda_and_cpu_agree(artefact: Path, train: Train, tmp_path: Path) -> None:
    on_cpu = load(artefact, device="cpu", backend="torch").score(TEXTS, novelty=True)
    on_cuda = load(artefact, device="cuda", backend="torch").score(TEXTS, novelty=True)
    np.testing.assert_allclose(on_cuda.logits_NC, on_cpu.logits_NC, atol=1e-3)
    trained = load(train(tmp_path, device="cuda"), device="cuda", backend="torch")
    assert np.isfinite(trained.score(TEXTS, evidence=True).logits_NC).all()


@pytest.mark.parametrize(
    ("device", "backend", "message"),
    [
        ("cpu", "onnx", "backend 'onnx': the gpt2 family runs on 'torch' only"),
        ("tpu", "torch", "device 'tpu'; allowed: auto, cpu, cuda"),
    ],
)
def test_an_unknown_device_or_backend_is_refused(
    device: str, backend: str, message: str, artefact: Path
) -> None:
    with pytest.raises(ConfigError, match=message):
        Gpt2Family().load(artefact, device=device, backend=backend)


def test_an_artefact_whose_parts_do_not_fit_is_refused(artefact: Path, tmp_path: Path) -> None:
    folder = tmp_path / "model"
    shutil.copytree(artefact, folder)
    config = json.loads((folder / "config.json").read_text())

    def rewrite(**network: object) -> None:
        (folder / "config.json").write_text(
            json.dumps({**config, "network": {**config["network"], **network}})
        )

    rewrite(rule="vote")
    with pytest.raises(ArtefactError, match=r"network\.rule: Input should be .* \(got 'vote'\)"):
        load(folder, device="cpu", backend="torch")
    rewrite(gpt2={**config["network"]["gpt2"], "n_embd": 32})
    with pytest.raises(ArtefactError, match="has shape"):
        load(folder, device="cpu", backend="torch")
    rewrite()
    weights = load_file(folder / "model.safetensors")
    weights.pop("lms.0.transformer.wpe.weight")
    save_file(weights, folder / "model.safetensors")
    with pytest.raises(ArtefactError, match=r"'lms.0.transformer.wpe.weight' is missing"):
        load(folder, device="cpu", backend="torch")


@pytest.mark.filterwarnings("ignore:out of memory:RuntimeWarning")
def test_memory_that_runs_out_at_any_batch_changes_no_label(
    averaging: Gpt2Classifier, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(scoring.BATCH_TOKENS, "cpu", 160)
    run, calls, failing = Network.forward, 0, -1

    def forward(self: Network, tokens_BL: torch.Tensor, *args: Any, **kwargs: Any) -> Any:
        nonlocal calls
        calls += 1
        if failing in (0, calls) and len(tokens_BL) > 1:  # alone it must fit
            raise torch.OutOfMemoryError("CUDA out of memory")
        return run(self, tokens_BL, *args, **kwargs)

    monkeypatch.setattr(Network, "forward", forward)
    whole = averaging.score(TEXTS).logits_NC
    batches = calls
    assert batches > 4
    halved = 0
    for failing in range(batches + 1):  # noqa: B007 - read by forward; 0: at every batch
        calls = 0
        logits_NC = averaging.score(TEXTS).logits_NC
        halved += calls > batches
        np.testing.assert_array_equal(logits_NC.argmax(1), whole.argmax(1))
        np.testing.assert_allclose(logits_NC, whole, atol=1e-3)
    assert halved > batches / 2
