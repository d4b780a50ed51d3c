"""Words and short runs of them beside the network: a linear model of what stands in a window.

A window's runs of one to n tokens count once each; those that the model knows are *terms*. It adds,
for each class, the sum of the terms' weights over the square root of the number of runs, known or
not, so that a few known words among strange ones weigh little, and a constant:

    z_c = b_c + sum_{t in window} w_{t,c} / sqrt(number of runs)

A term is known by a hash of 31 bits, found among the sorted hashes of all by bisection: with a
million terms, one unknown run in two thousand is taken for one of them. Hashing all runs into rows,
known or not, costs accuracy (docs/results/imdb.md).
``guardkit_mdlm.training.ngram_fit`` says where the weights come from.

Shape letters: W windows, B those of a batch, L tokens, n lengths of runs, R = n L runs, T terms,
C classes.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from guardkit_mdlm.runs import MULTIPLIERS, NONE, OF_LENGTH, PRIME


class Ngrams(nn.Module):
    """The linear model of ``n_terms`` runs of at most ``longest`` tokens. ``hash_T`` is in
    ascending order; ``weight_TC`` has one row more, which is zero, for what is no term."""

    def __init__(self, longest: int, n_terms: int, n_classes: int) -> None:
        super().__init__()
        self.longest, self.n_terms = longest, n_terms
        self.hash_T: Tensor
        self.register_buffer("hash_T", torch.zeros(n_terms, dtype=torch.int32))
        self.weight_TC = nn.Parameter(torch.zeros(n_terms + 1, n_classes), requires_grad=False)
        self.bias_C = nn.Parameter(torch.zeros(n_classes), requires_grad=False)

    def forward(self, ids_BL: Tensor, real_BL: Tensor | None) -> Tensor:
        """Return logits_BC, float32; ``real_BL`` is false on padding, None where there is none."""
        hash_BR, once_BR = once(run_hashes(ids_BL, real_BL, self.longest))
        value_BRC = F.embedding(self.rows(hash_BR), self.weight_TC).float() * once_BR[..., None]
        number_B1 = once_BR.sum(1, keepdim=True).clamp(min=1)
        return value_BRC.sum(1) / number_B1.sqrt() + self.bias_C.float()

    def rows(self, hash_BR: Tensor) -> Tensor:
        """Return the row of ``weight_TC`` of each hash, the last where it is that of no term."""
        if not self.n_terms:
            return torch.zeros_like(hash_BR)
        # bisection, spelt out: torch's own is not to be had as ONNX
        below_BR = torch.zeros_like(hash_BR)
        for power in reversed(range(self.n_terms.bit_length())):
            next_BR = below_BR + 2**power
            there_BR = self.hash_T[next_BR.clamp(max=self.n_terms - 1)]
            up_BR = (next_BR < self.n_terms) & (there_BR <= hash_BR)
            below_BR = torch.where(up_BR, next_BR, below_BR)
        return torch.where(self.hash_T[below_BR] == hash_BR, below_BR, self.n_terms)

    def shares(self, ids_L: Tensor) -> Tensor:
        """Return values_LC of one window's tokens, which sum up to its logits less the constant:
        a term's value is shared by the places where it stands, and there by its tokens."""
        hash_NL = run_hashes(ids_L[None], None, self.longest)[0]
        return shared_out(self.weight_TC[self.rows(hash_NL)].float(), hash_NL)


def run_hashes(ids_BL: Tensor, real_BL: Tensor | None, longest: int) -> Tensor:
    """Return the hash of the run of each length from each token on, (B, n, L), ``NONE`` where it
    would go past the window's end."""
    L = ids_BL.shape[1]
    if real_BL is None:
        real_BL = torch.ones_like(ids_BL, dtype=torch.bool)
    beyond = (0, longest - 1)
    ids_BS, real_BS = F.pad(ids_BL, beyond), F.pad(real_BL, beyond, value=False)
    found = []
    for n in range(1, longest + 1):
        hash_BL = torch.full_like(ids_BL, n * OF_LENGTH)
        for i in range(n):
            hash_BL = hash_BL + ids_BS[:, i : i + L] * MULTIPLIERS[n - 1 - i]
        found.append((hash_BL % PRIME).masked_fill(~real_BS[:, n - 1 : n - 1 + L], NONE))
    return torch.stack(found, dim=1)


def once(hash_BNL: Tensor) -> tuple[Tensor, Tensor]:
    """Return each window's hashes, (B, R), and which of them to count that each run counts once."""
    hash_BR = hash_BNL.flatten(1).sort(dim=1).values
    again_BR = F.pad(hash_BR[:, 1:] == hash_BR[:, :-1], (1, 0), value=False)
    return hash_BR, (hash_BR != NONE) & ~again_BR


def shared_out(value_NLC: Tensor, hash_NL: Tensor) -> Tensor:
    """Share what the runs of one window are worth among its tokens, values_LC: a run's worth by
    the places where it stands and there by its tokens, over the square root of the number of runs.
    """
    hash_U, own_NL, count_U = torch.unique(hash_NL, return_inverse=True, return_counts=True)
    number = int((hash_U != NONE).sum())
    value_NLC = value_NLC / count_U[own_NL][..., None]
    values_LC, L = torch.zeros_like(value_NLC[0]), hash_NL.shape[1]
    for n, value_LC in enumerate(value_NLC, start=1):
        for i in range(min(n, L)):
            values_LC[i:] += value_LC[: L - i] / n
    scaled_LC: Tensor = values_LC / max(1, number) ** 0.5
    return scaled_LC
