"""Estimators against brute force: every mask, every order, every outcome of the generator."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import combinations, permutations, product
from math import comb, factorial
from typing import Any

import numpy as np
import pytest
import torch
from guardkit_mdlm.diffusion import mask_rng
from guardkit_mdlm.estimators import (
    EPSILON,
    ESTIMATORS,
    MaskPlan,
    Scheme,
    class_plans,
    density_ratio,
    evaluate,
    half_pairs,
    nelbo,
)
from guardkit_mdlm.model import Denoiser
from guardkit_mdlm.training.start import start_from_naive_bayes
from guardkit_mdlm.unigram import unigram, unigram_log_probs
from hypothesis import given, settings
from hypothesis import strategies as st

from .conftest import randomise

L = 4
IDS = np.array([5, 17, 3, 40], np.int32)
SIX = np.array([5, 17, 3, 40, 17, 8], np.int32)
UNBIASED = ("fixed_k", "systematic_k", "complementary")
Masks = dict[tuple[bool, ...], float]


class Scripted:
    """A generator whose answers are given beforehand."""

    def __init__(self, answers: Sequence[Any]) -> None:
        self._answers = iter(answers)

    def random(self, size: int | None = None) -> Any:
        return next(self._answers)

    def permutation(self, length: int) -> Any:
        return np.array(next(self._answers), np.intp)


def outcomes(name: str, n: int, length: int = L) -> Iterator[tuple[float, MaskPlan]]:
    """Every outcome of the generator, as (probability, plan)."""
    orders = list(permutations(range(length)))
    levels = (np.arange(n * length) + 0.5) / (n * length)  # all sizes, evenly spread or not
    scripts: Iterator[tuple[float, list[Any]]]
    if name == "bernoulli":  # n = 1: the level by quadrature, exact for polynomials
        scripts = (
            (share * np.prod(np.where(mask, p, 1 - p)), [u, np.where(mask, 0.0, 1 - 1e-9)])
            for u, share in zip(*gauss(8), strict=True)
            for p in [(1 - EPSILON) * (EPSILON + (1 - EPSILON) * u)]
            for mask in product([True, False], repeat=length)
        )
    elif name == "fixed_k":
        draw = list(product(levels, orders))
        scripts = ((len(draw) ** -n, list(sum(d, ()))) for d in product(draw, repeat=n))
    elif name == "systematic_k":
        each = list(product(orders, repeat=n))
        scripts = ((1 / len(levels) / len(each), [u, *d]) for u in levels for d in each)
    elif name == "complementary":
        draw = list(product(orders, levels))
        scripts = ((1 / len(draw), list(d)) for d in draw)
    else:
        scripts = ((1 / len(orders), [order]) for order in orders)
    for share, script in scripts:
        yield share, ESTIMATORS[name](length, n, Scripted(script))  # type: ignore[index, arg-type]


def gauss(n: int) -> tuple[np.ndarray, np.ndarray]:
    x, share = np.polynomial.legendre.leggauss(n)
    return (x + 1) / 2, share / 2


def expected_weights(name: str, n: int, length: int = L) -> Masks:
    """Every mask's expected weight in the estimate; being linear, it has no other property."""
    result: Masks = {}
    draws = Scheme(name, n).draws  # type: ignore[arg-type]
    for share, plan in outcomes(name, n, length):
        for mask, weight in zip(plan.masks_KL, plan.weights_K, strict=True):
            key = tuple(mask.tolist())
            result[key] = result.get(key, 0.0) + share * weight / draws
    return {mask: weight for mask, weight in result.items() if any(mask)}


