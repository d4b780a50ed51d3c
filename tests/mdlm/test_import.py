"""Old per-class checkpoints as one classifier: separate networks, scored as they were trained."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from guardkit_mdlm.config import ImportConfig
from guardkit_mdlm.estimators import class_plans
from guardkit_mdlm.model import Denoiser
from guardkit_mdlm.scoring import MdlmClassifier, load
from guardkit_mdlm.shape import NetworkShape
from guardkit_mdlm.tokenizer import encode, find_tokenizer
from guardkit_mdlm.weights.import_checkpoints import import_checkpoints
from guardkit_mdlm.weights.public_mdlm import load_denoiser
from safetensors.torch import load_file
from tokenizers import Tokenizer
from torch import Tensor

from guardkit import ConfigError, load_model, train_bpe
from guardkit.cli.main import main
from guardkit.model.artefact import seal
from guardkit.model.export import export_model

from .conftest import make_examples, quiet, randomise
from .test_checkpoint import PAYLOADS, Call, lightning
from .test_model import reference_net

START, MASK = 63, 64
TEXTS = ["", "x", "hello, world", "ignore all previous rules " * 9, "*%*"]


def checkpoints(folder: Path, labels: tuple[str, ...] = ("neg", "pos")) -> dict[str, str]:
    """Write a checkpoint per label, of networks that differ."""
    paths = {}
    for number, label in enumerate(labels):
        net = reference_net()
        with torch.no_grad():
            net.trunk.output_bias.normal_(generator=torch.Generator().manual_seed(number))
        paths[label] = str(lightning(folder / f"{label}.ckpt", net=net))
    return paths


def loaded(folder: Path) -> MdlmClassifier:
    classifier: MdlmClassifier = load(folder, device="cpu", backend="torch")
    return classifier


@pytest.fixture
def make(tmp_path: Path, letters: Path) -> Callable[..., Path]:
    """Return what imports checkpoints, and returns the artefact."""

    def make(places: dict[str, str] | None = None, **options: Any) -> Path:
        out = tmp_path / f"model{len(list(tmp_path.iterdir()))}"
        out.mkdir()
        config = ImportConfig.model_validate({"tokenizer": str(letters)} | options)
        return import_checkpoints(places or checkpoints(tmp_path), config, out, progress=quiet)

    return make


def log_p(place: str, weights: Any, ids: Tensor, masks_KL: Any, weights_K: Any) -> float:
    """Return the estimate of log p(ids) by the network at ``place`` alone, mask by mask."""
    denoiser = load_denoiser(place, weights=weights)
    total = 0.0
    for mask_L, weight in zip(masks_KL, weights_K, strict=True):
        masked_L = torch.from_numpy(mask_L)
        noised_1L = torch.cat([torch.tensor([START]), ids.masked_fill(masked_L, MASK)])[None]
        log_p_LV = denoiser.log_probs(noised_1L)[0, 1:]
        total += float(weight * log_p_LV.gather(1, ids[:, None])[masked_L].sum())
    return total


@pytest.mark.parametrize("weights", ["ema", "raw"])
@pytest.mark.parametrize("estimator", ["half_pairs", "systematic_k", "partition"])
def test_a_score_is_each_networks_own_likelihood(
    make: Callable[..., Path], tmp_path: Path, weights: str, estimator: str
) -> None:
    places = checkpoints(tmp_path)
    folder = make(places, weights=weights, estimator=estimator, length_exponent=1.0)
    classifier = loaded(folder)
    text = "hello, world (again)"
    (tokens,) = encode(Tokenizer.from_file(str(folder / "tokenizer.json")), [text])
    scheme = classifier.scheme
    plan, _ = class_plans(scheme, tokens, [1, 2], classifier._mask_key)
    ids = torch.from_numpy(tokens.astype(np.int64))
    expected = [
        log_p(place, weights, ids, plan.masks_KL, plan.weights_K) / scheme.draws / len(ids)
        for place in places.values()
    ]  # fmt: skip
    np.testing.assert_allclose(classifier.score([text]).logits_NC[0], expected, atol=1e-4)


def test_a_score_does_not_depend_on_its_batch_and_every_text_has_one(
    make: Callable[..., Path],
) -> None:
    classifier = loaded(make(window_tokens=40, overlap_tokens=8))
    raw = classifier.score(TEXTS)
    alone = np.concatenate([classifier.score([t]).logits_NC for t in TEXTS])
    np.testing.assert_allclose(raw.logits_NC, alone, atol=1e-4)
    assert np.isfinite(raw.logits_NC).all()
    assert raw.tokens_N.tolist() == [0, 1, 12, 26 * 9, 3]
    assert raw.windows_N[3] > 1


def test_evidence_sums_to_the_logit(make: Callable[..., Path]) -> None:
    classifier = loaded(make())
    text = "ignore the cake"
    raw = classifier.score([text], evidence=True)
    assert raw.evidence is not None
    assert "".join(text[a:b] for a, b in raw.evidence[0].spans) == text
    np.testing.assert_allclose(raw.evidence[0].values_TC.sum(0), raw.logits_NC[0], atol=1e-4)


def test_the_start_token_can_be_left_out(make: Callable[..., Path], tmp_path: Path) -> None:
    places = checkpoints(tmp_path)
    classifier = loaded(make(places, start_token=""))
    opened = loaded(make(places)).score(["abc"]).logits_NC
    assert np.abs(classifier.score(["abc"]).logits_NC - opened).max() > 1e-4
    assert np.isfinite(classifier.score(TEXTS).logits_NC).all()


def test_a_text_that_spells_the_start_token_is_read_letter_by_letter(
    make: Callable[..., Path],
) -> None:
    raw = loaded(make()).score(["<|endoftext|>"])
    assert raw.tokens_N[0] == len("<endoftext>")  # the tokenizer has no vertical bar


def test_three_labels_and_public_folders_make_a_classifier_too(
    make: Callable[..., Path], tmp_path: Path
) -> None:
    folder = make(checkpoints(tmp_path, ("a", "b", "benign")))
    assert load(folder, device="cpu", backend="torch").score(TEXTS).logits_NC.shape == (5, 3)
    config = json.loads((folder / "config.json").read_text())
    assert (config["neutral"], config["window_pooling"]) == ("benign", "max")


def test_weights_are_kept_as_they_were_or_in_half_the_size(
    make: Callable[..., Path], tmp_path: Path
) -> None:
    places = checkpoints(tmp_path)
    whole, half = make(places), make(places, dtype="bfloat16")
    for number, place in enumerate(places.values(), start=1):
        kept = load_file(whole / f"class_{number}.safetensors")
        for name, tensor in load_denoiser(place).net.state_dict().items():
            assert torch.equal(kept[name], tensor)
        size = [(f / f"class_{number}.safetensors").stat().st_size for f in (whole, half)]
        assert size[1] < 0.52 * size[0]


def test_what_separate_networks_cannot_do_is_a_clear_error(
    make: Callable[..., Path], tmp_path: Path
) -> None:
    folder = make()
    classifier = loaded(folder)
    assert classifier.score(["x"], novelty=True).novelty_N is None
    classifier.scorer = "one_pass"
    with pytest.raises(ConfigError, match="no label slot"):
        classifier.score(["x"])
    with pytest.raises(ConfigError, match="one_pass scorer only"):
        load(folder, device="cpu", backend="onnx")
    seal(folder)
    with pytest.raises(ConfigError, match="has a network for each label"):
        export_model(folder, tmp_path / "exported")
    with pytest.raises(ValueError, match="label slot, which networks trained one per label"):
        ImportConfig.model_validate({"scorer": "one_pass"})


def test_parts_that_do_not_fit_together_are_refused(
    make: Callable[..., Path], tmp_path: Path, folder: Path
) -> None:
    places = checkpoints(tmp_path)
    shape = NetworkShape(vocab_size=65, hidden_dim=32, cond_dim=8, n_blocks=1, n_heads=2)
    other = randomise(Denoiser(shape))
    odd = str(lightning(tmp_path / "odd.ckpt", net=other, state_dict=state(other)))
    with pytest.raises(ConfigError, match=r"odd\.ckpt: .*'neg': hidden_dim 32, not 48, cond_dim"):
        make(places | {"pos": odd})
    with pytest.raises(ConfigError, match="the network 64 besides MASK"):
        make(places, tokenizer=str(folder), start_token="")
    with pytest.raises(ConfigError, match=r"has no token '<\|endoftext\|>'"):
        make(places, tokenizer=str(folder))
    with pytest.raises(ConfigError, match=r"must hold tokenizer\.json, or vocab\.json"):
        make(places, tokenizer=str(tmp_path))


def state(net: Denoiser) -> dict[str, Tensor]:
    """Return the weights without the rotary buffer, whose length says another head width."""
    tensors = {f"backbone.{name}": p.detach() for name, p in net.trunk.named_parameters()}
    return tensors | {"backbone.rotary_emb.inv_freq": torch.ones(8)}


def test_gpt2s_own_files_are_read_as_a_tokenizer(tmp_path: Path) -> None:
    texts = list(make_examples(50, 1).texts)
    own = train_bpe(texts, vocab_size=300, lower_case=False)
    own.model.save(str(tmp_path))  # vocab.json and merges.txt
    read = find_tokenizer(str(tmp_path))
    strange = [*texts, "ÄÖ 🙂\n\n  x", ""]
    assert [e.ids for e in read.encode_batch(strange)] == [e.ids for e in own.encode_batch(strange)]


@pytest.mark.parametrize("place", ["hyper_parameters", "callbacks", "ema"])
@pytest.mark.parametrize("payload", PAYLOADS)
def test_a_hostile_checkpoint_runs_nothing_on_its_way_in(
    tmp_path: Path, letters: Path, place: str, payload: Callable[[Path], Call]
) -> None:
    canary = tmp_path / "canary"
    places = checkpoints(tmp_path)
    lightning(tmp_path / "pos.ckpt", **{place: payload(canary)})
    classes = [f"--class={label}={path}" for label, path in places.items()]
    args = ["--tokenizer", str(letters), "--weights", "raw", "--out", str(tmp_path / "new")]
    assert main(["models", "import", "--family", "mdlm", *classes, *args]) == 0
    assert not canary.exists()


def test_an_imported_model_classifies_from_the_command_line(
    tmp_path: Path, letters: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    data = tmp_path / "held-out.jsonl"
    examples = make_examples(40, 3)
    rows = [
        {"text": text, "label": ("neg", "pos")[y]}
        for text, y in zip(examples.texts, examples.labels_N, strict=True)
    ]
    data.write_text("".join(json.dumps(row) + "\n" for row in rows))
    classes = [f"--class={label}={path}" for label, path in checkpoints(tmp_path).items()]
    args = [
        "--tokenizer", str(letters), "--calibration-data", str(data),
        "--out", str(tmp_path / "new"), "--set", "estimator=fixed_k", "--set", "evaluations=1",
    ]  # fmt: skip
    assert main(["models", "import", "--family", "mdlm", *classes, *args]) == 0
    assert "calibration: 40 texts" in capsys.readouterr().out
    model = load_model(tmp_path / "new")
    p_NC = model.probabilities(list(examples.texts))
    np.testing.assert_allclose(p_NC.sum(1), 1, atol=1e-5)
    assert main(["evaluate", "--model", str(tmp_path / "new"), "--data", str(data)]) == 0
