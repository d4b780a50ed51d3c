"""A window's sketch, against runs counted by hand and sketches added up bucket by bucket."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest
import torch
from guardkit_mdlm.adaptation.sketch import BUCKETS, bucket_and_sign, sketches, weighed
from guardkit_mdlm.runs import window_hashes


def random_windows(n: int, seed: int, vocabulary: int = 5000) -> list[np.ndarray]:
    rng = np.random.default_rng(seed)
    return [rng.integers(0, vocabulary, rng.integers(1, 60)).astype(np.int32) for _ in range(n)]


def test_every_distinct_run_adds_its_sign_to_its_bucket() -> None:
    pieces = [np.array([3, 4, 3, 4, 9], np.int32), *random_windows(20, 0)]
    expected = np.zeros((len(pieces), BUCKETS))
    for row_K, piece, hashes in zip(expected, pieces, window_hashes(pieces, 2), strict=True):
        assert len(hashes) == len({*piece.tolist(), *pairwise(piece.tolist())})
        for h in hashes.tolist():
            bucket, sign = bucket_and_sign(np.array([h], np.int64))
            row_K[bucket[0]] += sign[0] / np.sqrt(len(hashes))
    np.testing.assert_allclose(sketches(pieces).toarray(), expected, atol=1e-6)


def test_an_inner_product_is_the_share_of_runs_in_common() -> None:
    ours, theirs = random_windows(300, 1), random_windows(300, 2)
    half = [np.concatenate([a, b]) for a, b in zip(ours, theirs, strict=True)]
    shared = []
    for a_R, b_R in zip(window_hashes(ours, 2), window_hashes(half, 2), strict=True):
        shared.append(len(np.intersect1d(a_R, b_R)) / np.sqrt(len(a_R) * len(b_R)))
    found = sketches(ours).multiply(sketches(half)).sum(axis=1)
    error = found - np.array(shared)
    assert abs(error.mean()) < 0.003
    assert np.abs(error).max() < 0.1


def test_runs_are_spread_evenly_and_signs_are_as_often_plus_as_minus() -> None:
    hashes = np.concatenate(list(window_hashes(random_windows(600, 3, 30_000), 2)))
    bucket, sign = bucket_and_sign(np.unique(hashes).astype(np.int64))
    counts = np.bincount(bucket, minlength=BUCKETS)
    assert counts.var() < 1.2 * counts.mean(), "no more uneven than chance"
    assert abs(sign.mean()) < 0.02


@pytest.mark.parametrize("padding", [0, 7])
def test_weighing_a_window_is_the_product_with_its_sketch(padding: int) -> None:
    weight_MK = np.random.default_rng(4).normal(size=(3, BUCKETS)).astype(np.float32)
    for piece in random_windows(10, 5):
        ids_BL = torch.from_numpy(np.pad(piece, (0, padding)).astype(np.int64))[None]
        real_BL = torch.arange(len(piece) + padding)[None] < len(piece)
        found = weighed(torch.from_numpy(weight_MK), ids_BL, real_BL)
        np.testing.assert_allclose(found.numpy(), sketches([piece]) @ weight_MK.T, atol=1e-5)


def test_an_empty_window_has_an_empty_sketch() -> None:
    empty = np.array([], np.int32)
    assert sketches([empty]).nnz == 0
    assert sketches([]).shape == (0, BUCKETS)
    assert weighed(torch.ones(2, BUCKETS), torch.zeros(1, 0, dtype=torch.long), None).tolist() == [
        [0.0, 0.0]
    ]
