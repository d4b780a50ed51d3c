"""Windows of the training texts, drawn anew each epoch and packed by length into steps.

Everything follows from (seed, epoch), so that a resumed run meets the same batches.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import TypeVar

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from guardkit_mdlm.tokenizer import TokenIds

T = TypeVar("T")
#: Steps' worth of windows that are sorted by length together: enough to pack well, few
#: enough that a step still mixes the data.
POOL_STEPS = 40


@dataclass(frozen=True)
class Batch:
    """B windows of at most L tokens. ``label_B`` is -1 where there is none; ``features_BF`` are
    another model's, of the whole text that a window is of."""

    ids_BL: Tensor
    real_BL: Tensor
    label_B: Tensor
    features_BF: Tensor | None = None

    def inputs(self, device: torch.device) -> tuple[Tensor, Tensor | None, Tensor | None]:
        """Return ids_BL, real_BL and features_BF as the network takes them, on ``device``."""
        real_BL = unless_all(self.real_BL)
        return (
            self.ids_BL.to(device),
            None if real_BL is None else real_BL.to(device),
            None if self.features_BF is None else self.features_BF.to(device),
        )


@dataclass(frozen=True)
class Tokenised:
    """Texts as token ids, and their labels; -1 where there is none. ``features_NF`` are another
    model's, standardised."""

    ids: Sequence[TokenIds]
    labels_N: npt.NDArray[np.integer]
    features_NF: npt.NDArray[np.float32] | None = None
    sources: Sequence[str] = ()

    def __len__(self) -> int:
        return len(self.ids)


@dataclass(frozen=True)
class Corpus:
    """Tokenised texts and how to window them."""

    ids: Sequence[TokenIds]
    labels_N: np.ndarray
    window: int
    windows_per_epoch: int
    batch_tokens: int
    seed: int
    features_NF: npt.NDArray[np.float32] | None = None

    def epoch(self, number: int) -> list[list[tuple[int, int]]]:
        """Return the steps of an epoch, each a list of (text, start) windows."""
        rng = np.random.default_rng([self.seed, number])
        lengths_N = np.array([len(i) for i in self.ids])
        draws_N = np.clip(-(-lengths_N // self.window), 1, self.windows_per_epoch)
        text_W = np.repeat(np.arange(len(self.ids)), draws_N)
        length_W = np.minimum(lengths_N[text_W], self.window)
        start_W = rng.integers(0, lengths_N[text_W] - length_W + 1)
        order_W = rng.permutation(len(text_W))
        per_pool = max(1, POOL_STEPS * self.batch_tokens // max(1, int(length_W.mean())))
        steps: list[list[tuple[int, int]]] = []
        for pool in np.array_split(order_W, max(1, len(order_W) // per_pool)):
            pool = pool[np.argsort(length_W[pool], kind="stable")]
            step: list[tuple[int, int]] = []
            for w in pool:
                if step and (len(step) + 1) * (length_W[w] + 1) > self.batch_tokens:
                    steps.append(step)
                    step = []
                step.append((int(text_W[w]), int(start_W[w])))
            steps.append(step)
        return [steps[i] for i in rng.permutation(len(steps))]

    def batch(self, step: Sequence[tuple[int, int]]) -> Batch:
        text_B = [t for t, _ in step]
        return pad_batch(
            [self.ids[t][start : start + self.window] for t, start in step],
            self.labels_N[text_B],
            None if self.features_NF is None else self.features_NF[text_B],
        )


def pad_batch(
    ids: Sequence[TokenIds],
    labels_N: np.ndarray,
    features_NF: npt.NDArray[np.float32] | None = None,
) -> Batch:
    """Pad to the longest; at least one column, so that an empty text is a row like others."""
    lengths_B = torch.tensor([len(i) for i in ids])
    L = max(1, int(lengths_B.max()))
    ids_BL = np.zeros((len(ids), L), np.int64)
    for row, tokens in enumerate(ids):
        ids_BL[row, : len(tokens)] = tokens
    real_BL = torch.arange(L)[None] < lengths_B[:, None]
    label_B = torch.from_numpy(labels_N.astype(np.int64))
    features_BF = None if features_NF is None else torch.from_numpy(features_NF)
    return Batch(torch.from_numpy(ids_BL), real_BL, label_B, features_BF)


def unless_all(real_BL: Tensor) -> Tensor | None:
    """Return ``real_BL``, or None where nothing is padding. Asked on the CPU: a GPU would have to
    be waited for."""
    return None if bool(real_BL.all()) else real_BL


def steps_of(corpus: Corpus, epochs: float) -> int:
    """Return how many steps ``epochs`` passes take, if all take as many as the first: windows are
    drawn anew, so that another epoch may have a step more or less."""
    return max(1, round(epochs * len(corpus.epoch(0))))


def walk(corpus: Corpus, first_step: int) -> Iterator[Batch]:
    """Yield batches from ``first_step`` on, epoch after epoch, without end."""
    epoch, skip = 0, first_step
    while True:
        steps = corpus.epoch(epoch)
        for step in steps[skip:]:
            yield corpus.batch(step)
        skip = max(0, skip - len(steps))
        epoch += 1


def ahead(items: Iterator[T], count: int = 2) -> Iterator[T]:
    """Yield ``items``, made up to ``count`` ahead of their use in a thread."""
    with ThreadPoolExecutor(1) as thread:
        made = deque(thread.submit(next, items, None) for _ in range(count))
        while (item := made.popleft().result()) is not None:
            made.append(thread.submit(next, items, None))
            yield item
