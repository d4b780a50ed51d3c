"""Windows of a long text: cut into overlapping pieces, and pool the pieces' scores.

Nothing is cut off: the windows cover every token, the tail included.
"""

from __future__ import annotations

import numpy as np

from guardkit.types import FloatArray, IntArray, Pooling


def windows(n_tokens: int, length: int, overlap: int) -> list[tuple[int, int]]:
    """Return (start, end) token spans of at most ``length`` that cover 0..n_tokens.

    Neighbours share at least ``overlap`` tokens, so that a short payload on a border stands
    whole in one of them; the last window ends at the last token and is full length where the
    text is. An empty text has one empty window.

    >>> windows(10, 4, 1)
    [(0, 4), (3, 7), (6, 10)]
    """
    if not 0 <= overlap < length:
        raise ValueError(f"overlap must be in 0..{length - 1}, got {overlap}")
    if n_tokens <= length:
        return [(0, n_tokens)]
    step = length - overlap
    starts = [*range(0, n_tokens - length, step), n_tokens - length]
    return [(start, start + length) for start in starts]


def pool_windows(
    logits_WC: FloatArray, text_W: IntArray, n_texts: int, how: Pooling, neutral: int | None
) -> FloatArray:
    """Pool window logits into text logits_NC; ``text_W`` says whose window each is.

    ``mean`` averages each label's logit: right where the whole text carries the label
    (sentiment). ``max`` takes each label's largest lead over the ``neutral`` label, whose own
    logit becomes 0: right where one window's payload decides. Every text must have a window.
    """
    n_labels = logits_WC.shape[1]
    counts_N = np.bincount(text_W, minlength=n_texts)
    if counts_N.min(initial=1) < 1:
        raise ValueError("a text without a window")
    if how == "mean":
        sums_NC = np.zeros((n_texts, n_labels), np.float64)
        np.add.at(sums_NC, text_W, logits_WC)
        return (sums_NC / counts_N[:, None]).astype(np.float32)
    if neutral is None:
        raise ValueError("max pooling needs a neutral label")
    lead_WC = logits_WC - logits_WC[:, [neutral]]
    pooled_NC = np.full((n_texts, n_labels), -np.inf, np.float32)
    np.maximum.at(pooled_NC, text_W, lead_WC)
    return pooled_NC
