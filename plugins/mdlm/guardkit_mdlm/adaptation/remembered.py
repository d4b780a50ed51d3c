"""What the one pass makes of texts and what stands in them, window by window.

A trained model keeps that of some held-out texts, so that a row can be added to it later
(``class_rows``) where its data is not at hand. No text is kept and no token: a window is its logits
and its sketch (``sketch``), in which whoever suspects a word can look for it, not more.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from safetensors import safe_open
from safetensors.numpy import save_file
from scipy import sparse

from guardkit import ArtefactError, Pooling, pool_windows, windows
from guardkit_mdlm.adaptation.sketch import BUCKETS, sketches
from guardkit_mdlm.class_network import ClassNetwork
from guardkit_mdlm.inference import one_pass_logits
from guardkit_mdlm.token_ids import TokenIds, cut_windows

REMEMBERED = "remembered.safetensors"
#: Windows that a model remembers, at most: of 128 tokens each about 2 MB.
REMEMBERED_WINDOWS = 2_000

Float32 = npt.NDArray[np.float32]


@dataclass(frozen=True)
class Windows:
    """What the network made of N texts, window by window; ``text_W`` says whose each one is.
    ``sketch_WK`` of a model's own texts is kept in 16 bits."""

    logits_WC: Float32
    sketch_WK: sparse.csr_array
    text_W: npt.NDArray[np.int64]
    labels_N: npt.NDArray[np.int64]
    tokens_N: npt.NDArray[np.int64]
    sources: Sequence[str] = ()
    beside_NC: Float32 | None = None  # what is added to the pooled logits: n-grams of the text

    def __len__(self) -> int:
        return len(self.labels_N)

    def pooled(self, how: Pooling, neutral: int | None) -> Float32:
        """Return logits_NC, as the model's own windows are pooled."""
        logits_NC: Float32 = pool_windows(self.logits_WC, self.text_W, len(self), how, neutral)
        return logits_NC if self.beside_NC is None else logits_NC + self.beside_NC

    def of_texts(self, index: Sequence[int]) -> Windows:
        """Return the texts at ``index``, in that order."""
        at = [np.flatnonzero(self.text_W == i) for i in index]
        chosen_W = np.concatenate([*at, np.zeros(0, np.int64)])
        return Windows(
            self.logits_WC[chosen_W],
            self.sketch_WK[chosen_W],
            np.repeat(np.arange(len(at)), [len(w) for w in at]),
            self.labels_N[list(index)],
            self.tokens_N[list(index)],
            [self.sources[i] for i in index] if self.sources else (),
            None if self.beside_NC is None else self.beside_NC[list(index)],
        )

    def save(self, folder: Path) -> None:
        known = sorted(set(self.sources))
        tensors: dict[str, npt.NDArray[Any]] = {
            "logits_WC": self.logits_WC,
            "sketch_value": self.sketch_WK.data.astype(np.float16),
            "sketch_bucket": self.sketch_WK.indices.astype(np.uint16),
            "sketch_end_W": self.sketch_WK.indptr[1:].astype(np.int64),
            "text_W": self.text_W,
            "labels_N": self.labels_N,
            "tokens_N": self.tokens_N,
            "source_N": np.array([known.index(s) for s in self.sources], np.int64),
        }
        if self.beside_NC is not None:
            tensors["beside_NC"] = self.beside_NC
        save_file(tensors, folder / REMEMBERED, {"sources": "\n".join(known)})


def read_windows(
    net: ClassNetwork,
    ids: Sequence[TokenIds],
    labels_N: npt.NDArray[np.integer],
    *,
    window: int,
    overlap: int,
    device: torch.device,
    sources: Sequence[str] = (),
    beside_NC: Float32 | None = None,
) -> Windows:
    """Run the network over N tokenised texts; ``beside_NC`` is added to their pooled logits."""
    pieces, text_W = cut_windows(ids, window, overlap)
    logits_WC = one_pass_logits(net, pieces, device)
    tokens_N = np.array([len(i) for i in ids], np.int64)
    known_N = labels_N.astype(np.int64)
    return Windows(logits_WC, sketches(pieces), text_W, known_N, tokens_N, sources, beside_NC)


def to_remember(
    ids: Sequence[TokenIds], *, window: int, overlap: int, seed: int
) -> npt.NDArray[np.int64]:
    """Return which texts to remember: at random, as many as their windows allow."""
    order_N = np.random.default_rng(seed).permutation(len(ids))
    counts_N = np.array([len(windows(len(ids[i]), window, overlap)) for i in order_N])
    kept: npt.NDArray[np.int64] = np.sort(order_N[np.cumsum(counts_N) <= REMEMBERED_WINDOWS])
    return kept


def load_remembered(folder: Path) -> Windows:
    """Return what a model remembers of its held-out texts. Raises ArtefactError where it has
    none."""
    path = folder / REMEMBERED
    if not path.is_file():
        raise ArtefactError(
            f"{folder}: remembers no held-out texts ({REMEMBERED}), so nothing can be added to it; "
            "models trained by this version do, if they have the one_pass scorer, a network of "
            "their own for all labels and no other model's features"
        )
    with safe_open(path, "np") as file:
        tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
        known = (file.metadata() or {}).get("sources", "").split("\n")
    value = tensors["sketch_value"].astype(np.float32)
    start_W = np.concatenate([[0], tensors["sketch_end_W"]])
    bucket = tensors["sketch_bucket"].astype(np.int32)
    sketch_WK = sparse.csr_array((value, bucket, start_W), shape=(len(start_W) - 1, BUCKETS))
    return Windows(
        tensors["logits_WC"],
        sketch_WK,
        tensors["text_W"],
        tensors["labels_N"],
        tensors["tokens_N"],
        [known[i] for i in tensors["source_N"]],
        tensors.get("beside_NC"),
    )
