"""Estimators of log p(text | class): which masks, with what weight, and what follows.

Every estimator is a plan of masks M_k with weights w_k, in D draws of one, two or m masks, and

    log p(x|c) ~ (1/D) sum_k w_k sum_{i in M_k} l_i(c, M_k),   l_i(c, M) = log p(x_i | x_vis, c)

where x_vis are the tokens outside M. The exact quantity is the likelihood in a random order of
the tokens, averaged over orders (Hoogeboom 2022; Ou 2024), which is MDLM's bound (Sahoo 2024):

    -NELBO = sum_{k=1..L} (1/k) E_{|M|=k} sum_{i in M} l_i

``bernoulli``, ``fixed_k``, ``systematic_k`` and ``complementary`` are unbiased for it (the first
up to its least mask level). ``half_pairs`` and ``partition`` are not: they weigh every token
alike at one level, and tell classes apart better for it. No function of an unbiased estimate is
unbiased: not its exponential, not the sigmoid of a difference.

Shapes: B texts, L tokens, C classes, K masks, D draws, G groups of a partition.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch

from guardkit_mdlm.batches import pad_batch
from guardkit_mdlm.class_network import ClassNetwork
from guardkit_mdlm.config import PAIRED, EstimatorName
from guardkit_mdlm.diffusion import BoolArray, mask_rng, masked_log_probs
from guardkit_mdlm.token_ids import TokenIds

#: The least mask level t that ``bernoulli`` draws, as in the public code.
EPSILON = 1e-3
Float32 = npt.NDArray[np.float32]
Float64 = npt.NDArray[np.float64]


@dataclass(frozen=True)
class MaskPlan:
    """The masks of one text, draw after draw, and the weight of each within its draw."""

    masks_KL: BoolArray
    weights_K: Float64


@dataclass(frozen=True)
class Scheme:
    """An estimator, network evaluations per class, and whether all classes share the masks.

    Sharing is what makes a class ratio measurable: the noise of which tokens are masked, some
    nats a token, cancels in the difference. With masks of its own for each class it drowns a
    signal of some hundredths of a nat.
    """

    estimator: EstimatorName = "half_pairs"
    evaluations: int = 4
    shared: bool = True

    @property
    def per_draw(self) -> int:
        """Masks of one draw: those of a pair or of a partition belong together."""
        if self.estimator == "partition":
            return self.evaluations
        return 2 if self.estimator in PAIRED else 1

    @property
    def draws(self) -> int:
        return self.evaluations // self.per_draw


@dataclass(frozen=True)
class Evaluated:
    """What the network said of B texts under their plans: l_i(c, M_k), zero where not masked.

    K = D * ``per_draw``.
    """

    log_probs_BKCL: Float32
    masks_BKCL: BoolArray
    weights_BKC: Float64
    per_draw: int

    def draws(self) -> Float64:
        """Return each draw's own estimate of log p(x|c), (B, D, C), nats."""
        values_BKC = self.log_probs_BKCL.sum(-1) * self.weights_BKC
        B, K, C = values_BKC.shape
        draws_BDC: Float64 = values_BKC.reshape(B, K // self.per_draw, self.per_draw, C).sum(2)
        return draws_BDC

    def estimate(self) -> Float64:
        """Return the estimate of log p(x|c), (B, C), nats: the mean over draws."""
        mean_BC: Float64 = self.draws().mean(1)
        return mean_BC

    def attribution(self) -> Float64:
        """Return each token's mean l_i(c, M) over the masks that hold it, (B, L, C).

        The difference of two classes is the token's evidence, R_i = mean of r_i(M). Under
        ``half_pairs`` and ``partition`` it sums to the estimate; zero for a token never masked.
        """
        sums_BCL = self.log_probs_BKCL.sum(1, dtype=np.float64)
        means_BCL: Float64 = sums_BCL / np.maximum(self.masks_BKCL.sum(1), 1)
        return means_BCL.transpose(0, 2, 1)


def bernoulli(length: int, evaluations: int, rng: np.random.Generator) -> MaskPlan:
    """B: t ~ U(e, 1), every token masked with probability (1-e) t, weight 1/t.

    The training loss of Sahoo 2024. Unbiased up to e; the number of masked tokens alone gives
    it a variance of L (ln(1/e) - 1) l^2.
    """

    def mask() -> _Mask:
        t = EPSILON + (1 - EPSILON) * rng.random()
        return np.flatnonzero(rng.random(length) < (1 - EPSILON) * t), 1 / t

    return _plan(length, [[mask()] for _ in range(evaluations)])


def fixed_k(length: int, evaluations: int, rng: np.random.Generator) -> MaskPlan:
    """K: k ~ U{1..L}, M any k tokens, weight L/k (Nie 2025, LLaDA, eq. 6). Unbiased."""
    return _plan(length, [[_sized(length, rng.random(), rng)] for _ in range(evaluations)])


def systematic_k(length: int, evaluations: int, rng: np.random.Generator) -> MaskPlan:
    """S: as K, with sizes spread evenly: k_j = 1 + floor(L ((u + v_j) mod 1)) for one u.

    Unbiased. The v_j are van der Corput's: for n a power of two the levels j/n, in an order
    that spreads the first 1, 2, 4... masks of a plan evenly too.
    """
    levels = (rng.random() + _van_der_corput(evaluations)) % 1
    return _plan(length, [[_sized(length, u, rng)] for u in levels])


def complementary(length: int, evaluations: int, rng: np.random.Generator) -> MaskPlan:
    """C: a random order, k ~ U{1..L}: its first k tokens and its last L+1-k; the mean of both
    K estimates. Unbiased, since both sizes are uniform; every token is predicted, one twice.

    The choice for log p(x|c) itself (novelty, perplexity).
    """

    def draw() -> list[_Mask]:
        order_L = rng.permutation(length)
        k = 1 + int(length * rng.random())
        rest = max(1, length + 1 - k)  # 0 only without tokens
        return [(order_L[:k], length / k / 2), (order_L[k - 1 :], length / rest / 2)]

    return _plan(length, [draw() for _ in range(_pairs(evaluations))])


def half_pairs(length: int, evaluations: int, rng: np.random.Generator) -> MaskPlan:
    """H: M any half (rounded up) and its complement, weight 1: each token predicted once a pair.

    Unbiased for mask level 1/2 only. The choice for class ratios: without the weights 1/k small
    masks bring no noise.
    """
    return _plan(length, [_groups(length, 2, rng) for _ in range(_pairs(evaluations))])


def partition(length: int, evaluations: int, rng: np.random.Generator) -> MaskPlan:
    """P_m, m = ``evaluations``: one random split into m groups, each masked in turn, weight 1.

    Unbiased for mask level 1/m only; with m = L the pseudo-log-likelihood (Salazar 2020).
    """
    return _plan(length, [_groups(length, evaluations, rng)])


#: (length, evaluations, generator) -> plan; those of pairs need an even number of evaluations.
ESTIMATORS: Mapping[EstimatorName, Callable[[int, int, np.random.Generator], MaskPlan]] = {
    "bernoulli": bernoulli,
    "fixed_k": fixed_k,
    "systematic_k": systematic_k,
    "complementary": complementary,
    "half_pairs": half_pairs,
    "partition": partition,
}


def class_plans(
    scheme: Scheme, tokens: TokenIds, classes: Sequence[int], key: bytes
) -> list[MaskPlan]:
    """Return a text's plan for each class: one plan for all, or each class its own.

    They follow from the key and the tokens alone, whatever else is scored beside the text.
    """
    draw, n = ESTIMATORS[scheme.estimator], scheme.evaluations
    if scheme.shared:
        return [draw(len(tokens), n, mask_rng(key, tokens, 0))] * len(classes)
    return [draw(len(tokens), n, mask_rng(key, tokens, c)) for c in classes]


def evaluate(
    net: ClassNetwork,
    pieces: Sequence[TokenIds],
    scheme: Scheme,
    *,
    classes: Sequence[int],
    key: bytes,
) -> Evaluated:
    """Run ``scheme.evaluations`` passes of B x C sequences, one mask of every text and class
    each. Classes are the network's: 1..C, or 0 for the text whatever its class.
    """
    plans_BC = [class_plans(scheme, tokens, classes, key) for tokens in pieces]
    device = next(net.parameters()).device
    ids_BL, real_BL, _ = pad_batch(pieces, np.zeros(len(pieces))).inputs(device)
    B, L = ids_BL.shape
    C, K = len(classes), scheme.evaluations
    masks_BKCL = np.zeros((B, K, C, L), bool)
    for b, plans_C in enumerate(plans_BC):
        for c, plan in enumerate(plans_C):
            masks_BKCL[b, :, c, : len(pieces[b])] = plan.masks_KL

    ids_XL = ids_BL.repeat_interleave(C, 0)  # X = B x C sequences
    real_XL = None if real_BL is None else real_BL.repeat_interleave(C, 0)
    class_X = torch.tensor(classes, device=device).repeat(B)
    log_probs_BKCL = np.zeros(masks_BKCL.shape, np.float32)
    for k in range(K):
        mask_BCL = masks_BKCL[:, k]
        if mask_BCL.any():
            mask_XL = torch.from_numpy(mask_BCL.reshape(B * C, L)).to(device)
            with torch.inference_mode():
                values_N = masked_log_probs(net, ids_XL, mask_XL, class_X, real_XL)
            log_probs_BKCL[:, k][mask_BCL] = values_N.float().cpu().numpy()
    weights_BCK = np.array([[plan.weights_K for plan in plans_C] for plans_C in plans_BC])
    return Evaluated(log_probs_BKCL, masks_BKCL, weights_BCK.transpose(0, 2, 1), scheme.per_draw)


def nelbo(
    net: ClassNetwork, pieces: Sequence[TokenIds], *, class_: int, evaluations: int, key: bytes
) -> Float64:
    """Return an unbiased estimate of the NELBO of B texts, nats: MDLM's bound on -log p(x|c).

    ``class_`` 0 leaves the class open: -log p(x). By complementary masks, which leave no token
    out.
    """
    scheme = Scheme("complementary", evaluations)
    return -evaluate(net, pieces, scheme, classes=[class_], key=key).estimate()[:, 0]


def density_ratio(
    net: ClassNetwork,
    pieces: Sequence[TokenIds],
    background_B: npt.NDArray[np.floating],
    *,
    evaluations: int = 2,
    key: bytes,
) -> Float64:
    """Return the novelty [log p_bg(x) - log p(x)] / L of B texts, nats a token.

    ``background_B`` is log p_bg(x): ``unigram_log_probs`` (the noised model of Ren 2019, at its
    limit), or ``-nelbo(...)`` of another network on the same tokens, such as this one before it
    was trained on the domain (Zhang 2024). Without a background the novelty would mostly measure
    how long and how plain a text is (Nalisnick 2019). A text without tokens has novelty 0.
    """
    lengths_B = np.array([max(1, len(tokens)) for tokens in pieces])
    negative_B = nelbo(net, pieces, class_=0, evaluations=evaluations, key=key)
    ratio_B: Float64 = (background_B + negative_B) / lengths_B
    return ratio_B


#: Masked positions and their weight.
_Mask = tuple[npt.NDArray[np.intp], float]


def _plan(length: int, draws: Sequence[Sequence[_Mask]]) -> MaskPlan:
    masks = [mask for draw in draws for mask in draw]
    masks_KL = np.zeros((len(masks), length), bool)
    for k, (positions, _) in enumerate(masks):
        masks_KL[k, positions] = True
    return MaskPlan(masks_KL, np.array([weight for _, weight in masks]))


def _sized(length: int, u: float, rng: np.random.Generator) -> _Mask:
    """Return any k = 1 + floor(L u) tokens, with weight L/k."""
    k = 1 + int(length * u)
    return rng.permutation(length)[:k], length / k


def _groups(length: int, groups: int, rng: np.random.Generator) -> list[_Mask]:
    """Split the tokens into groups of like size, the first the largest."""
    return [(part, 1.0) for part in np.array_split(rng.permutation(length), groups)]


def _pairs(evaluations: int) -> int:
    if evaluations % 2:
        raise ValueError(f"evaluations must be even, as masks come in pairs; got {evaluations}")
    return evaluations // 2


def _van_der_corput(n: int) -> Float64:
    """Return the first n of 0, 1/2, 1/4, 3/4, 1/8, ...: the first 2^i are j / 2^i."""
    levels = np.zeros(1)
    while len(levels) < n:
        levels = np.concatenate([levels, levels + 0.5 / len(levels)])
    return levels[:n]
