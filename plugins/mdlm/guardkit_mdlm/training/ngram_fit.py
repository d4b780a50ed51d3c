"""Fit words and runs of them beside a trained network, and weigh the two on held-out texts.

The weights are a multinomial logistic regression with an L2 penalty on terms scaled by how far
their naive-Bayes log-ratios are from zero, as NB-SVM's are (Wang and Manning 2012; for two classes
the two are the same up to the loss). On a few thousand texts such a model is hard to beat, and it
errs on others than a network trained on the same.

The network's logits and the terms' are added, each under the scale that makes the loss on held-out
texts least: a logistic regression of two features and no constant. The scales become part of the
weights, so that the sum is in natural units.

Shape letters: W windows, R runs of a window, T terms, C classes, N texts.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from scipy.optimize import minimize
from scipy.sparse import csr_array, diags_array
from tokenizers import Tokenizer

from guardkit import Pooling, pool_windows
from guardkit_mdlm.inference import one_pass_logits
from guardkit_mdlm.model import Denoiser
from guardkit_mdlm.ngrams import Ngrams
from guardkit_mdlm.runs import window_hashes
from guardkit_mdlm.text_ngrams import TextNgrams
from guardkit_mdlm.token_ids import cut_windows
from guardkit_mdlm.training.corpus import Tokenised

#: Weights of the data against the penalty, of which held-out texts choose one.
STRENGTHS = (4.0, 16.0, 64.0, 256.0)
ITERATIONS = 60
#: Where the logarithms of the two scales may lie: one that is of no use is a thousandth, and can
#: still be told from rounding.
SCALES = (-7.0, 7.0)

Float64 = npt.NDArray[np.float64]
Hashes = npt.NDArray[np.int32]
Labels = npt.NDArray[np.integer]
Loss = Callable[[Float64], float]


@dataclass(frozen=True)
class Weighing:
    """What was chosen, and what it is worth: ``smoothed_loss`` on held-out texts of the network
    alone, of the terms alone and of both, each under its best scale."""

    strength: float
    network_scale: float
    ngrams_scale: float
    network_loss: float
    ngrams_loss: float
    joined_loss: float


def add_ngrams(
    net: Denoiser,
    labelled: Tokenised,
    held_out: Tokenised,
    *,
    longest: int,
    most: int,
    window: int,
    overlap: int,
    pooling: Pooling,
    neutral: int | None,
    device: torch.device,
) -> dict[str, Any]:
    """Join a model of the runs of at most ``longest`` tokens of ``labelled`` texts to a trained
    network, ``most`` of them; return the record of its weighing. A text's windows share its one
    vote."""
    pieces, text_W = cut_windows(labelled.ids, window, overlap)
    held_pieces, held_W = cut_windows(held_out.ids, window, overlap)
    features_WF = None if held_out.features_NF is None else held_out.features_NF[held_W]
    network_WC = one_pass_logits(net, held_pieces, device, features_WF).astype(np.float64)
    labels_N = held_out.labels_N

    def loss(logits_WC: Float64) -> float:
        pooled_NC = pool_windows(
            logits_WC.astype(np.float32), held_W, len(held_out), pooling, neutral
        )
        return smoothed_loss(pooled_NC.astype(np.float64), labels_N)

    C = net.shape.n_classes
    hashes = list(window_hashes(pieces, longest))
    hash_T = known_terms(hashes, text_W, labelled.labels_N, C, most)
    label_W, vote_W = labelled.labels_N[text_W], (1.0 / np.bincount(text_W))[text_W]
    fits = _fits(term_matrix(hashes, hash_T), label_W, vote_W, C)
    held_WT = term_matrix(list(window_hashes(held_pieces, longest)), hash_T)
    chosen, weight_TC, bias_C = _weighed(fits, held_WT.__matmul__, network_WC, loss)

    model = Ngrams(longest, len(hash_T), C)
    with torch.no_grad():
        model.hash_T.copy_(torch.from_numpy(hash_T))
        model.weight_TC[:-1] = torch.from_numpy(chosen.ngrams_scale * weight_TC)
        model.bias_C.copy_(torch.from_numpy(chosen.ngrams_scale * bias_C))
    net.scale_label_logits(chosen.network_scale)
    net.join_ngrams(model.to(device))
    return {"terms": len(hash_T), **asdict(chosen)}


def fit_text_ngrams(
    texts: Sequence[str],
    labels_N: Labels,
    held_out: Sequence[str],
    held_labels_N: Labels,
    network_NC: Float64,
    *,
    tokenizer: Tokenizer,
    longest: int,
    most: int,
    window: int,
    overlap: int,
    pooling: Pooling,
    neutral: int | None,
) -> tuple[TextNgrams, Weighing]:
    """Return n-grams of ``texts`` by a tokenizer of their own, and how they and a network were
    weighed: ``network_NC`` are the network's pooled logits of the ``held_out`` texts. The scale of
    the n-grams is in their weights; the network's is left to the caller."""
    C = network_NC.shape[1]
    empty = TextNgrams(
        tokenizer, longest, window, overlap,
        np.zeros(0, np.int32), np.zeros((0, C), np.float32), np.zeros(C, np.float32),
    )  # fmt: skip
    pieces, text_W = empty.cut(texts)
    held_pieces, held_W = empty.cut(held_out)
    hashes = list(window_hashes(pieces, longest))
    hash_T = known_terms(hashes, text_W, labels_N, C, most)
    label_W, vote_W = labels_N[text_W], (1.0 / np.bincount(text_W))[text_W]
    fits = _fits(term_matrix(hashes, hash_T), label_W, vote_W, C)
    held_WT = term_matrix(list(window_hashes(held_pieces, longest)), hash_T)

    def own(parameters_TC: Float64) -> Float64:
        own_WC = (held_WT @ parameters_TC).astype(np.float32)
        pooled_NC = pool_windows(own_WC, held_W, len(held_out), pooling, neutral)
        return pooled_NC.astype(np.float64)

    def loss(logits_NC: Float64) -> float:
        return smoothed_loss(logits_NC, held_labels_N)

    chosen, weight_TC, bias_C = _weighed(fits, own, network_NC, loss)
    scale = np.float32(chosen.ngrams_scale)
    fitted = replace(
        empty,
        hash_T=hash_T,
        weight_TC=scale * weight_TC.astype(np.float32),
        bias_C=scale * bias_C.astype(np.float32),
    )
    return fitted, chosen


