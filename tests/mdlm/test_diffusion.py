"""Masks and likelihoods against brute force over every mask of short texts."""

from __future__ import annotations

from itertools import combinations

import numpy as np
import torch
from guardkit_mdlm.batches import pad_batch
from guardkit_mdlm.diffusion import (
    class_log_likelihoods,
    fixed_size_mask,
    half_mask,
    mask_rng,
    masked_log_probs,
    sum_by_row,
)
from guardkit_mdlm.model import Denoiser
from guardkit_mdlm.training import start_from_naive_bayes
from scipy.stats import chisquare

IDS = np.array([5, 17, 3, 40], np.int32)


def test_every_half_is_drawn_equally_often() -> None:
    halves = [tuple(np.flatnonzero(half_mask(4, mask_rng(b"key", IDS, p)))) for p in range(6000)]
    counts = [halves.count(half) for half in combinations(range(4), 2)]
    assert sum(counts) == 6000
    assert chisquare(counts).pvalue > 1e-4


def test_every_set_of_a_size_is_masked_equally_often_and_padding_never() -> None:
    real_BL = torch.tensor([[True] * 4 + [False] * 2]).repeat(6000, 1)
    generator = torch.Generator().manual_seed(0)
    mask_BL = fixed_size_mask(real_BL, torch.full((6000,), 2), generator)
    assert not mask_BL[:, 4:].any()
    assert (mask_BL.sum(1) == 2).all()
    sets = [tuple(row.nonzero()[:, 0].tolist()) for row in mask_BL]
    assert chisquare([sets.count(s) for s in combinations(range(4), 2)]).pvalue > 1e-4


def test_masks_follow_from_key_pair_and_text_alone() -> None:
    first = half_mask(4, mask_rng(b"key", IDS, 0))
    np.testing.assert_array_equal(first, half_mask(4, mask_rng(b"key", IDS, 0)))
    draws = {
        tuple(half_mask(64, mask_rng(key, np.arange(64, dtype=np.int32) + shift, pair)))
        for key in (b"key", b"other") for shift in (0, 1) for pair in (0, 1)
    }  # fmt: skip
    assert len(draws) == 8


@torch.no_grad()
def test_an_h_pair_predicts_each_token_once_from_the_other_half(net: Denoiser) -> None:
    batch = pad_batch([IDS, IDS[:3]], np.zeros(2))
    mask_BL = torch.tensor([[True, False, False, True], [False, True, False, False]])
    values_BLC = class_log_likelihoods(net, batch.ids_BL, mask_BL, batch.real_BL)
    for row, tokens in enumerate((IDS, IDS[:3])):
        ids = torch.from_numpy(tokens.astype(np.int64))
        for i in range(len(tokens)):
            half = mask_BL[row, : len(tokens)] == mask_BL[row, i]
            noised = torch.where(half, net.shape.mask_id, ids)[None]
            for c in range(3):
                class_B = torch.tensor([c + 1])
                _, x = net(noised, class_B, torch.ones_like(noised, dtype=torch.bool))
                logits = net.token_logits(x[0, [i]], class_B)[0]
                logits[net.shape.mask_id] = -torch.inf
                expected = logits.log_softmax(-1)[ids[i]]
                torch.testing.assert_close(values_BLC[row, i, c], expected, atol=1e-4, rtol=1e-4)
    assert not values_BLC[1, 3].any()


@torch.no_grad()
def test_the_h_estimate_averages_to_brute_force_over_every_half(net: Denoiser) -> None:
    batch = pad_batch([IDS], np.zeros(1))

    def estimate(mask: np.ndarray) -> np.ndarray:
        values = class_log_likelihoods(
            net, batch.ids_BL, torch.from_numpy(mask)[None], batch.real_BL
        )
        return values.sum(1)[0].numpy()

    every = []
    for half in combinations(range(4), 2):
        mask = np.zeros(4, bool)
        mask[list(half)] = True
        every.append(estimate(mask))
    draws = np.stack([estimate(half_mask(4, mask_rng(b"k", IDS, p))) for p in range(300)])
    error = draws.std(0) / np.sqrt(len(draws)) + 1e-4
    assert (np.abs(draws.mean(0) - np.mean(every, 0)) < 4 * error).all()


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
    batch = pad_batch([IDS], np.zeros(1))
    mask_BL = torch.from_numpy(half_mask(4, mask_rng(b"", IDS, 0)))[None]
    values_C = class_log_likelihoods(fresh.eval(), batch.ids_BL, mask_BL, batch.real_BL).sum(1)[0]
    expected_C = log_p[:, IDS].sum(1)
    np.testing.assert_allclose(
        values_C.numpy() - values_C.mean().item(), expected_C - expected_C.mean(), atol=1e-4
    )


@torch.no_grad()
def test_sums_by_row_are_those_of_a_loop(net: Denoiser) -> None:
    batch = pad_batch([IDS, IDS[:2], IDS[:1]], np.zeros(3))
    mask_BL = torch.tensor([[True, True, False, False], [False] * 4, [True, False, False, False]])
    class_B = torch.tensor([1, 2, 3])
    values_N = masked_log_probs(net, batch.ids_BL, mask_BL, class_B, batch.real_BL)
    sums_B = sum_by_row(values_N, mask_BL)
    torch.testing.assert_close(
        sums_B, torch.stack([values_N[:2].sum(), torch.tensor(0.0), values_N[2]])
    )
