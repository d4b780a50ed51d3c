"""How rare a text's tokens are in the training text: the novelty that needs no network.

Shape letters: N texts, W windows, B of them, V vocabulary.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt
from safetensors.numpy import load_file

from guardkit import Pooling
from guardkit_mdlm.token_ids import TokenIds

#: An artefact's token frequencies, log p_V, where its novelty is made of them.
BACKGROUND = "background.safetensors"
Float32 = npt.NDArray[np.float32]
Float64 = npt.NDArray[np.float64]


def unigram(texts: Iterable[TokenIds], vocab_size: int) -> Float32:
    """Return log p of each token, from counts plus one, (V,)."""
    counts_V = np.ones(vocab_size)
    for tokens in texts:
        counts_V += np.bincount(tokens, minlength=vocab_size)
    log_p_V: Float32 = np.log(counts_V / counts_V.sum()).astype(np.float32)
    return log_p_V


def unigram_log_probs(log_p_V: Float32, pieces: Sequence[TokenIds]) -> Float64:
    """Return log p(x) of B texts whose tokens are drawn independently, nats."""
    return np.array([log_p_V[tokens].sum(dtype=np.float64) for tokens in pieces])


def rareness(log_p_V: Float32, pieces: Sequence[TokenIds]) -> Float64:
    """Return -log p of each window's tokens, nats a token."""
    lengths_W = np.array([max(1, len(p)) for p in pieces])
    rare_W: Float64 = -unigram_log_probs(log_p_V, pieces) / lengths_W
    return rare_W


def pooled_novelty(
    values_W: npt.NDArray[np.floating],
    pieces: Sequence[TokenIds],
    text_W: npt.NDArray[np.int64],
    pooling: Pooling,
) -> Float32:
    """Return novelty_N of texts: the mean of their windows' by tokens, or under max pooling the
    strangest one's."""
    if pooling == "max":
        novelty_N = np.full(text_W[-1] + 1, -np.inf, np.float32)
        np.maximum.at(novelty_N, text_W, values_W)
        return novelty_N
    tokens_W = np.array([max(1, len(p)) for p in pieces])
    mean_N = np.bincount(text_W, values_W * tokens_W) / np.bincount(text_W, tokens_W)
    return mean_N.astype(np.float32)


def load_background(folder: Path) -> Float32:
    log_p_V: Float32 = load_file(folder / BACKGROUND)["log_p_V"]
    return log_p_V
