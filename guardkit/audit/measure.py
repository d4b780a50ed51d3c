"""How well a feature tells a label: one number for every kind of feature.

It is the AUROC of guessing the label from the feature alone, on texts it was not counted on. The
values (yes and no, kinds, ranges of a number) are ranked by how much oftener they come with the
label than without, counted in other groups; the guess for a text is the rank of its value. For a
yes or no this is the balanced accuracy; 0.5 is chance.

Shape letters: N texts, F folds, V values of a feature, C labels, X folds x values, B blocks of
equal guesses.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from guardkit.data.splits import FOLDS
from guardkit.types import IntArray

Float64 = npt.NDArray[np.float64]


class Counts:
    """A feature's counts by fold, value and label, under weights of the texts, and the AUROC of
    guessing each label from it; the guesses are made of all texts, and stay."""

    def __init__(
        self, value_N: IntArray, labels_N: IntArray, fold_N: IntArray, *, values: int, labels: int
    ) -> None:
        self._shape = (FOLDS, values, labels)
        self._cell_N = (fold_N * values + value_N) * labels + labels_N
        counts_FVC = self._of(np.ones(len(labels_N)))
        own_FVC = counts_FVC.sum(axis=0) - counts_FVC  # counted in the other folds
        rest_FVC = own_FVC.sum(axis=2, keepdims=True) - own_FVC
        guess_FVC = np.log(_smoothed(own_FVC) / _smoothed(rest_FVC)).round(9)
        # by rank within the fold: what one fold's labels do to the others' counts is no evidence
        self._block_CX = [
            np.concatenate([np.unique(x_V, return_inverse=True)[1] for x_V in guess_FVC[:, :, c]])
            for c in range(labels)
        ]

    def __call__(self, weight_N: Float64) -> tuple[Float64, Float64]:
        """Return (auroc_C, with_VC)."""
        counts_FVC = self._of(weight_N)
        all_X = counts_FVC.sum(axis=2).ravel()
        aurocs = []
        for c, block_X in enumerate(self._block_CX):
            own_X = counts_FVC[:, :, c].ravel()
            own_B = np.bincount(block_X, weights=own_X)
            rest_B = np.bincount(block_X, weights=all_X - own_X)
            pairs = own_B.sum() * rest_B.sum()
            won = own_B @ (np.cumsum(rest_B) - rest_B / 2)
            aurocs.append(won / pairs if pairs else np.nan)
        return np.array(aurocs), counts_FVC.sum(axis=0)

    def _of(self, weight_N: Float64) -> Float64:
        size = int(np.prod(self._shape))
        counts = np.bincount(self._cell_N, weights=weight_N, minlength=size)
        return counts.astype(np.float64).reshape(self._shape)


def _smoothed(counts_FVC: Float64) -> Float64:
    """Return P(value | label) with half a text added to each value."""
    smooth_FVC = counts_FVC + 0.5
    share_FVC: Float64 = smooth_FVC / smooth_FVC.sum(axis=1, keepdims=True)
    return share_FVC


def lean(with_VC: npt.NDArray[np.number], size_C: npt.NDArray[np.number]) -> Float64:
    """Return each label's share among the texts with a value, were there equally many texts with
    the label and without; half a text is added to every count."""
    rest_VC, rest_C = with_VC.sum(axis=1, keepdims=True) - with_VC, size_C.sum() - size_C
    own_VC, other_VC = (with_VC + 0.5) / (size_C + 1), (rest_VC + 0.5) / (rest_C + 1)
    lean_VC: Float64 = own_VC / (own_VC + other_VC)
    return lean_VC


def gap(with_VC: npt.NDArray[np.number], size_C: npt.NDArray[np.number]) -> Float64:
    """Return how much oftener a value comes with a label than without, as a difference."""
    rest_VC, rest_C = with_VC.sum(axis=1, keepdims=True) - with_VC, size_C.sum() - size_C
    gap_VC: Float64 = with_VC / np.maximum(size_C, 1) - rest_VC / np.maximum(rest_C, 1)
    return gap_VC