def table(net: Denoiser, ids: np.ndarray, class_: int) -> dict[tuple[bool, ...], np.ndarray]:
    """l_i(M) of every mask, straight from the network's logits."""
    masks = list(product([True, False], repeat=len(ids)))
    tokens = torch.from_numpy(ids.astype(np.int64)).expand(len(masks), -1)
    noised = torch.where(torch.tensor(masks), net.shape.mask_id, tokens)
    class_B = torch.full((len(masks),), class_)
    with torch.no_grad():
        _, x = net(noised, class_B, torch.ones_like(noised, dtype=torch.bool))
        logits = net.token_logits(x.flatten(0, 1), class_B.repeat_interleave(len(ids)))
    logits[:, net.shape.mask_id] = -torch.inf
    own = logits.log_softmax(-1).gather(1, tokens.reshape(-1, 1)).view_as(tokens).double().numpy()
    return {mask: np.where(mask, row, 0.0) for mask, row in zip(masks, own, strict=True)}


def expectation(weights: Masks, l_of: dict[tuple[bool, ...], np.ndarray]) -> float:
    return sum(weight * l_of[mask].sum() for mask, weight in weights.items())


def any_order(l_of: dict[tuple[bool, ...], np.ndarray], length: int) -> float:
    """The likelihood by the chain rule, averaged over every order of the tokens."""
    total = 0.0
    for order in permutations(range(length)):
        for position, i in enumerate(order):
            hidden = set(order[position:])
            total += l_of[tuple(j in hidden for j in range(length))][i]
    return total / factorial(length)


@pytest.mark.parametrize(
    ("name", "n"), [*product(["fixed_k", "systematic_k"], [1, 2]), ("complementary", 2)]
)
def test_a_mask_of_an_unbiased_estimator_weighs_what_it_does_in_the_nelbo(
    name: str, n: int
) -> None:
    weights = expected_weights(name, n, length=L if n == 1 or name == "complementary" else 3)
    length = len(next(iter(weights)))
    assert len(weights) == 2**length - 1
    for mask, weight in weights.items():
        assert weight == pytest.approx(1 / (sum(mask) * comb(length, sum(mask))), rel=1e-9)


def test_bernoulli_masks_weigh_what_they_do_in_the_nelbo_up_to_the_least_level() -> None:
    for mask, weight in expected_weights("bernoulli", 1).items():
        assert weight == pytest.approx(1 / (sum(mask) * comb(L, sum(mask))), rel=4 * EPSILON)


@pytest.mark.parametrize("class_", [0, 1, 3])
def test_the_nelbo_is_the_mean_likelihood_over_every_order(net: Denoiser, class_: int) -> None:
    l_of = table(net, IDS, class_)
    exact = any_order(l_of, L)
    sizes = {k: list(combinations(range(L), k)) for k in range(1, L + 1)}
    by_size = sum(
        np.mean([l_of[tuple(i in m for i in range(L))].sum() for m in masks]) / k
        for k, masks in sizes.items()
    )
    assert by_size == pytest.approx(exact, abs=1e-6)
    for name in UNBIASED:
        n = 2 if name == "complementary" else 1
        assert expectation(expected_weights(name, n), l_of) == pytest.approx(exact, abs=1e-6)
    bernoulli = expectation(expected_weights("bernoulli", 1), l_of)
    assert bernoulli == pytest.approx(exact, rel=4 * EPSILON)


def test_half_pairs_and_partitions_mean_their_own_level_and_not_the_nelbo(net: Denoiser) -> None:
    l_of = table(net, SIX, 1)
    exact = any_order(l_of, 6)
    for m, size in [(2, 3), (3, 2), (6, 1)]:
        groups = [tuple(i in g for i in range(6)) for g in combinations(range(6), size)]
        level = m * np.mean([l_of[g].sum() for g in groups])
        estimate = expectation(expected_weights("partition", m, 6), l_of)
        assert estimate == pytest.approx(level, abs=1e-6)
        assert abs(estimate - exact) > 0.02
    halves = expectation(expected_weights("half_pairs", 2, 6), l_of)
    assert halves == pytest.approx(expectation(expected_weights("partition", 2, 6), l_of))