def known_terms(
    hashes: Sequence[Hashes], text_W: Labels, labels_N: Labels, n_classes: int, most: int
) -> Hashes:
    """Return the hashes, in order, of runs that occur in two texts at least: what occurs in one
    tells that text from others, and nothing else. Of more than ``most``, those whose naive-Bayes
    ratios are the most standard errors from zero, about."""
    of_text = np.split(np.arange(len(hashes)), np.flatnonzero(np.diff(text_W)) + 1)
    texts = [np.unique(np.concatenate([hashes[w] for w in own_W])) for own_W in of_text]
    hash_T, count_T = np.unique(np.concatenate(texts), return_counts=True)
    hash_T, count_T = hash_T[count_T >= 2], count_T[count_T >= 2]
    if len(hash_T) > most:
        ratio_T = log_ratios(term_matrix(texts, hash_T), labels_N, np.ones(len(texts)), n_classes)
        hash_T = np.sort(hash_T[np.argpartition(-ratio_T * np.sqrt(count_T), most)[:most]])
    return hash_T


def term_matrix(hashes: Sequence[Hashes], hash_T: Hashes) -> csr_array:
    """Return what the weights of terms are multiplied with, (W, T), in windows of these runs."""
    number_W = np.array([len(hash_R) for hash_R in hashes])
    row_R = np.repeat(np.arange(len(hashes)), number_W)
    hash_R = np.concatenate(hashes)
    column_R = np.searchsorted(hash_T, hash_R)
    known_R = column_R < len(hash_T)
    known_R[known_R] = hash_T[column_R[known_R]] == hash_R[known_R]
    row_R, column_R = row_R[known_R], column_R[known_R]
    scale_R = (number_W[row_R] ** -0.5).astype(np.float32)
    starts = np.append(0, np.cumsum(np.bincount(row_R, minlength=len(hashes))))
    return csr_array((scale_R, column_R, starts), shape=(len(hashes), len(hash_T)))


def _fits(
    x_WT: csr_array, label_W: Labels, vote_W: Float64, n_classes: int
) -> Iterator[tuple[float, Float64, Float64]]:
    """Yield each strength with its weight_TC and bias_C."""
    ratio_T = log_ratios(x_WT, label_W, vote_W, n_classes)
    scaled_WT = x_WT @ diags_array(ratio_T)
    for strength in STRENGTHS:
        weight_TC, bias_C = logistic_regression(scaled_WT, label_W, strength * vote_W, n_classes)
        yield strength, weight_TC * ratio_T[:, None], bias_C


