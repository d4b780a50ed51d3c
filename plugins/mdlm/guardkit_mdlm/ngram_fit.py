"""Fit words and runs of them beside a trained network, and weigh the two on held-out texts.

The weights are a multinomial logistic regression with an L2 penalty on terms scaled by how far
their naive-Bayes log-ratios are from zero, as NB-SVM's are (Wang and Manning 2012; for two classes
the two are the same up to the loss). On a few thousand texts such a model is hard to beat, and it
errs on others than a network trained on the same.

The network's logits and the terms' are added with one weight between them, the one with the least
loss on held-out texts: a logistic regression of two features and no constant.

Shape letters: W windows, F terms, C classes, N texts.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from scipy.optimize import minimize
from scipy.sparse import csr_array, diags_array

from guardkit import Pooling, pool_windows
from guardkit_mdlm.batches import Tokenised
from guardkit_mdlm.inference import cut_windows, one_pass_logits
from guardkit_mdlm.model import Denoiser
from guardkit_mdlm.ngrams import Ngrams

#: Weights of the data against the penalty, of which held-out texts choose one.
STRENGTHS = (4.0, 16.0, 64.0)
ITERATIONS = 60

Float64 = npt.NDArray[np.float64]
Labels = npt.NDArray[np.integer]
Loss = Callable[[Float64], float]


@dataclass(frozen=True)
class Weighing:
    """What was chosen, and what it is worth: the mean of -log p(label) over held-out texts of the
    network alone, of the terms alone and of both, each under its best scale."""

    strength: float
    weight: float  # of the terms' logits beside the network's
    network_loss: float
    ngrams_loss: float
    joined_loss: float


def add_ngrams(
    net: Denoiser,
    labelled: Tokenised,
    held_out: Tokenised,
    *,
    longest: int,
    buckets: int,
    window: int,
    overlap: int,
    pooling: Pooling,
    neutral: int | None,
    device: torch.device,
) -> dict[str, Any]:
    """Join a model of the runs of at most ``longest`` tokens of ``labelled`` texts to a trained
    network; return the record of its weighing. A text's windows share its one vote.

    ``buckets`` are the most there may be: a power of two not below the number of tokens will do.
    """
    pieces, text_W = cut_windows(labelled.ids, window, overlap)
    held_pieces, held_W = cut_windows(held_out.ids, window, overlap)
    features_WF = None if held_out.features_NF is None else held_out.features_NF[held_W]
    network_WC = one_pass_logits(net, held_pieces, device, features_WF).astype(np.float64)
    labels_N = held_out.labels_N

    def loss(logits_WC: Float64) -> float:
        pooled_NC = pool_windows(
            logits_WC.astype(np.float32), held_W, len(held_out), pooling, neutral
        )
        z_NC = pooled_NC.astype(np.float64)
        own_N = z_NC[np.arange(len(z_NC)), labels_N]
        return float((np.logaddexp.reduce(z_NC, axis=1) - own_N).mean())

    tokens = sum(map(len, labelled.ids))
    buckets = min(buckets, 2 ** max(1, tokens - 1).bit_length())
    model = Ngrams(net.shape.vocab_size, longest, buckets, net.shape.n_classes)
    label_W, vote_W = labelled.labels_N[text_W], (1.0 / np.bincount(text_W))[text_W]
    fits = _fits(model.matrix(pieces), label_W, vote_W, net.shape.n_classes)
    chosen, weight_FC, bias_C = _weighed(fits, model.matrix(held_pieces), network_WC, loss)
    with torch.no_grad():
        model.weight_FC.copy_(torch.from_numpy(chosen.weight * weight_FC))
        model.bias_C.copy_(torch.from_numpy(chosen.weight * bias_C))
    net.join_ngrams(model.to(device))
    return asdict(chosen)


def _fits(
    x_WF: csr_array, label_W: Labels, vote_W: Float64, n_classes: int
) -> Iterator[tuple[float, Float64, Float64]]:
    """Yield each strength with its weight_FC and bias_C."""
    scale_F = log_ratios(x_WF, label_W, vote_W, n_classes)
    scaled_WF = x_WF @ diags_array(scale_F)
    for strength in STRENGTHS:
        weight_FC, bias_C = logistic_regression(scaled_WF, label_W, strength * vote_W, n_classes)
        yield strength, weight_FC * scale_F[:, None], bias_C


def _weighed(
    fits: Iterable[tuple[float, Float64, Float64]],
    held_WF: csr_array,
    network_WC: Float64,
    loss: Loss,
) -> tuple[Weighing, Float64, Float64]:
    """Return the fit that is worth most beside the network, and its weighing."""
    _, network_loss = _least(lambda a: loss(np.exp(a[0]) * network_WC), 1)
    found = []
    for strength, weight_FC, bias_C in fits:
        own_WC = held_WF @ weight_FC + bias_C

        def joined(scales: Float64, own_WC: Float64 = own_WC) -> float:
            network, own = np.exp(scales)
            return loss(network * network_WC + own * own_WC)

        def alone(scale: Float64, own_WC: Float64 = own_WC) -> float:
            return loss(np.exp(scale[0]) * own_WC)

        scales, joined_loss = _least(joined, 2)
        weight = float(np.exp(scales[1] - scales[0]))
        weighing = Weighing(strength, weight, network_loss, _least(alone, 1)[1], joined_loss)
        found.append((weighing, weight_FC, bias_C))
    return min(found, key=lambda fit: fit[0].joined_loss)


def log_ratios(x_WF: csr_array, label_W: Labels, vote_W: Float64, n_classes: int) -> Float64:
    """Return each term's root mean square over classes of log p(t | c) - log p(t | not c)."""
    there_WF = x_WF.sign()
    counts_CF = np.stack([(vote_W * (label_W == c)) @ there_WF for c in range(n_classes)])
    rest_CF = counts_CF.sum(0) - counts_CF

    def log_share(counts_CF: Float64) -> Float64:
        result: Float64 = np.log(counts_CF + 1) - np.log((counts_CF + 1).sum(1, keepdims=True))
        return result

    ratio_CF = log_share(counts_CF) - log_share(rest_CF)
    result_F: Float64 = np.sqrt((ratio_CF**2).mean(0))
    return result_F