def test_a_partition_into_single_tokens_is_the_pseudo_log_likelihood(net: Denoiser) -> None:
    l_of = table(net, IDS, 2)
    alone = sum(l_of[tuple(i == j for i in range(L))][j] for j in range(L))
    for seed in range(3):
        value = evaluate(
            net, [IDS], Scheme("partition", L), classes=[2], key=bytes([seed])
        ).estimate()
        assert value[0, 0] == pytest.approx(alone, abs=1e-4)


@pytest.mark.parametrize("n", [1, 2, 4, 8])
def test_every_size_of_mask_is_as_likely_in_a_systematic_plan(n: int) -> None:
    length = 5
    counts = np.zeros(length + 1)
    levels = (np.arange(n * length) + 0.5) / (n * length)
    for u in levels:
        plan = ESTIMATORS["systematic_k"](
            length,
            n,
            Scripted([u, *[range(length)] * n]),  # type: ignore[arg-type]
        )
        sizes = plan.masks_KL.sum(1)
        spread = np.bincount(sizes, minlength=length + 1)[1:]
        assert spread.max() - spread.min() <= 1  # as even as n masks can be
        counts += np.bincount(sizes, minlength=length + 1)
    assert (counts[1:] == counts[1]).all()


names = st.sampled_from(list(ESTIMATORS))


@given(name=names, pairs=st.integers(1, 4), length=st.integers(0, 40), seed=st.integers(0, 999))
def test_a_plan_covers_tokens_as_its_estimator_says(
    name: Any, pairs: int, length: int, seed: int
) -> None:
    n = 2 * pairs
    plan = ESTIMATORS[name](length, n, np.random.default_rng(seed))
    scheme = Scheme(name, n)
    assert plan.masks_KL.shape == (n, length)
    assert np.isfinite(plan.weights_K).all()
    sizes_K = plan.masks_KL.sum(1)
    times_DL = plan.masks_KL.reshape(scheme.draws, scheme.per_draw, length).sum(1)
    if name in ("half_pairs", "partition"):
        assert (plan.weights_K == 1).all()
        assert (times_DL == 1).all()
        assert np.ptp(sizes_K) <= 1
    elif name == "bernoulli":
        assert ((plan.weights_K >= 1) & (plan.weights_K <= 1 / EPSILON)).all()
    elif length:
        np.testing.assert_allclose(plan.weights_K * sizes_K * scheme.per_draw, length)
        if name == "complementary":
            assert (times_DL >= 1).all()
            assert (times_DL.sum(1) == length + 1).all()


@given(name=names, pairs=st.integers(1, 3), length=st.integers(1, 20), seed=st.integers(0, 99))
def test_more_evaluations_add_to_the_masks_of_fewer(
    name: Any, pairs: int, length: int, seed: int
) -> None:
    if name == "partition":  # other groups, by what they are
        return
    few = ESTIMATORS[name](length, 2 * pairs, np.random.default_rng(seed))
    many = ESTIMATORS[name](length, 8, np.random.default_rng(seed))
    np.testing.assert_array_equal(many.masks_KL[: 2 * pairs], few.masks_KL)
    np.testing.assert_array_equal(many.weights_K[: 2 * pairs], few.weights_K)


@pytest.mark.parametrize("name", ["half_pairs", "complementary"])
def test_half_a_pair_is_refused(name: Any) -> None:
    with pytest.raises(ValueError, match="even"):
        ESTIMATORS[name](8, 3, np.random.default_rng(0))


def test_every_half_is_drawn_equally_often() -> None:
    rng = np.random.default_rng(0)
    masks = [tuple(half_pairs(4, 2, rng).masks_KL[0]) for _ in range(6000)]
    counts = np.array([masks.count(mask) for mask in set(masks)])
    assert len(counts) == 6
    assert abs(counts - 1000).max() < 150


