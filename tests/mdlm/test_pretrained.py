"""Training that starts from public weights, or from a model of guardkit's own."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from guardkit_mdlm.config import PRESETS, MdlmConfig
from guardkit_mdlm.loading import load_network
from guardkit_mdlm.model import Denoiser
from guardkit_mdlm.scoring import load
from guardkit_mdlm.shape import NetworkShape
from guardkit_mdlm.training.optimisation import Optimiser
from guardkit_mdlm.training.pretrained import LR_BODY, Pretrained, open_pretrained
from guardkit_mdlm.weights.public_mdlm import load_denoiser
from safetensors.torch import load_file
from torch import Tensor

from guardkit import ArtefactError, ConfigError, TrainingData, TrainingInterrupted, read_config
from guardkit.model.artefact import seal

from .conftest import make_examples
from .test_checkpoint import lightning
from .test_model import REFERENCE
from .test_training import fit, interrupt_at, losses

START = 63


@pytest.fixture
def public(tmp_path: Path) -> Path:
    """The layout of the hub's mdlm-owt."""
    folder = tmp_path / "public"
    folder.mkdir()
    shutil.copy(REFERENCE / "model.safetensors", folder)
    (folder / "config.json").write_text('{"model_type": "mdlm", "n_heads": 3}')
    return folder


def tiny(letters: Path, **changes: object) -> MdlmConfig:
    options = {
        "tokenizer": str(letters), "window_tokens": 24, "overlap_tokens": 6, "batch_tokens": 512,
        "epochs": 2, "dtype": "float32", "checkpoint_steps": 4, "lr": 1e-3,
    }  # fmt: skip
    return MdlmConfig.model_validate(options | changes)


def joined(start: Pretrained, n_classes: int = 2) -> Denoiser:
    """A network with classes that starts from ``start``, its class bias random."""
    shape = start.net.shape.model_copy(update={"n_classes": n_classes, "class_bias": True})
    net = Denoiser(shape)
    start.fill(net)
    with torch.no_grad():
        net.class_bias.normal_(generator=torch.Generator().manual_seed(2))
    return net.eval()


@torch.no_grad()
def token_logits(net: Denoiser, ids_BL: Tensor, class_: int) -> Tensor:
    class_B = torch.full((len(ids_BL),), class_)
    _, x_BLD = net(ids_BL, class_B, torch.ones_like(ids_BL, dtype=torch.bool))
    class_N = class_B.repeat_interleave(x_BLD.shape[1])
    return net.token_logits(x_BLD.flatten(0, 1), class_N).view(*x_BLD.shape[:2], -1)


@pytest.fixture
def ids_BL() -> Tensor:
    golden = np.load(REFERENCE / "golden.npz")
    return torch.from_numpy(golden["xt"])


def test_the_null_class_computes_the_public_network_behind_its_start_token(
    public: Path, letters: Path, ids_BL: Tensor
) -> None:
    start = open_pretrained(str(public), str(letters))
    behind = torch.cat([torch.full((len(ids_BL), 1), START), ids_BL], dim=1)
    expected = load_denoiser(public).logits(behind)[:, 1:]
    assert (ids_BL == 64).any()  # some of it masked
    torch.testing.assert_close(token_logits(joined(start), ids_BL, 0), expected, atol=1e-4, rtol=0)


def test_before_training_a_class_adds_its_naive_bayes_bias_alone(
    public: Path, letters: Path, ids_BL: Tensor
) -> None:
    net = joined(open_pretrained(str(public), str(letters)), n_classes=3)
    plain = token_logits(net, ids_BL, 0)
    for class_ in (1, 2, 3):
        expected = plain + net.class_bias[class_ - 1]
        torch.testing.assert_close(token_logits(net, ids_BL, class_), expected, atol=1e-4, rtol=0)


def test_an_old_checkpoint_can_be_started_from_too(letters: Path, tmp_path: Path) -> None:
    path = lightning(tmp_path / "last.ckpt")
    start = open_pretrained(str(path), str(letters))
    averaged = load_denoiser(path).net.trunk.embedding
    torch.testing.assert_close(joined(start).trunk.embedding, averaged)
    torch.testing.assert_close(start.slot_D, averaged[START])


def test_a_model_of_guardkits_own_gives_its_language_slot_and_tokenizer(
    folder: Path, tmp_path: Path
) -> None:
    sealed = tmp_path / "model"
    shutil.copytree(folder, sealed)
    seal(sealed)
    trained, start = load_network(sealed), open_pretrained(str(sealed), "unused")
    assert start.tokenizer.get_vocab_size() == trained.shape.mask_id
    ids_BL = torch.arange(20).view(2, 10)
    expected = token_logits(trained.eval(), ids_BL, 0)
    torch.testing.assert_close(token_logits(joined(start, 3), ids_BL, 0), expected)

    with (sealed / "config.json").open("a") as file:
        file.write(" ")
    with pytest.raises(ArtefactError, match="SHA-256"):
        open_pretrained(str(sealed), "unused")


