"""Words and runs of them beside the network: what they add, how they are fitted and weighed."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from guardkit_mdlm.batches import pad_batch
from guardkit_mdlm.inference import one_pass_logits
from guardkit_mdlm.loading import load_network
from guardkit_mdlm.model import Denoiser
from guardkit_mdlm.ngrams import Ngrams
from guardkit_mdlm.runs import MULTIPLIERS, OF_LENGTH, PRIME, window_hashes
from guardkit_mdlm.shape import NetworkShape
from guardkit_mdlm.training.corpus import Tokenised
from guardkit_mdlm.training.ngram_fit import (
    add_ngrams,
    known_terms,
    log_ratios,
    logistic_regression,
    smoothed_loss,
    term_matrix,
)
from scipy.sparse import csr_array
from sklearn.linear_model import LogisticRegression

V, LONGEST, C = 50, 3, 3
TEXTS = [[], [7], [8, 7], [3, 3, 3, 3], [1, 2, 1, 2, 9], list(range(40))]
PIECES = [np.array(ids, np.int32) for ids in TEXTS]
CPU = torch.device("cpu")


def hash_of(run: list[int]) -> int:
    value = sum(a * m for a, m in zip(reversed(run), MULTIPLIERS, strict=False))
    return (value + len(run) * OF_LENGTH) % PRIME


def runs_of(ids: list[int]) -> set[int]:
    return {hash_of(ids[i : i + n]) for n in range(1, LONGEST + 1) for i in range(len(ids) - n + 1)}


@pytest.fixture
def model() -> Ngrams:
    """Knows every second run of the texts."""
    known = sorted(set().union(*map(runs_of, TEXTS)))[::2]
    ngrams = Ngrams(LONGEST, len(known), C)
    ngrams.hash_T.copy_(torch.tensor(known))
    generator = torch.Generator().manual_seed(0)
    ngrams.weight_TC[:-1].normal_(generator=generator)
    ngrams.bias_C.normal_(generator=generator)
    return ngrams


def logits(model: Ngrams, pieces: list[np.ndarray]) -> np.ndarray:
    batch = pad_batch(pieces, np.zeros(len(pieces)))
    values: np.ndarray = model(batch.ids_BL, batch.real_BL).numpy()
    return values


def by_hand(model: Ngrams, ids: list[int]) -> np.ndarray:
    weights = dict(zip(model.hash_T.tolist(), model.weight_TC.numpy(), strict=False))
    runs = runs_of(ids)
    total = sum((weights[t] for t in runs & weights.keys()), np.zeros(C, np.float32))
    values: np.ndarray = total / max(1, len(runs)) ** 0.5 + model.bias_C.numpy()
    return values


def test_each_known_run_of_tokens_counts_once(model: Ngrams) -> None:
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


@pytest.mark.parametrize("n_terms", range(9))
def test_each_term_is_found_and_nothing_else(n_terms: int) -> None:
    model = Ngrams(1, n_terms, C)
    known = list(range(3, 3 + 2 * n_terms, 2))  # in the order of their hashes, for they are small
    model.hash_T.copy_(torch.tensor([hash_of([i]) for i in known], dtype=torch.int32))
    expected = [known.index(i) if i in known else n_terms for i in range(25)]
    assert model.rows(torch.tensor([hash_of([i]) for i in range(25)])).tolist() == expected


def test_the_matrix_times_the_weights_is_the_model(model: Ngrams) -> None:
    x_WT = term_matrix(list(window_hashes(PIECES, LONGEST)), model.hash_T.numpy())
    product = x_WT @ model.weight_TC[:-1].numpy() + model.bias_C.numpy()
    np.testing.assert_allclose(product, logits(model, PIECES), atol=1e-5)


def test_terms_are_the_runs_of_two_texts_at_least() -> None:
    texts = [[1, 2, 3], [4, 1, 2], [5, 1, 6], [9, 9, 9, 9]]
    # the last text has two windows alike
    pieces = [np.array(ids, np.int32) for ids in [*texts, texts[-1]]]
    hashes, text_W = list(window_hashes(pieces, LONGEST)), np.array([0, 1, 2, 3, 3])
    found = known_terms(hashes, text_W, np.array([0, 0, 1, 1]), 2, most=100)
    assert found.tolist() == sorted(map(hash_of, ([1], [2], [1, 2])))


def test_of_too_many_terms_those_stay_that_tell_classes_apart() -> None:
    pieces = [np.array(ids, np.int32) for ids in ([1, 2], [1, 2], [1, 2], [1, 3], [1, 3], [1, 3])]
    found = known_terms(
        list(window_hashes(pieces, 1)), np.arange(6), np.array([0, 0, 0, 1, 1, 1]), 2, most=2
    )
    assert found.tolist() == sorted(map(hash_of, ([2], [3])))


def test_term_weights_start_from_how_far_naive_bayes_ratios_are_from_zero() -> None:
    x_WT = csr_array(np.array([[1.0, 1.0, 0.0], [1.0, 0.0, 0.0], [0.0, 1.0, 1.0]]))
    ratios_T = log_ratios(x_WT, np.array([0, 0, 1]), np.ones(3), 2)
    own, other = np.array([3, 2, 1]) / 6, np.array([1, 2, 2]) / 5
    np.testing.assert_allclose(ratios_T, np.abs(np.log(own / other)))


@pytest.mark.parametrize("n_classes", [2, 4])
def test_the_regression_is_scikit_learns(n_classes: int) -> None:
    rng = np.random.default_rng(0)
    x_WT, label_W = rng.normal(size=(200, 6)), rng.integers(0, n_classes, 200)
    x_WT[:, 0] += label_W
    vote_W = rng.uniform(0.2, 1.0, 200)
    weight_TC, bias_C = logistic_regression(csr_array(x_WT), label_W, vote_W, n_classes)
    found_WC = x_WT @ weight_TC + bias_C
    # of two classes scikit-learn has one column w, which is twice either of ours: |w|^2 is then
    # twice our penalty's |v_0|^2 + |v_1|^2
    peer = LogisticRegression(C=2.0 if n_classes == 2 else 1.0, tol=1e-8, max_iter=1000)
    peer.fit(x_WT, label_W, sample_weight=vote_W)
    expected_WC = peer.predict_log_proba(x_WT)
    found_WC -= np.logaddexp.reduce(found_WC, axis=1, keepdims=True)
    np.testing.assert_allclose(found_WC, expected_WC, atol=2e-3)


def test_the_smoothed_loss_is_least_at_the_odds_that_as_many_texts_allow() -> None:
    """Nine texts, all told rightly: ten of eleven."""
    labels_N = np.array([0, 1, 0, 0, 1, 1, 0, 1, 1])
    side_NC = np.eye(2)[labels_N]
    losses = {odds: smoothed_loss(np.log(odds) * side_NC, labels_N) for odds in range(1, 100)}
    assert min(losses, key=losses.__getitem__) == 10


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
        net, train, held_out, longest=3, most=1000, window=32, overlap=4, pooling="mean",
        neutral=None, device=CPU,
    )  # fmt: skip
    assert found["joined_loss"] < 0.2 < found["network_loss"]
    z_NC = one_pass_logits(net, held_out.ids, CPU).astype(np.float64)
    loss = smoothed_loss(z_NC, held_out.labels_N)
    assert loss == pytest.approx(found["joined_loss"], abs=1e-3)
    assert loss < 1.01 * min(smoothed_loss(k * z_NC, held_out.labels_N) for k in (0.5, 2))
    decided_N = one_pass_logits(net, fresh.ids, CPU).argmax(1)
    assert (decided_N == fresh.labels_N).mean() > 0.95


def test_texts_that_share_no_run_leave_the_shares_of_the_labels() -> None:
    ids = [np.array([], np.int32), *(np.array([i], np.int32) for i in range(1, 9))]
    texts = Tokenised(ids, np.array([0, 0, 0, 0, 0, 0, 1, 1, 1]))
    net = Denoiser(
        NetworkShape(vocab_size=V, hidden_dim=16, cond_dim=4, n_blocks=1, n_heads=1, n_classes=2)
    ).eval()
    found = add_ngrams(
        net, texts, texts, longest=3, most=1000, window=8, overlap=2, pooling="mean",
        neutral=None, device=CPU,
    )  # fmt: skip
    assert found["terms"] == 0
    z_NC = one_pass_logits(net, ids, CPU)
    np.testing.assert_allclose(z_NC[:, 0] - z_NC[:, 1], np.log(7 / 4), atol=0.02)


def test_a_trained_model_holds_them_and_what_they_were_worth(folder: Path) -> None:
    net = load_network(folder)
    assert net.ngrams is not None
    assert net.ngrams.weight_TC.abs().max() > 0
    assert (net.ngrams.hash_T[1:] > net.ngrams.hash_T[:-1]).all()
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
