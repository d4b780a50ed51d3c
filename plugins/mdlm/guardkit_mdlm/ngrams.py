"""Words and short runs of them beside the network: a linear model of what stands in a window.

A window's *terms* are its runs of one to n tokens, each once; runs of two and more are hashed into
a fixed number of buckets. The model adds, for each class, the sum of its terms' weights over the
square root of their number, and a constant:

    z_c = b_c + sum_{t in window} w_{t,c} / sqrt(number of terms)

``guardkit_mdlm.ngram_fit`` says where the weights come from.

Shape letters: W windows, B those of a batch, L tokens, T terms, F rows of weights, C classes.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
import torch.nn.functional as F
from scipy.sparse import csr_array
from torch import Tensor, nn

from guardkit_mdlm.batches import pad_batch
from guardkit_mdlm.tokenizer import TokenIds

#: What spreads runs over the buckets, a number for each token from the last on, and one for the
#: length. Which numbers does not matter; that they stay does.
MULTIPLIERS, OF_LENGTH = (8_191, 1_000_003, 998_244_353, 122_949_823, 433_494_437), 7_919
#: Windows whose terms are found at once.
CHUNK_WINDOWS = 1024


class Ngrams(nn.Module):
    """The linear model of runs of at most ``longest`` tokens. ``weight_FC`` holds single tokens
    first, then buckets, then padding, whose row is zero."""

    def __init__(self, vocab_size: int, longest: int, buckets: int, n_classes: int) -> None:
        super().__init__()
        self.vocab_size, self.longest, self.buckets = vocab_size, longest, buckets
        rows = vocab_size + buckets + 1
        self.weight_FC = nn.Parameter(torch.zeros(rows, n_classes), requires_grad=False)
        self.bias_C = nn.Parameter(torch.zeros(n_classes), requires_grad=False)

    @property
    def padding(self) -> int:
        return self.vocab_size + self.buckets

    def terms(self, ids_BL: Tensor, real_BL: Tensor | None) -> Tensor:
        """Return the row of ``weight_FC`` of the run of each length from each token on, (B, n, L);
        of a run that would go past the window's end, that of padding."""
        L = ids_BL.shape[1]
        if real_BL is None:
            real_BL = torch.ones_like(ids_BL, dtype=torch.bool)
        beyond = (0, self.longest - 1)
        ids_BS, real_BS = F.pad(ids_BL, beyond), F.pad(real_BL, beyond, value=False)
        found = [ids_BL.masked_fill(~real_BL, self.padding)]
        for n in range(2, self.longest + 1):
            hash_BL = torch.full_like(ids_BL, n * OF_LENGTH)
            for i in range(n):
                hash_BL = hash_BL + ids_BS[:, i : i + L] * MULTIPLIERS[n - 1 - i]
            row_BL = hash_BL % self.buckets + self.vocab_size
            found.append(row_BL.masked_fill(~real_BS[:, n - 1 : n - 1 + L], self.padding))
        return torch.stack(found, dim=1)

    def forward(self, ids_BL: Tensor, real_BL: Tensor | None) -> Tensor:
        """Return logits_BC, float32; ``real_BL`` is false on padding, None where there is none."""
        term_BT, once_BT = self._once(ids_BL, real_BL)
        value_BTC = F.embedding(term_BT, self.weight_FC).float() * once_BT[..., None]
        number_B1 = once_BT.sum(1, keepdim=True).clamp(min=1)
        return value_BTC.sum(1) / number_B1.sqrt() + self.bias_C.float()

    def _once(self, ids_BL: Tensor, real_BL: Tensor | None) -> tuple[Tensor, Tensor]:
        """Return the terms in order, and which of them are a window's and the first alike."""
        term_BT, _ = self.terms(ids_BL, real_BL).flatten(1).sort(dim=1)
        again_BT = F.pad(term_BT[:, 1:] == term_BT[:, :-1], (1, 0), value=False)
        return term_BT, (term_BT != self.padding) & ~again_BT

    def shares(self, ids_L: Tensor) -> Tensor:
        """Return values_LC of one window's tokens, which sum up to its logits less the constant:
        a term's value is shared by the places where it stands, and there by its tokens."""
        row_NL = self.terms(ids_L[None], None)[0]
        rows_U, own_NL, count_U = torch.unique(row_NL, return_inverse=True, return_counts=True)
        terms = int((rows_U != self.padding).sum())
        value_NLC = self.weight_FC[row_NL].float() / count_U[own_NL][..., None]
        values_LC = torch.zeros_like(value_NLC[0])
        for n, value_LC in enumerate(value_NLC, start=1):
            for i in range(min(n, len(ids_L))):
                values_LC[i:] += value_LC[: len(ids_L) - i] / n
        scaled_LC: Tensor = values_LC / max(1, terms) ** 0.5
        return scaled_LC

    def matrix(self, pieces: Sequence[TokenIds]) -> csr_array:
        """Return what the weights of every term are multiplied with, (W, F), on the CPU."""
        columns, lengths = [], []
        for start in range(0, len(pieces), CHUNK_WINDOWS):
            chunk = pieces[start : start + CHUNK_WINDOWS]
            batch = pad_batch(chunk, np.zeros(len(chunk)))
            term_BT, once_BT = self._once(batch.ids_BL, batch.real_BL)
            columns.append(term_BT[once_BT].numpy())
            lengths.append(once_BT.sum(1).numpy())
        number_W = np.concatenate(lengths)
        scale = np.repeat(np.maximum(number_W, 1) ** -0.5, number_W).astype(np.float32)
        starts = np.append(0, np.cumsum(number_W))
        return csr_array(
            (scale, np.concatenate(columns), starts), shape=(len(pieces), self.padding + 1)
        )