def test_the_networks_shape_is_the_weights_own(public: Path, letters: Path) -> None:
    start = open_pretrained(str(public), str(letters))
    config = start.options(tiny(letters, hidden_dim=48, dropout=0.25))
    assert (config.hidden_dim, config.n_blocks, config.n_heads, config.cond_dim) == (48, 2, 3, 16)
    assert (config.vocab_size, config.tie_embeddings, config.lower_case) == (64, False, True)
    assert (config.dropout, config.lr, config.lr_body) == (0.25, 1e-3, LR_BODY)
    assert config.optimizer == "adamw"
    chosen = start.options(tiny(letters, optimizer="muon", lr_body=1e-4))
    assert (chosen.optimizer, chosen.lr_body) == ("muon", 1e-4)


def test_a_shape_that_contradicts_the_weights_is_refused_field_by_field(
    public: Path, letters: Path
) -> None:
    start = open_pretrained(str(public), str(letters))
    wrong = r"hidden_dim is 48 there, not 96; .*tie_embeddings is False there, not True"
    with pytest.raises(ConfigError, match=wrong):
        start.options(tiny(letters, hidden_dim=96, tie_embeddings=True))
    start.options(MdlmConfig.model_validate(PRESETS["finetune"]))
    with pytest.raises(ConfigError, match="preset"):
        start.options(MdlmConfig.model_validate(PRESETS["large"]))


def test_weights_brought_along_learn_at_their_own_rate(public: Path, letters: Path) -> None:
    start = open_pretrained(str(public), str(letters))
    net = joined(start)
    optimiser = Optimiser(net, start.options(tiny(letters)), 10)
    (adamw,) = optimiser.optimisers
    names = {id(p): name for name, p in optimiser.masters.items()}
    rates = {names[id(p)]: g["lr"] for g in adamw.param_groups for p in g["params"]}
    assert rates.keys() == optimiser.masters.keys()
    new = {name for name, rate in rates.items() if rate == 1e-3}
    assert new == {
        "class_cond", "slot", "slot_class", "log_tau", "label_head.weight", "label_head.bias",
    }  # fmt: skip
    assert {rates[name] for name in rates.keys() - new} == {LR_BODY}


def test_fine_tuning_learns_resumes_and_loads(
    data: TrainingData, public: Path, letters: Path, tmp_path: Path
) -> None:
    config = tiny(letters, epochs=6, lr_body=1e-3)
    folder = fit(data, tmp_path / "whole", config, init=str(public))
    with pytest.raises(TrainingInterrupted):
        fit(data, tmp_path / "cut", config, init=str(public), progress=interrupt_at(3))
    resumed = fit(data, tmp_path / "cut", config, init=str(public), resume=True)
    assert losses(tmp_path / "cut") == losses(tmp_path / "whole")
    weights = [load_file(f / "model.safetensors") for f in (folder, resumed)]
    assert all(torch.equal(weights[0][name], weights[1][name]) for name in weights[0])

    held_out = make_examples(60, 9)
    classifier = load(folder, device="cpu", backend="torch")
    for scorer in ("one_pass", "generative"):
        classifier.scorer = scorer
        logits_NC = classifier.score(held_out.texts).logits_NC
        assert (logits_NC.argmax(1) == held_out.labels_N).mean() > 0.9, scorer
    config_of = read_config(folder)
    assert config_of.training["init"] == str(public)
    assert NetworkShape.model_validate(config_of.network["shape"]).hidden_dim == 48


def test_another_familys_model_is_refused(folder: Path, tmp_path: Path) -> None:
    with pytest.raises(ArtefactError, match="of plugin 'gpt2', asked for as 'mdlm'"):
        open_pretrained("builtin:gpt2/injection", "unused")


def test_weights_and_tokenizer_that_do_not_fit_are_refused(
    public: Path, letters: Path, folder: Path
) -> None:
    with pytest.raises(ConfigError, match="the network 64 besides MASK"):
        open_pretrained(str(public), str(folder))
    with pytest.raises(ConfigError, match=r"must hold tokenizer\.json"):
        open_pretrained(str(public), str(public))
    with pytest.raises(ArtefactError, match="the hub did not give it"):
        open_pretrained("no/such/model", str(letters))