@pytest.mark.parametrize("shared", [True, False])
@pytest.mark.parametrize("name", list(ESTIMATORS))
def test_the_network_is_asked_what_the_plan_says(net: Denoiser, name: Any, shared: bool) -> None:
    scheme, classes, key = Scheme(name, 4, shared), [1, 3], b"key"
    result = evaluate(net, [IDS, SIX, IDS[:0]], scheme, classes=classes, key=key)
    assert result.draws().shape == (3, scheme.draws, 2)
    assert not result.draws()[2].any()
    for b, ids in enumerate((IDS, SIX)):
        plans = class_plans(scheme, ids, classes, key)
        for c, (class_, plan) in enumerate(zip(classes, plans, strict=True)):
            l_of = table(net, ids, class_)
            sums_K = [l_of[tuple(mask.tolist())].sum() for mask in plan.masks_KL]
            draws = (plan.weights_K * sums_K).reshape(scheme.draws, -1).sum(1)
            np.testing.assert_allclose(result.draws()[b, :, c], draws, rtol=1e-4, atol=1e-4)
            assert result.estimate()[b, c] == pytest.approx(draws.mean(), rel=1e-4)
            times_L = plan.masks_KL.sum(0)
            means_L = sum(l_of[tuple(mask.tolist())] for mask in plan.masks_KL) / np.maximum(
                times_L, 1
            )
            np.testing.assert_allclose(
                result.attribution()[b, : len(ids), c], means_L, rtol=1e-4, atol=1e-4
            )


@pytest.mark.parametrize("shared", [True, False])
@pytest.mark.parametrize(("name", "n"), [("half_pairs", 6), ("partition", 3)])
def test_attribution_sums_to_the_score(net: Denoiser, name: Any, n: int, shared: bool) -> None:
    result = evaluate(net, [IDS, SIX], Scheme(name, n, shared), classes=[1, 2], key=b"")
    assert (result.masks_BKCL[1].any(0)).all()
    np.testing.assert_allclose(result.attribution().sum(1), result.estimate(), rtol=1e-5)


@settings(deadline=None, max_examples=5)
@given(data=st.data())
def test_a_texts_masks_and_score_do_not_depend_on_its_batch(data: st.DataObject) -> None:
    net = small_signal()
    rng = np.random.default_rng(7)
    texts = [rng.integers(0, 49, n).astype(np.int32) for n in (0, 1, 7, 12, 20)]
    order = data.draw(st.permutations(range(len(texts))))
    cut = data.draw(st.integers(1, len(texts) - 1))
    scheme = Scheme(data.draw(names), 4, data.draw(st.booleans()))
    alone = {
        i: evaluate(net, [texts[i]], scheme, classes=[1, 2], key=b"key") for i in range(len(texts))
    }
    for part in (order[:cut], order[cut:]):
        together = evaluate(net, [texts[i] for i in part], scheme, classes=[1, 2], key=b"key")
        for row, i in enumerate(part):
            length = len(texts[i])
            np.testing.assert_array_equal(
                together.masks_BKCL[row, ..., :length], alone[i].masks_BKCL[0, ..., :length]
            )
            assert not together.masks_BKCL[row, ..., length:].any()
            np.testing.assert_allclose(
                together.estimate()[row], alone[i].estimate()[0], rtol=1e-5, atol=1e-3
            )


def test_classes_share_masks_unless_told_otherwise() -> None:
    ids = np.arange(64, dtype=np.int32)
    first, second = class_plans(Scheme("half_pairs", 2), ids, [1, 2], b"key")
    np.testing.assert_array_equal(first.masks_KL, second.masks_KL)
    own = class_plans(Scheme("half_pairs", 2, shared=False), ids, [1, 2], b"key")
    assert not np.array_equal(own[0].masks_KL, own[1].masks_KL)
    other_key = class_plans(Scheme("half_pairs", 2), ids, [1, 2], b"other")[0]
    other_text = class_plans(Scheme("half_pairs", 2), ids + 1, [1, 2], b"key")[0]
    for plan in (other_key, other_text):
        assert not np.array_equal(plan.masks_KL, first.masks_KL)
    again = half_pairs(64, 2, mask_rng(b"key", ids, 0))
    np.testing.assert_array_equal(again.masks_KL, first.masks_KL)


