"""A step may be split, over micro-batches or processes, and stays the same step."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from guardkit_mdlm.batches import pad_batch
from guardkit_mdlm.model import Denoiser
from guardkit_mdlm.scoring import load
from guardkit_mdlm.shape import NetworkShape
from guardkit_mdlm.training.loss import MEASURES, draw, joint_loss, lay_out
from guardkit_mdlm.training.train import train

from guardkit import TrainingData

from .conftest import TINY, make_examples, quiet
from .test_training import losses

#: AdamW at a low rate: Muon iterates in bfloat16, and both make much of how a sum was rounded.
EXACT = TINY.model_copy(update={"dropout": 0.0, "optimizer": "adamw", "lr": 3e-4})

WORKER = """
import pickle, sys
from pathlib import Path
from guardkit_mdlm.scoring import load
from guardkit_mdlm.training.train import train
data, config, out = pickle.loads(Path(sys.argv[1]).read_bytes())
train(data, config, out, pretrain=None, init=None, resume=False, device="cpu",
      progress=lambda *_, **__: None)
"""


@pytest.mark.parametrize("parts", [2, 3, 7, 50])
def test_the_parts_of_a_step_add_up_to_its_loss_and_gradients(parts: int) -> None:
    rng = np.random.default_rng(0)
    texts = [rng.integers(0, 20, n).astype(np.int32) for n in rng.integers(1, 15, 23)]
    batch = pad_batch(texts, rng.integers(-1, 3, 23))
    torch.manual_seed(0)
    shape = NetworkShape(
        vocab_size=21, hidden_dim=16, cond_dim=4, n_blocks=2, n_heads=2, n_classes=3,
        class_bias=True, wide=True, tie_embeddings=True,
    )  # fmt: skip
    net = Denoiser(shape).eval()
    with torch.no_grad():  # classes start out alike, and a tie is decided by rounding
        for parameter in net.parameters():
            parameter += 0.1 * torch.randn_like(parameter)
        net.class_bias[:, -1] = 0.0  # MASK's, as always
    step = draw(batch, EXACT, 3, torch.Generator().manual_seed(1))

    def split(of: int) -> tuple[float, torch.Tensor, dict[str, torch.Tensor]]:
        net.zero_grad()
        total, measures = 0.0, torch.zeros(len(MEASURES))
        for number in range(min(of, len(texts))):
            part = lay_out(step.part(number, of), step.counts, EXACT, shape.mask_id)
            loss, own = joint_loss(net, part, EXACT)
            loss.backward()  # type: ignore[no-untyped-call]
            total += loss.item()
            measures += own
        grads = {n: p.grad.clone() for n, p in net.named_parameters() if p.grad is not None}
        return total, measures, grads

    whole, found = split(1), split(parts)
    assert found[0] == pytest.approx(whole[0], rel=1e-5)
    torch.testing.assert_close(found[1], whole[1], rtol=1e-4, atol=1e-6)
    assert found[2].keys() == whole[2].keys()
    for name, gradient in found[2].items():
        torch.testing.assert_close(gradient, whole[2][name], rtol=1e-4, atol=1e-6, msg=name)


def test_the_text_loss_by_range_of_mask_ratio_averages_to_the_text_loss() -> None:
    rng = np.random.default_rng(3)
    texts = [rng.integers(0, 20, 40).astype(np.int32) for _ in range(64)]
    shape = NetworkShape(
        vocab_size=21, hidden_dim=16, cond_dim=4, n_blocks=1, n_heads=2, n_classes=2
    )
    net = Denoiser(shape).eval()
    step = draw(pad_batch(texts, np.full(64, -1)), EXACT, 2, torch.Generator().manual_seed(1))
    with torch.no_grad():
        part = lay_out(step, step.counts, EXACT, shape.mask_id)
        _, measures = joint_loss(net, part, EXACT)
    named = dict(zip(MEASURES, measures.tolist(), strict=True))
    ranges = [named[name] for name in MEASURES if name.startswith("text_")]
    weights = np.array(step.counts.text_by_range) / step.counts.text
    assert min(step.counts.text_by_range) > 0
    assert np.dot(weights, ranges) == pytest.approx(named["text"], rel=1e-5)


def test_micro_batches_train_to_the_same_losses(data: TrainingData, tmp_path: Path) -> None:
    for name, accumulate in (("whole", 1), ("parts", 3)):
        (tmp_path / name).mkdir()
        config = EXACT.model_copy(update={"accumulate": accumulate})
        train(
            data, config, tmp_path / name, pretrain=None, init=None, resume=False, device="cpu",
            progress=quiet,
        )  # fmt: skip
    whole, parts = losses(tmp_path / "whole"), losses(tmp_path / "parts")
    assert whole.keys() == parts.keys()
    assert list(parts.values()) == pytest.approx(list(whole.values()), rel=1e-3)


def test_two_processes_train_to_the_same_losses_as_one(data: TrainingData, tmp_path: Path) -> None:
    import pickle

    alone, together = tmp_path / "alone", tmp_path / "together"
    alone.mkdir()
    together.mkdir()
    train(data, EXACT, alone, pretrain=None, init=None, resume=False, device="cpu", progress=quiet)
    arguments = tmp_path / "arguments.pickle"
    arguments.write_bytes(pickle.dumps((data, EXACT, together)))
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    environment = os.environ | {
        "WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port),
        "OMP_NUM_THREADS": "1",
    }  # fmt: skip
    workers = [
        subprocess.Popen(
            [sys.executable, "-c", WORKER, str(arguments)],
            env=environment | {"RANK": str(rank), "LOCAL_RANK": str(rank)},
        )
        for rank in range(2)
    ]
    assert [w.wait(timeout=120) for w in workers] == [0, 0]
    assert losses(together).keys() == losses(alone).keys()
    assert list(losses(together).values()) == pytest.approx(list(losses(alone).values()), rel=1e-3)
    texts = make_examples(20, 4).texts
    one, two = (
        load(folder / "artefact", device="cpu", backend="torch").score(texts).logits_NC
        for folder in (alone, together)
    )
    np.testing.assert_allclose(two, one, atol=0.05)
