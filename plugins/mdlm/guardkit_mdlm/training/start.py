"""What a network knows before any training: counts of the training text.

Both starts are closed-form and take seconds; what training adds is measured against them.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from guardkit_mdlm.model import Denoiser
from guardkit_mdlm.token_ids import TokenIds

#: Neighbours this far apart count as met; the first two in full, others by 1 / distance.
REACH = 8
#: Root mean square of the embeddings' coordinates.
SCALE = 0.25


def start_from_naive_bayes(
    net: Denoiser,
    ids: Sequence[TokenIds],
    labels_N: npt.NDArray[np.integer],
    *,
    shared: bool = True,
) -> None:
    """Set the output biases so that, before any training, every token's log-probability under
    class c is its smoothed log-frequency there: the generative ratio is then naive Bayes.

    The class bias is log p(w|c) - mean_c log p(w|c) and stays as counted: trained, its rare
    words drift. A zero final norm silences the hidden state at the start. Without ``shared``
    only class biases are set: a network that knows language has the rest.
    """
    V, C = net.shape.vocab_size, net.shape.n_classes
    counts_CV = np.ones((C, V))
    for tokens, label in zip(ids, labels_N, strict=True):
        if label >= 0:
            counts_CV[label] += np.bincount(tokens, minlength=V)
    words_V = np.arange(V) != net.shape.mask_id  # MASK is never predicted
    log_p_CV = np.zeros((C, V))
    log_p_CV[:, words_V] = np.log(
        counts_CV[:, words_V] / counts_CV[:, words_V].sum(1, keepdims=True)
    )
    with torch.no_grad():
        if net.shape.class_bias:
            net.class_bias.copy_(torch.from_numpy(log_p_CV - log_p_CV.mean(0)))
        if shared:
            net.trunk.output_bias.copy_(torch.from_numpy(log_p_CV.mean(0)))
        if shared and net.shape.class_bias:
            net.trunk.silence()


def start_from_cooccurrence(net: Denoiser, texts: Iterable[TokenIds]) -> None:
    """Set the token embeddings to a factorisation of how often tokens meet.

    Rows of U S^(1/2) where U S V^T is the truncated SVD of the positive pointwise mutual
    information, contexts smoothed by the power .75 (Levy, Goldberg & Dagan 2015): what word2vec
    tends to, in a minute. MASK keeps its own. Embeddings wider than the matrix has rank keep
    random coordinates in the rest.
    """
    V = net.shape.vocab_size - 1
    pmi_VV = _positive_pmi(_met(texts, V))
    embedding_VD = net.trunk.embedding
    D = min(embedding_VD.shape[1], V)
    U_VD, S_D, _ = torch.svd_lowrank(pmi_VV, q=min(V, D + 44), niter=3)
    found_VD = (U_VD * S_D.sqrt())[:, :D]
    found_VD = found_VD - found_VD.mean(0)
    scale = SCALE / found_VD.square().mean().sqrt().clamp(min=1e-6)
    with torch.no_grad():
        embedding_VD[:V, :D] = found_VD * scale


def _met(texts: Iterable[TokenIds], V: int) -> npt.NDArray[np.float32]:
    """Count, symmetrically, how often two tokens stand within REACH of each other in a text."""
    counts = np.zeros(V * V, np.float32)
    end = np.full(REACH, -1, np.int32)  # no pair reaches across it
    flat = np.concatenate([part for tokens in texts for part in (tokens, end)]).astype(np.int64)
    for distance in range(1, REACH + 1):
        left, right = flat[:-distance], flat[distance:]
        inside = (left >= 0) & (right >= 0)
        pairs = np.bincount(left[inside] * V + right[inside], minlength=V * V)
        counts += pairs.astype(np.float32) / (1 if distance <= 2 else distance)
    square_VV = counts.reshape(V, V)
    return square_VV + square_VV.T


def _positive_pmi(met_VV: npt.NDArray[np.float32]) -> Tensor:
    """Return max(0, log p(w, c) / (p(w) q(c))), q(c) in proportion to count ** .75."""
    met = torch.from_numpy(met_VV)
    total_V = met.sum(1).clamp(min=1e-9)
    context_V = total_V**0.75 / (total_V**0.75).sum()
    return (met / total_V[:, None] / context_V).log_().nan_to_num_(neginf=0.0).clamp_(min=0.0)