def logistic_regression(
    x_WF: csr_array, label_W: Labels, vote_W: Float64, n_classes: int
) -> tuple[Float64, Float64]:
    """Return weight_FC and bias_C that minimise sum_W vote * -log p(label) + |weight|^2 / 2."""
    W, F = x_WF.shape
    own_WC = np.eye(n_classes)[label_W]
    transposed = x_WF.T.tocsr()

    def loss(flat: Float64) -> tuple[float, Float64]:
        weight_FC, bias_C = flat[n_classes:].reshape(F, n_classes), flat[:n_classes]
        z_WC = x_WF @ weight_FC + bias_C
        log_p_WC = z_WC - np.logaddexp.reduce(z_WC, axis=1, keepdims=True)
        residual_WC = vote_W[:, None] * (np.exp(log_p_WC) - own_WC)
        value = -(vote_W * log_p_WC[np.arange(W), label_W]).sum() + (weight_FC**2).sum() / 2
        gradient_FC = transposed @ residual_WC + weight_FC
        return float(value), np.append(residual_WC.sum(0), gradient_FC.ravel())

    start = np.zeros(n_classes * (F + 1))
    flat = minimize(loss, start, jac=True, method="L-BFGS-B", options={"maxiter": ITERATIONS}).x
    return flat[n_classes:].reshape(F, n_classes), flat[:n_classes]


def _least(loss: Callable[[Float64], float], size: int) -> tuple[Float64, float]:
    """Return where a loss of one or two log-scales is least, and what it is there. Pooled by their
    largest, windows give a loss with edges."""
    simplex = np.vstack([np.zeros(size), np.eye(size)])
    options = {"initial_simplex": simplex, "xatol": 1e-2, "fatol": 1e-6}
    found = minimize(loss, simplex[0], method="Nelder-Mead", options=options)
    return found.x, float(found.fun)
