"""What a network knows before training, held against counting by hand."""

from __future__ import annotations

import numpy as np
import torch
from guardkit_mdlm.model import Denoiser
from guardkit_mdlm.shape import NetworkShape
from guardkit_mdlm.training.start import REACH, SCALE, start_from_cooccurrence

SHAPE = NetworkShape(vocab_size=13, hidden_dim=8, cond_dim=4, n_blocks=1, n_heads=2)


def texts(n: int = 40) -> list[np.ndarray]:
    rng = np.random.default_rng(5)
    return [rng.integers(0, 12, size).astype(np.int32) for size in rng.integers(0, 20, n)]


def positive_pmi() -> np.ndarray:
    """Pair by pair, text by text."""
    met = np.zeros((12, 12))
    for tokens in texts():
        for i, left in enumerate(tokens):
            for j in range(i + 1, min(len(tokens), i + REACH + 1)):
                weight = 1.0 if j - i <= 2 else 1 / (j - i)
                met[left, tokens[j]] += weight
                met[tokens[j], left] += weight
    context = met.sum(1) ** 0.75
    context /= context.sum()
    with np.errstate(divide="ignore"):
        return np.maximum(np.log(met / met.sum(1, keepdims=True) / context), 0)


def test_embeddings_factorise_the_positive_pointwise_mutual_information() -> None:
    net = Denoiser(SHAPE)
    mask = net.trunk.embedding[12].detach().clone()
    start_from_cooccurrence(net, texts())
    found = net.trunk.embedding.detach().numpy()
    U, S, _ = np.linalg.svd(positive_pmi())
    expected = (U * np.sqrt(S))[:, :8]
    expected -= expected.mean(0)
    expected *= SCALE / np.sqrt((expected**2).mean())
    signs = np.sign((found[:12] * expected).sum(0))
    np.testing.assert_allclose(found[:12] * signs, expected, atol=1e-4)
    assert torch.equal(net.trunk.embedding[12], mask)  # MASK meets nothing


def test_tokens_in_like_company_start_alike() -> None:
    """5 and 6 never meet, but stand between the same tokens; 7 stands between others."""
    lines = [[0, 5, 1], [0, 6, 1], [2, 7, 3], [2, 8, 3], [4, 9, 10]] * 10
    net = Denoiser(SHAPE)
    start_from_cooccurrence(net, [np.array(line, np.int32) for line in lines])
    e = net.trunk.embedding.detach()
    near = torch.cosine_similarity(e[5], e[6], dim=0)
    far = torch.cosine_similarity(e[5], e[7], dim=0)
    assert near > 0.9 > 0.5 > far


def test_a_vocabulary_smaller_than_the_embedding_fills_what_it_can() -> None:
    net = Denoiser(SHAPE.model_copy(update={"hidden_dim": 32}))
    before = net.trunk.embedding.detach().clone()
    start_from_cooccurrence(net, texts())
    after = net.trunk.embedding.detach()
    assert not torch.equal(after[:12, :12], before[:12, :12])
    assert torch.equal(after[:12, 12:], before[:12, 12:])
    assert torch.isfinite(after).all()
