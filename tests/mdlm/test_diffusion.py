"""Masks, and the probabilities of what they hide."""

from __future__ import annotations

from itertools import combinations

import numpy as np
import pytest
import torch
from guardkit_mdlm import vocabulary
from guardkit_mdlm.batches import pad_batch
from guardkit_mdlm.diffusion import fixed_size_mask, mask_rng, masked_log_probs
from guardkit_mdlm.estimators import Scheme, evaluate
from guardkit_mdlm.model import Denoiser
from guardkit_mdlm.training.start import start_from_naive_bayes
from scipy.stats import chisquare

IDS = np.array([5, 17, 3, 40], np.int32)


def test_every_set_of_a_size_is_masked_equally_often_and_padding_never() -> None:
    real_BL = torch.tensor([[True] * 4 + [False] * 2]).repeat(6000, 1)
    generator = torch.Generator().manual_seed(0)
    mask_BL = fixed_size_mask(real_BL, torch.full((6000,), 2), generator)
    assert not mask_BL[:, 4:].any()
    assert (mask_BL.sum(1) == 2).all()
    sets = [tuple(row.nonzero()[:, 0].tolist()) for row in mask_BL]
    assert chisquare([sets.count(s) for s in combinations(range(4), 2)]).pvalue > 1e-4


def test_a_generator_follows_from_key_stream_and_text_alone() -> None:
    def first(key: bytes, ids: np.ndarray, stream: int) -> float:
        return mask_rng(key, ids, stream).random()

    assert first(b"key", IDS, 0) == first(b"key", IDS, 0)
    assert first(b"key", IDS, 0) == first(b"key", IDS.astype(np.int64), 0)
    draws = {
        first(key, IDS + shift, stream)
        for key in (b"key", b"other") for shift in (0, 1) for stream in (0, 1)
    }  # fmt: skip
    assert len(draws) == 8


@torch.no_grad()
def test_masked_tokens_are_read_in_reading_order_whatever_is_held_at_once(
    net: Denoiser, monkeypatch: pytest.MonkeyPatch
) -> None:
    batch = pad_batch([IDS, IDS[:3]], np.zeros(2))
    mask_BL = torch.tensor([[True, False, False, True], [False, True, True, False]])
    class_B = torch.tensor([1, 3])
    whole_N = masked_log_probs(net, batch.ids_BL, mask_BL, class_B, batch.real_BL)
    for n, (b, i) in enumerate([(0, 0), (0, 3), (1, 1), (1, 2)]):
        length = (4, 3)[b]
        noised = batch.ids_BL[[b], :length].masked_fill(mask_BL[[b], :length], net.shape.mask_id)
        _, x = net(noised, class_B[[b]], torch.ones_like(noised, dtype=torch.bool))
        logits = net.token_logits(x[0, [i]], class_B[[b]])[0]
        logits[net.shape.mask_id] = -torch.inf
        expected = logits.log_softmax(-1)[batch.ids_BL[b, i]]
        torch.testing.assert_close(whole_N[n], expected, atol=1e-4, rtol=1e-4)
    monkeypatch.setattr(vocabulary, "ROWS", {"cpu": 3})
    parts_N = masked_log_probs(net, batch.ids_BL, mask_BL, class_B, batch.real_BL)
    torch.testing.assert_close(parts_N, whole_N)


@torch.no_grad()
def test_before_training_the_generative_ratio_is_naive_bayes(net: Denoiser) -> None:
    """Whatever the mask: the network starts as a unigram model of each class."""
    fresh = Denoiser(net.shape)
    texts = [np.array(t, np.int32) for t in ([1, 2, 2, 3], [2, 4], [9, 9, 1], [4, 5, 6, 7, 8])]
    labels = np.array([0, 1, 2, 0])
    start_from_naive_bayes(fresh, texts, labels)
    counts = np.ones((3, 49))
    for text, label in zip(texts, labels, strict=True):
        np.add.at(counts[label], text, 1)
    log_p = np.log(counts / counts.sum(1, keepdims=True))
    values_C = evaluate(
        fresh.eval(), [IDS], Scheme("half_pairs", 2), classes=[1, 2, 3], key=b""
    ).estimate()[0]
    expected_C = log_p[:, IDS].sum(1)
    np.testing.assert_allclose(
        values_C - values_C.mean(), expected_C - expected_C.mean(), atol=1e-4
    )