def small_signal() -> Denoiser:
    """A random network whose classes differ a little, as they do in text."""
    from guardkit_mdlm.shape import NetworkShape

    shape = NetworkShape(
        vocab_size=50, hidden_dim=32, cond_dim=8, n_blocks=2, n_heads=2, n_classes=3,
        tie_embeddings=True, class_bias=True, wide=True,
    )  # fmt: skip
    net = randomise(Denoiser(shape))
    with torch.no_grad():
        for parameter in (net.class_cond, net.slot_class, net.class_bias):
            parameter *= 0.05
    return net


@pytest.mark.parametrize("name", list(ESTIMATORS))
def test_shared_masks_take_the_noise_out_of_a_class_ratio(name: Any) -> None:
    net = small_signal()
    texts = list(np.random.default_rng(1).integers(0, 49, (30, 24)).astype(np.int32))

    def noise(shared: bool) -> float:
        """The variance of log p(x|2) - log p(x|1) that masks alone make."""
        scheme = Scheme(name, 4, shared)
        values = [
            evaluate(net, texts, scheme, classes=[1, 2], key=key).estimate()
            for key in (b"one key", b"another")
        ]
        ratios = [v[:, 1] - v[:, 0] for v in values]
        return float(((ratios[0] - ratios[1]) ** 2).mean() / 2)

    assert noise(shared=False) > 20 * noise(shared=True)


def test_many_masks_come_near_the_exact_nelbo(net: Denoiser) -> None:
    for ids in (IDS, SIX):
        exact = -any_order(table(net, ids, 2), len(ids))
        estimate = nelbo(net, [ids], class_=2, evaluations=100, key=b"key")[0]
        assert estimate == pytest.approx(exact, rel=0.02)


def test_a_density_ratio_of_a_unigram_network_is_that_of_its_frequencies(net: Denoiser) -> None:
    """Of one token over and over, so that no mask weighs one token more than another."""
    fresh = Denoiser(net.shape).eval()
    texts = [np.array(t, np.int32) for t in ([1, 2, 2, 3], [2, 4], [9, 9, 1])]
    start_from_naive_bayes(fresh, texts, np.array([0, 1, 2]))
    own_V = fresh.trunk.output_bias.detach()[:-1].log_softmax(-1).numpy()
    background_V = unigram(texts, 49)
    pieces = [np.full(n, token, np.int32) for n, token in ((1, 2), (6, 9), (5, 40))] + [IDS[:0]]
    log_p = unigram_log_probs(background_V, pieces)
    ratio = density_ratio(fresh, pieces, log_p, key=b"key")
    expected = [background_V[t] - own_V[t] for t in (2, 9, 40)] + [0.0]
    np.testing.assert_allclose(ratio, expected, atol=1e-5)


def test_unigram_log_probs_are_smoothed_frequencies() -> None:
    log_p_V = unigram([np.array([0, 1, 1], np.int32)], 3)
    np.testing.assert_allclose(np.exp(log_p_V), [2 / 6, 3 / 6, 1 / 6], rtol=1e-6)
    piece = np.array([1, 1, 2], np.int32)
    assert unigram_log_probs(log_p_V, [piece])[0] == pytest.approx(np.log(0.25 / 6), rel=1e-6)


def test_a_density_ratio_against_the_network_itself_is_nothing_new(net: Denoiser) -> None:
    pieces = [IDS, SIX]
    background = -nelbo(net, pieces, class_=0, evaluations=2, key=b"key")
    np.testing.assert_array_equal(density_ratio(net, pieces, background, key=b"key"), 0)
