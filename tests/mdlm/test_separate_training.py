"""A network for each label, trained on its own texts: the design that got 62%, run again."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from guardkit_mdlm.config import PRESETS, MdlmConfig
from guardkit_mdlm.loading import load_class_network
from guardkit_mdlm.record import NetworkRecord
from guardkit_mdlm.scoring import load
from guardkit_mdlm.weights.separate import SeparateNetworks
from safetensors.torch import load_file
from torch import Tensor

from guardkit import TrainingData, read_config

from .conftest import make_examples
from .test_model import REFERENCE
from .test_training import fit, losses

RECIPE = PRESETS["experiment-2025-11"]
#: The recipe at the size of the reference weights, for some steps.
SMALL = {
    "hidden_dim": 48, "n_blocks": 2, "n_heads": 3, "cond_dim": 16, "window_tokens": 24,
    "batch_tokens": 512, "accumulate": 2, "epochs": 3, "dtype": "float32", "dropout": 0.0,
    "warmup": 0.2, "vocab_size": 320,
}  # fmt: skip


def recipe(**changes: object) -> MdlmConfig:
    return MdlmConfig.model_validate({**RECIPE, **SMALL, **changes})


def test_the_recipe_trains_two_networks_that_its_own_rule_scores(
    data: TrainingData, tmp_path: Path
) -> None:
    folder = fit(data, tmp_path, recipe(epochs=8.0, lr=3e-3, lr_body=3e-3))
    values = list(losses(tmp_path).values())
    assert values[-1] < values[0]
    config = read_config(folder)
    assert [config.network[k] for k in ("estimator", "evaluations", "shared_masks")] == [
        "bernoulli", 1, False,
    ]  # fmt: skip
    held_out = make_examples(60, 9)
    classifier = load(folder, device="cpu", backend="torch")
    classifier.scheme = classifier.scheme.__class__("half_pairs", 8, True)
    logits_NC = classifier.score(held_out.texts).logits_NC
    assert (logits_NC.argmax(1) == held_out.labels_N).mean() > 0.95


def test_a_network_learns_from_its_own_label_alone(data: TrainingData, tmp_path: Path) -> None:
    """With no text of the second label, its network stays what it was."""
    one = data.train.select(np.flatnonzero(data.train.labels_N == 0))
    fast = recipe(lr=0.01, lr_body=0.01, ema=0.5)
    folder = fit(TrainingData(one, data.validation), tmp_path, fast)
    config = read_config(folder)
    trained = load_class_network(folder, NetworkRecord.of(folder, config))
    torch.manual_seed(0)
    untouched = SeparateNetworks(trained.shape, None)

    def weights(net: SeparateNetworks, number: int) -> Tensor:
        return torch.cat([p.flatten().float() for p in net.networks[number].parameters()])

    torch.testing.assert_close(weights(trained, 1), weights(untouched, 1), atol=1e-2, rtol=1e-2)
    assert (weights(trained, 0) - weights(untouched, 0)).abs().max() > 0.05


def test_both_networks_start_from_public_weights(
    data: TrainingData, letters: Path, tmp_path: Path
) -> None:
    public = tmp_path / "public"
    public.mkdir()
    (public / "model.safetensors").write_bytes((REFERENCE / "model.safetensors").read_bytes())
    (public / "config.json").write_text('{"model_type": "mdlm", "n_heads": 3}')
    options = {k: v for k, v in SMALL.items() if k != "vocab_size"}
    config = MdlmConfig.model_validate(
        {**RECIPE, **options, "lr": 1e-12, "lr_body": 1e-12, "tokenizer": str(letters)}
    )
    folder = fit(data, tmp_path / "run", config, init=str(public))
    assert read_config(folder).network["separate"] == {"start_id": 63}
    original = load_file(public / "model.safetensors")["backbone.vocab_embed.embedding"]
    for number in (1, 2):
        found = load_file(folder / f"class_{number}.safetensors")["trunk.vocab_embed.embedding"]
        torch.testing.assert_close(found.float(), original, atol=1e-2, rtol=1e-2)


def test_options_that_need_one_network_are_refused() -> None:
    with pytest.raises(ValueError, match=r"separate.*label_weight=0.0, pair_weight=0.0"):
        recipe(label_weight=1.0, pair_weight=1.0)
