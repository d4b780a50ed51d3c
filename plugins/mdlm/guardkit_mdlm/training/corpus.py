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

from guardkit_mdlm.batches import Batch, pad_batch
from guardkit_mdlm.token_ids import TokenIds

T = TypeVar("T")
#: Steps' worth of windows that are sorted by length together: enough to pack well, few
#: enough that a step still mixes the data.
POOL_STEPS = 40


@dataclass(frozen=True)
class Tokenised:
    """Texts as token ids, and their labels; -1 where there is none. ``features_NF`` are another
    model's, standardised. ``texts`` are the texts themselves, where something else reads them."""

    ids: Sequence[TokenIds]
    labels_N: npt.NDArray[np.integer]
    features_NF: npt.NDArray[np.float32] | None = None
    sources: Sequence[str] = ()
    texts: Sequence[str] = ()

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