def _weighed(
    fits: Iterable[tuple[float, Float64, Float64]],
    logits_of: Callable[[Float64], Float64],
    network_WC: Float64,
    loss: Loss,
) -> tuple[Weighing, Float64, Float64]:
    """Return the fit that is worth most beside the network, and its weighing. ``logits_of`` gives
    the logits of weights, without their bias; they are of windows or of texts, as ``network_WC``
    are."""
    _, network_loss = _least(lambda a: loss(np.exp(a[0]) * network_WC), 1)
    found = []
    for strength, weight_TC, bias_C in fits:
        own_WC = logits_of(weight_TC) + bias_C

        def joined(scales: Float64, own_WC: Float64 = own_WC) -> float:
            network, own = np.exp(scales)
            return loss(network * network_WC + own * own_WC)

        def alone(scale: Float64, own_WC: Float64 = own_WC) -> float:
            return loss(np.exp(scale[0]) * own_WC)

        scales, joined_loss = _least(joined, 2)
        network, own = np.exp(scales).tolist()
        ngrams_loss = _least(alone, 1)[1]
        weighing = Weighing(strength, network, own, network_loss, ngrams_loss, joined_loss)
        found.append((weighing, weight_TC, bias_C))
    return min(found, key=lambda fit: fit[0].joined_loss)


def log_ratios(x_WT: csr_array, label_W: Labels, vote_W: Float64, n_classes: int) -> Float64:
    """Return each term's root mean square over classes of log p(t | c) - log p(t | not c)."""
    there_WT = x_WT.sign()
    counts_CT = np.stack([(vote_W * (label_W == c)) @ there_WT for c in range(n_classes)])
    rest_CT = counts_CT.sum(0) - counts_CT

    def log_share(counts_CT: Float64) -> Float64:
        all_C1 = np.maximum((counts_CT + 1).sum(1, keepdims=True), 1)  # there may be no term
        result: Float64 = np.log(counts_CT + 1) - np.log(all_C1)
        return result

    ratio_CT = log_share(counts_CT) - log_share(rest_CT)
    result_T: Float64 = np.sqrt((ratio_CT**2).mean(0))
    return result_T


def logistic_regression(
    x_WT: csr_array, label_W: Labels, vote_W: Float64, n_classes: int
) -> tuple[Float64, Float64]:
    """Return weight_TC and bias_C that minimise sum_W vote * -log p(label) + |weight|^2 / 2."""
    W, T = x_WT.shape
    own_WC = np.eye(n_classes)[label_W]
    transposed = x_WT.T.tocsr()

    def loss(flat: Float64) -> tuple[float, Float64]:
        weight_TC, bias_C = flat[n_classes:].reshape(T, n_classes), flat[:n_classes]
        z_WC = x_WT @ weight_TC + bias_C
        log_p_WC = z_WC - np.logaddexp.reduce(z_WC, axis=1, keepdims=True)
        residual_WC = vote_W[:, None] * (np.exp(log_p_WC) - own_WC)
        value = -(vote_W * log_p_WC[np.arange(W), label_W]).sum() + (weight_TC**2).sum() / 2
        gradient_TC = transposed @ residual_WC + weight_TC
        return float(value), np.append(residual_WC.sum(0), gradient_TC.ravel())

    start = np.zeros(n_classes * (T + 1))
    flat = minimize(loss, start, jac=True, method="L-BFGS-B", options={"maxiter": ITERATIONS}).x
    return flat[n_classes:].reshape(T, n_classes), flat[:n_classes]


def smoothed_loss(logits_NC: Float64, labels_N: Labels) -> float:
    """Return the mean of -log p(label), as if of N + C texts N + 1 had it and one each of the
    others (Platt 1999): else no scale is large enough for texts that are all told rightly."""
    N, C = logits_NC.shape
    own_N = logits_NC[np.arange(N), labels_N]
    wanted_N = (N * own_N + logits_NC.sum(1)) / (N + C)
    return float((np.logaddexp.reduce(logits_NC, axis=1) - wanted_N).mean())


def _least(loss: Callable[[Float64], float], size: int) -> tuple[Float64, float]:
    """Return where a loss of one or two log-scales is least, and what it is there. Pooled by their
    largest, windows give a loss with edges."""
    simplex = np.vstack([np.zeros(size), np.eye(size)])
    options = {"initial_simplex": simplex, "xatol": 1e-2, "fatol": 1e-6}
    found = minimize(
        loss, simplex[0], method="Nelder-Mead", bounds=[SCALES] * size, options=options
    )
    return found.x, float(found.fun)
