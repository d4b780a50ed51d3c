"""Token ids side by side, padded to one length: what a network reads at once.

Shape letters: B windows, L tokens, F features.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from guardkit_mdlm.token_ids import TokenIds


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
