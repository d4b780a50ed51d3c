"""Words and runs of them beside the network: what they add, how they are fitted and weighed."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from guardkit_mdlm.batches import Tokenised, pad_batch
from guardkit_mdlm.inference import one_pass_logits
from guardkit_mdlm.model import Denoiser, NetworkShape
from guardkit_mdlm.ngram_fit import add_ngrams, log_ratios, logistic_regression
from guardkit_mdlm.ngrams import MULTIPLIERS, OF_LENGTH, Ngrams
from guardkit_mdlm.scoring import load_network
from scipy.sparse import csr_array
from sklearn.linear_model import LogisticRegression

V, LONGEST, BUCKETS, C = 50, 3, 97, 3
TEXTS = [[], [7], [8, 7], [3, 3, 3, 3], [1, 2, 1, 2, 9], list(range(40))]
PIECES = [np.array(ids, np.int32) for ids in TEXTS]
CPU = torch.device("cpu")


@pytest.fixture
def model() -> Ngrams:
    ngrams = Ngrams(V, LONGEST, BUCKETS, C)
    generator = torch.Generator().manual_seed(0)
    ngrams.weight_FC[:-1].normal_(generator=generator)
    ngrams.bias_C.normal_(generator=generator)
    return ngrams


def logits(model: Ngrams, pieces: list[np.ndarray]) -> np.ndarray:
    batch = pad_batch(pieces, np.zeros(len(pieces)))
    values: np.ndarray = model(batch.ids_BL, batch.real_BL).numpy()
    return values


def by_hand(model: Ngrams, ids: list[int]) -> np.ndarray:
    terms = set(ids)
    for n in range(2, LONGEST + 1):
        for i in range(len(ids) - n + 1):
            run = ids[i : i + n]
            value = sum(a * m for a, m in zip(reversed(run), MULTIPLIERS, strict=False))
            terms.add(V + (value + n * OF_LENGTH) % BUCKETS)
    total = sum((model.weight_FC[t].numpy() for t in terms), np.zeros(C, np.float32))
    values: np.ndarray = total / max(1, len(terms)) ** 0.5 + model.bias_C.numpy()
    return values


def test_each_run_of_tokens_counts_once(model: Ngrams) -> None:
    expected = [by_hand(model, ids) for ids in TEXTS]
    np.testing.assert_allclose(logits(model, PIECES), expected, atol=1e-5)


def test_a_window_does_not_depend_on_its_neighbours(model: Ngrams) -> None:
    alone = np.concatenate([logits(model, [piece]) for piece in PIECES])
    np.testing.assert_allclose(logits(model, PIECES), alone, atol=1e-6)


def test_without_padding_no_mask_is_needed(model: Ngrams) -> None:
    ids_BL = torch.arange(12).view(2, 6)
    np.testing.assert_array_equal(
        model(ids_BL, None), model(ids_BL, torch.ones(2, 6, dtype=torch.bool))
    )


def test_the_shares_of_tokens_sum_up_to_the_logits_less_the_constant(model: Ngrams) -> None:
    for piece in PIECES[1:]:
        values_LC = model.shares(torch.from_numpy(piece.astype(np.int64)))
        assert values_LC.shape == (len(piece), C)
        expected = logits(model, [piece])[0] - model.bias_C.numpy()
        np.testing.assert_allclose(values_LC.sum(0), expected, atol=1e-5)


def test_the_matrix_times_the_weights_is_the_model(model: Ngrams) -> None:
    product = model.matrix(PIECES) @ model.weight_FC.numpy() + model.bias_C.numpy()
    np.testing.assert_allclose(product, logits(model, PIECES), atol=1e-5)


def test_term_weights_start_from_how_far_naive_bayes_ratios_are_from_zero() -> None:
    x_WF = csr_array(np.array([[1.0, 1.0, 0.0], [1.0, 0.0, 0.0], [0.0, 1.0, 1.0]]))
    ratios_F = log_ratios(x_WF, np.array([0, 0, 1]), np.ones(3), 2)
    own, other = np.array([3, 2, 1]) / 6, np.array([1, 2, 2]) / 5
    np.testing.assert_allclose(ratios_F, np.abs(np.log(own / other)))


@pytest.mark.parametrize("n_classes", [2, 4])
def test_the_regression_is_scikit_learns(n_classes: int) -> None:
    rng = np.random.default_rng(0)
    x_WF, label_W = rng.normal(size=(200, 6)), rng.integers(0, n_classes, 200)
    x_WF[:, 0] += label_W
    vote_W = rng.uniform(0.2, 1.0, 200)
    weight_FC, bias_C = logistic_regression(csr_array(x_WF), label_W, vote_W, n_classes)
    found_WC = x_WF @ weight_FC + bias_C
    # of two classes scikit-learn has one column w, which is twice either of ours: |w|^2 is then
    # twice our penalty's |v_0|^2 + |v_1|^2
    peer = LogisticRegression(C=2.0 if n_classes == 2 else 1.0, tol=1e-8, max_iter=1000)
    peer.fit(x_WF, label_W, sample_weight=vote_W)
    expected_WC = peer.predict_log_proba(x_WF)
    found_WC -= np.logaddexp.reduce(found_WC, axis=1, keepdims=True)
    np.testing.assert_allclose(found_WC, expected_WC, atol=2e-3)


def test_an_order_of_words_that_the_network_does_not_know_is_learnt() -> None:
    rng = np.random.default_rng(1)

    def texts(n: int) -> Tokenised:
        """Both classes hold 10 and 11 once among other tokens, in either order."""
        labels_N = rng.integers(0, 2, n)
        pair = [[10, 11], [11, 10]]
        ids = [
            np.array([*rng.integers(20, 40, 8), *pair[y], *rng.integers(20, 40, 8)], np.int32)
            for y in labels_N
        ]
        return Tokenised(ids, labels_N)

    net = Denoiser(
        NetworkShape(vocab_size=V, hidden_dim=16, cond_dim=4, n_blocks=1, n_heads=1, n_classes=2)
    ).eval()
    train, held_out, fresh = texts(200), texts(100), texts(100)
    found = add_ngrams(
        net, train, held_out, longest=3, buckets=2**20, window=32, overlap=4, pooling="mean",
        neutral=None, device=CPU,
    )  # fmt: skip
    assert found["joined_loss"] < 0.2 < found["network_loss"]
    decided_N = one_pass_logits(net, fresh.ids, CPU).argmax(1)
    assert (decided_N == fresh.labels_N).mean() > 0.95


def test_a_trained_model_holds_them_and_what_they_were_worth(folder: Path) -> None:
    net = load_network(folder)
    assert net.ngrams is not None
    assert net.ngrams.weight_FC.abs().max() > 0
    record = json.loads((folder / "config.json").read_text())["training"]["stages"]["ngrams"]
    assert record["joined_loss"] <= min(record["network_loss"], record["ngrams_loss"]) + 1e-4


def test_they_enter_the_one_pass_and_nothing_else(folder: Path) -> None:
    net = load_network(folder).eval()
    pieces = [np.array([5, 6, 7, 5, 6], np.int32)]
    with_them = one_pass_logits(net, pieces, CPU)
    ngrams, net.ngrams = net.ngrams, None
    assert ngrams is not None
    np.testing.assert_allclose(
        with_them, one_pass_logits(net, pieces, CPU) + logits(ngrams, pieces), atol=1e-5
    )
